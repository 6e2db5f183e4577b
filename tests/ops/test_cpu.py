"""The Rust kernels against the oracles in float64, and their bits whatever the batch."""

import pytest
import torch

from falcon_h1r import _rust, ops
from falcon_h1r.errors import RequestError
from falcon_h1r.ops import reference

DTYPES = [torch.float32, torch.bfloat16]


def close(given: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> None:
    """Relative root-mean-square error within rounding of the output dtype."""
    bound = 2e-6 if dtype is torch.float32 else 4e-3
    error = (given.double() - exact).norm() / (exact.norm() + 1e-30)
    assert error <= bound, f"relative error {error:.2e}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaled", ["no", "scalar", "vector"])
def test_linear(dtype: torch.dtype, scaled: str) -> None:
    for rows, n, k in [(1, 1, 1), (3, 40, 65), (17, 129, 96), (70, 33, 200), (2, 200, 31)]:
        wide = torch.randn(rows, k + 7).to(dtype)
        x, weight = wide[:, 3 : 3 + k], torch.randn(n, k).to(dtype)
        bias = torch.randn(n).to(dtype)
        scale = {"no": None, "scalar": 0.37, "vector": torch.rand(n)}[scaled]
        exact_scale = scale.double() if isinstance(scale, torch.Tensor) else scale
        exact = reference.linear(x.double(), weight.double(), bias.double(), exact_scale)
        close(ops.linear(x, weight, bias, scale), exact, dtype)
        y = ops.linear(x, weight, bias, scale)
        for i in range(rows):
            assert torch.equal(ops.linear(x[i : i + 1], weight, bias, scale)[0], y[i])


def test_linear_of_more_axes_and_of_nothing() -> None:
    x, weight = torch.randn(2, 3, 8), torch.randn(5, 8)
    assert ops.linear(x, weight).shape == (2, 3, 5)
    assert ops.linear(x[:0], weight).shape == (0, 3, 5)
    with pytest.raises(RequestError, match=r"x is torch.float32 \[2, 3, 7\].*8"):
        ops.linear(x[..., :7], weight)


def test_backend_cpu_says_what_it_takes() -> None:
    x = torch.randn(2, 8, dtype=torch.float64)
    with pytest.raises(RequestError, match=r"torch\.float64 on cpu: it takes"):
        ops.linear(x, x, backend="cpu")


def test_gradients_take_the_differentiable_path() -> None:
    x, weight = torch.randn(2, 8), torch.randn(3, 8, requires_grad=True)
    assert ops.linear(x, weight).requires_grad


class Scan:
    """A random case; x, B and C are views of one wide row, slots nobody may read hold NaN."""

    def __init__(self, dtype: torch.dtype, lens: list[int], head_dim: int, d_state: int) -> None:
        heads, groups, tokens = 4, 2, sum(lens)
        width, group_width = heads * head_dim, groups * d_state
        row = torch.randn(tokens, width + 2 * group_width + 5).to(dtype)
        x, B, C, _ = row.split([width, group_width, group_width, 5], dim=1)
        self.x = x.view(tokens, heads, head_dim)
        self.B, self.C = B.view(tokens, groups, d_state), C.view(tokens, groups, d_state)
        self.dt = 0.001 + 0.1 * torch.rand(tokens, heads)
        self.A, self.D = -16 * torch.rand(heads), torch.randn(heads).to(dtype)
        self.cu_seqlens = torch.tensor([0, *lens]).cumsum(0).int()
        self.slots = torch.randperm(len(lens) + 2)[: len(lens)]
        self.started = torch.arange(len(lens)) % 2 == 0
        self.state = torch.full((len(lens) + 2, heads, head_dim, d_state), torch.nan)
        started = self.slots[self.started]
        self.state[started] = torch.randn(len(started), heads, head_dim, d_state)

    def exact(self) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.state.double()
        state[self.slots[~self.started]] = 0
        y = reference.ssd_scan_slots(
            self.x.double(), self.dt.double(), self.A.double(), self.B.double(), self.C.double(),
            self.D.double(), self.cu_seqlens, state, self.slots, self.started,
        )  # fmt: skip
        return y, state

    def run(self, state: torch.Tensor) -> torch.Tensor:
        return ops.ssd_scan_slots(
            self.x, self.dt, self.A, self.B, self.C, self.D, self.cu_seqlens, state, self.slots,
            self.started, backend="cpu",
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_ssd_scan_slots(dtype: torch.dtype) -> None:
    for lens, head_dim, d_state in [([1, 5, 2], 32, 16), ([65, 1], 64, 128), ([9], 128, 256)]:
        case = Scan(dtype, lens, head_dim, d_state)
        y, exact_state = case.exact()
        state = case.state.clone()
        close(case.run(state), y, dtype)
        close(state[case.slots], exact_state[case.slots], torch.float32)
        others = [s for s in range(len(state)) if s not in case.slots]
        assert state[others].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_by_step_and_threads_change_no_bit(dtype: torch.dtype) -> None:
    case = Scan(dtype, [23], 32, 64)
    state = case.state.clone()
    before = _rust.num_threads()
    y = case.run(state)
    for threads in (1, 3):
        _rust.set_num_threads(threads)
        again = case.state.clone()
        assert torch.equal(case.run(again), y)
        assert torch.equal(again[case.slots], state[case.slots])
    _rust.set_num_threads(before)
    again = case.state.clone()
    for t in range(23):
        one = ops.ssd_step(
            case.x[t : t + 1], case.dt[t : t + 1], case.A, case.B[t : t + 1], case.C[t : t + 1],
            case.D, again, case.slots,
        )  # fmt: skip
        assert torch.equal(one[0], y[t])
    assert torch.equal(again[case.slots], state[case.slots])


def test_scan_refuses_what_does_not_fit() -> None:
    case = Scan(torch.float32, [1, 2], 4, 8)
    state = case.state.clone()
    case.slots = torch.tensor([0, 9])
    with pytest.raises(RequestError, match="state_slots is 9"):
        case.run(state)
    case.slots = torch.tensor([1, 1])
    with pytest.raises(RequestError, match="state_slots is 1, allowed is a slot of the cache"):
        case.run(state)
    case.slots, case.cu_seqlens = torch.tensor([0, 1]), torch.tensor([0, 2, 1], dtype=torch.int32)
    with pytest.raises(RequestError, match="ascending"):
        case.run(state)
    with pytest.raises(RequestError, match="ssm_state"):
        case.run(state.double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_gates_and_softplus(dtype: torch.dtype) -> None:
    for rows, width in [(1, 24), (5, 66), (3, 1536)]:
        wide = torch.randn(rows, 2 * width + 3).to(dtype)
        x, z, weight = wide[:, :width], wide[:, width : 2 * width], torch.randn(width).to(dtype)
        x64, z64, w64 = x.double(), z.double(), weight.double()
        close(ops.rms_norm(x, weight, 1e-5), reference.rms_norm(x64, w64, 1e-5), dtype)
        close(ops.swiglu(x, z), reference.swiglu(x64, z64), dtype)
        for before in (False, True):
            exact = reference.gated_rms_norm(x64, z64, w64, 1e-5, 3, before)
            close(ops.gated_rms_norm(x, z, weight, 1e-5, 3, before), exact, dtype)
        dt = ops.softplus_dt(x, weight, (0.001, torch.inf))
        assert dt.dtype is torch.float32
        close(dt, reference.softplus_dt(x64, w64, (0.001, torch.inf)), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rope(dtype: torch.dtype) -> None:
    positions = torch.tensor([0, 3, 5000])
    for head_dim in (16, 64, 128):
        wide = torch.randn(3, 6 * head_dim + 5).to(dtype)
        q = wide[:, : 4 * head_dim].unflatten(1, (4, head_dim))
        k = wide[:, 4 * head_dim : 6 * head_dim].unflatten(1, (2, head_dim))
        given = ops.rope(q, k, positions, 1e4)
        exact = reference.rope(q.float(), k.float(), positions, 1e4)
        for a, b in zip(given, exact, strict=True):
            close(a, b.double(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [2, 3, 4])
def test_causal_conv1d_slots(dtype: torch.dtype, width: int) -> None:
    lens, channels = [1, 9, 2, 5], 77
    wide = torch.randn(sum(lens), channels + 9).to(dtype)
    x, weight, bias = wide[:, 4 : 4 + channels], torch.randn(channels, width), torch.randn(channels)
    weight, bias = weight.to(dtype), bias.to(dtype)
    cu_seqlens = torch.tensor([0, *lens]).cumsum(0).int()
    slots, started = torch.tensor([4, 0, 2, 5]), torch.tensor([True, False, True, False])
    state = torch.full((6, channels, width - 1), torch.nan, dtype=dtype)
    state[slots[started]] = torch.randn(2, channels, width - 1).to(dtype)
    exact_state = state.double()
    exact = reference.causal_conv1d_slots(
        x.double(), weight.double(), bias.double(), cu_seqlens, exact_state, slots, started
    )
    y = ops.causal_conv1d_slots(x, weight, bias, cu_seqlens, state, slots, started)
    close(y, exact, dtype)
    assert torch.equal(state[slots].double(), exact_state[slots])
    assert state[[1, 3]].isnan().all()
    with pytest.raises(RequestError, match="state_slots is 6"):
        ops.causal_conv1d_slots(x, weight, bias, cu_seqlens, state, slots + 1, started)


@pytest.mark.parametrize("dtype", DTYPES)
def test_paged_attention_and_write_kv(dtype: torch.dtype) -> None:
    new, all_ = [1, 33, 4], [70, 40, 4]
    heads, kv_heads, head_dim, block_size = 6, 2, 64, 16
    tokens, num_blocks = sum(new), 12
    block_tables = torch.zeros(3, 5, dtype=torch.int32)
    free = torch.randperm(num_blocks).tolist()
    for s, length in enumerate(all_):
        for b in range(-(-length // block_size)):
            block_tables[s, b] = free.pop()
    shape = (num_blocks, block_size, kv_heads, head_dim)
    k_cache, v_cache = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    slots = torch.cat([
        block_tables[s].long().repeat_interleave(block_size)[:length] * block_size
        + torch.arange(length) % block_size
        for s, length in enumerate(all_)
    ])  # fmt: skip
    k_cache, v_cache = k_cache.to(dtype), v_cache.to(dtype)
    wide = torch.randn(sum(all_), 2, kv_heads, head_dim).to(dtype)
    ops.write_kv(wide[:, 0], wide[:, 1], k_cache, v_cache, slots)
    assert torch.equal(k_cache.flatten(0, 1)[slots], wide[:, 0])
    assert torch.equal(v_cache.flatten(0, 1)[slots], wide[:, 1])
    q = torch.randn(tokens, heads, head_dim).to(dtype)
    cu_seqlens = torch.tensor([0, *new]).cumsum(0).int()
    args = (block_tables, cu_seqlens, torch.tensor(all_, dtype=torch.int32), 0.125)
    y = ops.paged_attention(q, k_cache, v_cache, *args)
    exact = reference.paged_attention(q.double(), k_cache.double(), v_cache.double(), *args)
    close(y, exact, dtype)
    last = ops.paged_attention(
        q[33:34], k_cache, v_cache, block_tables[1:2], torch.tensor([0, 1]),
        torch.tensor([40]), 0.125,
    )  # fmt: skip
    assert torch.equal(last[0], y[33])
    with pytest.raises(RequestError, match="slot_mapping is 192"):
        ops.write_kv(wide[:1, 0], wide[:1, 1], k_cache, v_cache, torch.tensor([192]))
    with pytest.raises(RequestError, match="block_tables is"):
        ops.paged_attention(q, k_cache, v_cache, block_tables + 12, *args[1:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", ["top_logprobs", "logprob", "entropy"])
def test_sample_with_confidence(dtype: torch.dtype, measure: ops.ConfidenceMeasure) -> None:
    rows, vocab = 12, 700
    logits = (3 * torch.randn(rows, vocab)).to(dtype)
    logits[5, ::3] = -torch.inf
    logits[7, 3] = torch.nan
    keys = torch.randint(-(2**63), 2**63 - 1, (rows,))
    settings = (
        torch.tensor([0.0, 0.6, 1.0] * 4, dtype=torch.float64),
        torch.tensor([0, 0, 5, 40] * 3),
        torch.tensor([1.0, 0.95, 0.5, 1.0] * 3, dtype=torch.float64),
        torch.tensor([0.0, 0.0, 0.05, 0.0] * 3, dtype=torch.float64),
        keys,
        torch.arange(rows) * 1000,
    )
    for adjusted in (None, logits.float() - 0.01 * torch.arange(vocab)):
        args = (logits, *settings, measure, 10, 6, adjusted)
        given, exact = ops.sample_with_confidence(*args), ops.sampling.sample_with_confidence(*args)
        for name in ("token_ids", "ranks", "is_error", "top_ids"):
            assert torch.equal(getattr(given, name), getattr(exact, name)), name
        for name in (
            "logprobs", "raw_logprobs", "confidences", "top_logprobs", "top_raw_logprobs",
        ):  # fmt: skip
            torch.testing.assert_close(
                getattr(given, name), getattr(exact, name), rtol=1e-5, atol=1e-5, equal_nan=True
            )


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("copies", [[[0, 3], [0, 5], [1, 2]], [[0, 1], [1, 2]], [[4, 4]]])
def test_copy_rows(dtype: torch.dtype, copies: list[list[int]]) -> None:
    data = torch.randn(6, 3, 5).to(dtype)
    expected = data.clone()
    for source, target in copies:
        expected[target] = data[source]
    ops.copy_rows(data, torch.tensor(copies))
    assert torch.equal(data, expected)
