"""The oracles themselves: gradients by finite differences, and the batched torch paths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_h1r import ops
from falcon_h1r.errors import RequestError
from falcon_h1r.ops import chunked, reference

LENGTHS = st.lists(st.sampled_from([1, 2, 3, 5, 9, 17, 33]), min_size=1, max_size=5)


def scan_inputs(lengths: list[int], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    total, heads, width, groups, d_state = sum(lengths), 4, 3, 2, 5

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "x": draw(total, heads, width),
        "dt": draw(total, heads).abs(),
        "A": -draw(heads).exp(),
        "B": draw(total, groups, d_state),
        "C": draw(total, groups, d_state),
        "D": draw(heads),
        "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0).int(),
        "initial_state": draw(len(lengths), heads, width, d_state),
    }


def test_recurrence_gradients_by_finite_differences() -> None:
    inputs = scan_inputs([1, 4, 2], 0)
    cu_seqlens = inputs.pop("cu_seqlens")
    names = list(inputs)
    tensors = [t.requires_grad_() for t in inputs.values()]

    def scan(*values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        named = dict(zip(names, values, strict=True))
        return reference.ssd_scan(**named, cu_seqlens=cu_seqlens)

    assert torch.autograd.gradcheck(scan, tensors)


@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.booleans(), st.sampled_from([2, 4, 16, 64]))
def test_chunked_scan(lengths: list[int], with_state: bool, chunk_size: int) -> None:
    inputs = scan_inputs(lengths, len(lengths))
    if not with_state:
        inputs["initial_state"] = None  # type: ignore[assignment]
    y, final = reference.ssd_scan(**inputs)
    got_y, got_final = chunked.ssd_scan(**inputs, chunk_size=chunk_size)
    torch.testing.assert_close(got_y, y, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got_final, final, rtol=1e-10, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.booleans(), st.sampled_from([2, 3, 4]), st.booleans())
def test_shifted_convolution(
    lengths: list[int], with_state: bool, width: int, with_bias: bool
) -> None:
    x = torch.randn(sum(lengths), 6, dtype=torch.float64)
    weight = torch.randn(6, width, dtype=torch.float64)
    bias = torch.randn(6, dtype=torch.float64) if with_bias else None
    state = torch.randn(len(lengths), 6, width - 1, dtype=torch.float64) if with_state else None
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    expected = reference.causal_conv1d(x, weight, bias, cu_seqlens, state)
    got = chunked.causal_conv1d(x, weight, bias, cu_seqlens, state)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.sampled_from([(1, 1), (4, 2), (6, 1)]))
def test_padded_attention(lengths: list[int], heads: tuple[int, int]) -> None:
    q = torch.randn(sum(lengths), heads[0], 8, dtype=torch.float64)
    k, v = (torch.randn(sum(lengths), heads[1], 8, dtype=torch.float64) for _ in range(2))
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    expected = reference.varlen_attention(q, k, v, cu_seqlens, 0.3)
    got = chunked.varlen_attention(q, k, v, cu_seqlens, 0.3)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    last = cu_seqlens[1:] - 1  # one query a sequence, at its end
    ones = torch.arange(len(lengths) + 1)
    got = chunked.varlen_attention(q[last], k, v, ones, 0.3, cu_seqlens)
    torch.testing.assert_close(got, expected[last], rtol=1e-10, atol=1e-10)
    got = reference.varlen_attention(q[last], k, v, ones, 0.3, cu_seqlens)
    torch.testing.assert_close(got, expected[last], rtol=1e-10, atol=1e-10)


def test_cross_entropy_in_parts() -> None:
    hidden = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(30, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 30, (50,))
    whole = reference.linear_cross_entropy(hidden, weight, targets, 0.7)
    parts = chunked.linear_cross_entropy(hidden, weight, targets, 0.7, rows=16)
    torch.testing.assert_close(parts, whole)
    expected = torch.autograd.grad(whole.sum(), (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), (hidden, weight)), expected)


def test_cached_ops_equal_uncached_and_leave_other_slots() -> None:
    inputs = scan_inputs([3, 4], 7)
    del inputs["initial_state"]
    cu_seqlens = inputs.pop("cu_seqlens")
    y, final = reference.ssd_scan(**inputs, cu_seqlens=cu_seqlens)
    state = torch.full((5, 4, 3, 5), torch.nan, dtype=torch.float64)
    got = reference.ssd_scan_slots(
        **inputs, cu_seqlens=cu_seqlens, ssm_state=state,
        state_slots=torch.tensor([4, 1]), has_initial_state=torch.tensor([False, False]),
    )  # fmt: skip
    torch.testing.assert_close(got, y)
    torch.testing.assert_close(state[[4, 1]], final)
    assert state[[0, 2, 3]].isnan().all()


def test_an_unknown_backend_is_refused() -> None:
    x = torch.ones(2, 4)
    for backend in ("triton", "gpu"):
        with pytest.raises(RequestError, match="backend is"):
            ops.rms_norm(x, x[0], 1e-5, backend=backend)  # type: ignore[arg-type]
