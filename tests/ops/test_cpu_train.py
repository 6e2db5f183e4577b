"""Every training kernel's result and gradients against the reference in float64.

Legend: T packed tokens, S sequences, H heads, K kv heads, P head width, G groups, N state width,
C conv channels, W conv width, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from falcon_h1r.ops import cpu_train, reference

LENGTHS = [[1, 2, 3, 65, 31], [129], [63, 64, 1, 32, 33], [0, 5, 0, 100]]


def cumulative(lens: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lens]).cumsum(0).int()


def error(got: Tensor, want: Tensor) -> float:
    """Root mean square of the difference over that of `want`."""
    got, want = got.detach().double(), want.detach()
    return float((got - want).norm() / want.norm().clamp_min(1e-30))


def compare(
    fast: Callable[..., Any],
    plain: Callable[..., Any],
    inputs: dict[str, Tensor | None],
    bound: float = 1e-5,
) -> list[Tensor]:
    """Hold outputs and every gradient of `fast` in float32 against `plain` in float64."""

    def run(function: Callable[..., Any], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
        leaves = {
            k: None if v is None else v.detach().to(dtype).requires_grad_()
            for k, v in inputs.items()
        }
        out = function(**leaves)
        outputs = list(out) if isinstance(out, tuple) else [out]
        generator = torch.Generator().manual_seed(5)
        loss = sum(
            (o * torch.randn(o.shape, generator=generator, dtype=torch.float64).to(dtype)).sum()
            for o in outputs
        )
        wanted = [v for v in leaves.values() if v is not None]
        return outputs, list(torch.autograd.grad(loss, wanted))

    got, want = run(fast, torch.float32), run(plain, torch.float64)
    names = [f"output {i}" for i in range(len(want[0]))]
    names += [f"gradient of {k}" for k, v in inputs.items() if v is not None]
    for name, a, b in zip(names, [*got[0], *got[1]], [*want[0], *want[1]], strict=True):
        assert a.shape == b.shape, name
        # A's gradient is one number a head, left over from T terms of both signs.
        limit = 5 * bound if name == "gradient of A" else bound
        assert error(a, b) <= limit, f"{name}: relative error {error(a, b):.1e}"
    return [*got[0], *got[1]]


def scan_inputs(lens: list[int], sizes: tuple[int, int, int, int], seed: int) -> dict[str, Tensor]:
    heads, width, groups, d_state = sizes
    total = sum(lens)
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    # Strided rows, as a slice of the projection gives.
    xBC = randn(total, heads * width + 2 * groups * d_state + 3)
    x, B, C, _ = torch.split(xBC, [heads * width, groups * d_state, groups * d_state, 3], dim=-1)
    return {
        "x": x.unflatten(-1, (heads, width)),
        "dt": torch.nn.functional.softplus(randn(total, heads) - 2),
        "A": -randn(heads).exp() * 4,
        "B": B.unflatten(-1, (groups, d_state)),
        "C": C.unflatten(-1, (groups, d_state)),
        "D": randn(heads),
        "initial_state": randn(len(lens), heads, width, d_state),
    }


@pytest.mark.parametrize("lens", LENGTHS, ids=str)
@pytest.mark.parametrize("sizes", [(3, 32, 1, 32), (4, 5, 2, 7), (2, 64, 1, 48)], ids=str)
@pytest.mark.parametrize("started", [True, False])
def test_scan(lens: list[int], sizes: tuple[int, int, int, int], started: bool) -> None:
    inputs: dict[str, Tensor | None] = {**scan_inputs(lens, sizes, seed=len(lens))}
    if not started:
        inputs["initial_state"] = None
    cu = cumulative(lens)
    compare(
        lambda **t: cpu_train.ssd_scan(cu_seqlens=cu, **t),
        lambda **t: reference.ssd_scan(cu_seqlens=cu, **t),
        inputs,
    )


def test_scan_without_gradient_of_the_final_state() -> None:
    lens, sizes = [40, 1, 70], (2, 16, 1, 16)
    inputs = scan_inputs(lens, sizes, seed=1)
    del inputs["initial_state"]
    cu = cumulative(lens)
    compare(
        lambda **t: cpu_train.ssd_scan(cu_seqlens=cu, **t)[0],
        lambda **t: reference.ssd_scan(cu_seqlens=cu, **t)[0],
        {**inputs},
    )


def test_scan_at_extremes() -> None:
    lens, sizes = [70, 33], (2, 16, 1, 16)
    inputs = scan_inputs(lens, sizes, seed=2)
    inputs["A"] = torch.tensor([-148.0, -1e-4])
    inputs["dt"][::3] = 0.0
    inputs["dt"][1::5] = 30.0
    cu = cumulative(lens)
    compare(
        lambda **t: cpu_train.ssd_scan(cu_seqlens=cu, **t),
        lambda **t: reference.ssd_scan(cu_seqlens=cu, **t),
        {**inputs},
    )


@pytest.mark.parametrize("lens", LENGTHS, ids=str)
@pytest.mark.parametrize("sizes", [(4, 2, 32), (3, 1, 6), (2, 2, 64)], ids=str)
def test_attention(lens: list[int], sizes: tuple[int, int, int]) -> None:
    heads, kv_heads, width = sizes
    total = sum(lens)
    qkv = torch.randn(total, (heads + 2 * kv_heads) * width)
    q, k, v = torch.split(qkv, [heads * width, kv_heads * width, kv_heads * width], dim=-1)
    inputs = {n: t.unflatten(-1, (-1, width)) for n, t in (("q", q), ("k", k), ("v", v))}
    cu = cumulative(lens)
    compare(
        lambda **t: cpu_train.varlen_attention(cu_seqlens=cu, scale=width**-0.5, **t),
        lambda **t: reference.varlen_attention(cu_seqlens=cu, scale=width**-0.5, **t),
        {**inputs},
    )


@pytest.mark.parametrize("before", [[0, 7, 40, 1, 32], [5, 0, 31, 129, 64]], ids=str)
@pytest.mark.parametrize("sizes", [(4, 2, 32), (3, 1, 6)], ids=str)
def test_attention_with_keys_before_the_queries(
    before: list[int], sizes: tuple[int, int, int]
) -> None:
    heads, kv_heads, width = sizes
    lens = [1, 0, 3, 65, 31]
    cu, cu_keys = cumulative(lens), cumulative([a + b for a, b in zip(before, lens, strict=True)])
    total = int(cu_keys[-1])
    q = torch.randn(sum(lens), heads, width)
    k, v = torch.randn(total, kv_heads, width), torch.randn(total, kv_heads, width)
    settings = {"cu_seqlens": cu, "cu_keys": cu_keys, "scale": width**-0.5}
    compare(
        lambda **t: cpu_train.varlen_attention(**settings, **t),
        lambda **t: reference.varlen_attention(**settings, **t),
        {"q": q, "k": k, "v": v},
    )


@pytest.mark.parametrize("lens", LENGTHS[:3], ids=str)  # the reference takes no empty sequence
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("started", [True, False])
def test_conv(lens: list[int], width: int, started: bool) -> None:
    channels = 37
    x, _ = torch.split(torch.randn(sum(lens), channels + 5), [channels, 5], dim=-1)
    inputs = {
        "x": x,
        "weight": torch.randn(channels, width),
        "bias": torch.randn(channels) if width != 3 else None,
        "initial_state": torch.randn(len(lens), channels, width - 1) if started else None,
    }
    cu = cumulative(lens)
    compare(
        lambda **t: cpu_train.causal_conv1d(cu_seqlens=cu, **t),
        lambda **t: reference.causal_conv1d(cu_seqlens=cu, **t),
        inputs,
    )


@pytest.mark.parametrize("shape", [(1, 7), (130, 48), (65, 96)], ids=str)
def test_rms_norm(shape: tuple[int, int]) -> None:
    inputs: dict[str, Tensor | None] = {"x": torch.randn(shape), "weight": torch.randn(shape[1])}
    compare(
        lambda **t: cpu_train.rms_norm(eps=1e-5, **t),
        lambda **t: reference.rms_norm(eps=1e-5, **t),
        inputs,
    )


@pytest.mark.parametrize("groups", [1, 3])
def test_gated_rms_norm(groups: int) -> None:
    z, x, _ = torch.split(torch.randn(70, 100), [42, 42, 16], dim=-1)
    inputs = {"x": x, "z": z, "weight": torch.randn(42)}
    compare(
        lambda **t: cpu_train.gated_rms_norm(eps=1e-5, num_groups=groups, **t),
        lambda **t: reference.gated_rms_norm(
            eps=1e-5, num_groups=groups, norm_before_gate=False, **t
        ),
        {**inputs},
    )


def test_swiglu() -> None:
    gate, up, _ = torch.split(torch.randn(67, 50) * 4, [20, 20, 10], dim=-1)
    compare(cpu_train.swiglu, reference.swiglu, {"gate": gate, "up": up})


@pytest.mark.parametrize("width", [6, 64])
def test_rope(width: int) -> None:
    positions = torch.arange(70) % 33
    inputs = {"q": torch.randn(70, 3, width), "k": torch.randn(70, 1, width)}
    compare(
        lambda **t: cpu_train.rope(positions=positions, theta=1e4, **t),
        lambda **t: reference.rope(positions=positions, theta=1e4, **t),
        {**inputs},
    )


@pytest.mark.parametrize("rows", [7, 1024])
@pytest.mark.parametrize("vocabulary", [5, 131])
def test_linear_cross_entropy(rows: int, vocabulary: int) -> None:
    targets = torch.randint(0, vocabulary, (30,))
    targets[::4] = -100
    inputs = {"hidden": torch.randn(30, 24) * 3, "weight": torch.randn(vocabulary, 24)}
    compare(
        lambda **t: cpu_train.linear_cross_entropy(targets=targets, scale=0.7, rows=rows, **t),
        lambda **t: reference.linear_cross_entropy(targets=targets, scale=0.7, **t),
        {**inputs},
    )


def test_refusals() -> None:
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    for bad in (torch.tensor([0, 5, 1]), torch.tensor([0, -1, 1])):
        with pytest.raises(IndexError, match="vocabulary of 5"):
            cpu_train.linear_cross_entropy(hidden, weight, bad)
    q = torch.randn(4, 2, 8, requires_grad=True)
    for cu in ([0, 5], [0, 3, 2, 4], [1, 4], [0]):
        with pytest.raises(ValueError, match="cu_seqlens must rise"):
            cpu_train.varlen_attention(q, q, q, torch.tensor(cu), 1.0)
    for keys in ([0, 3], [0, 1, 4]):
        with pytest.raises(ValueError, match="as many keys as queries"):
            given = torch.tensor(keys)
            cpu_train.varlen_attention(q, q[: keys[-1]], q, torch.tensor([0, 4]), 1.0, given)
    with pytest.raises(ValueError, match="k has shape"):
        cpu_train.varlen_attention(q, q[:3], q, torch.tensor([0, 4]), 1.0)


def whole_layer(seed: int) -> list[Tensor]:
    """Outputs and gradients of one call of every kernel."""
    lens = [1, 40, 65, 2, 90, 33]
    cu, total = cumulative(lens), sum(lens)
    t = scan_inputs(lens, (4, 32, 2, 32), seed)
    leaves = [v.requires_grad_() for v in t.values()]
    y, final = cpu_train.ssd_scan(cu_seqlens=cu, **t)
    z = y.flatten(1)
    weight = torch.linspace(0.5, 1.5, z.shape[1]).requires_grad_()
    conv = torch.linspace(-1, 1, z.shape[1] * 4).view(-1, 4).requires_grad_()
    z = cpu_train.gated_rms_norm(z, z, weight, 1e-5, 2)
    z, _ = cpu_train.causal_conv1d(z, conv, weight, cu)
    z = cpu_train.swiglu(z, cpu_train.rms_norm(z, weight, 1e-5)).view(total, 4, 32)
    q, k = cpu_train.rope(z, z[:, :2], torch.arange(total), 1e4)
    z = cpu_train.varlen_attention(q, k, k, cu, 0.2).flatten(1)
    losses = cpu_train.linear_cross_entropy(z, conv.repeat(1, 32), torch.arange(total) % 99)
    grads = torch.autograd.grad(losses.sum() + final.sum(), [*leaves, weight, conv])
    return [losses.detach(), final.detach(), *grads]


def test_bits_do_not_depend_on_threads_or_repeats() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = whole_layer(3)
        for count in (1, 2, 3, 2):
            # Products of torch may differ between thread counts; the kernels' own calls may not.
            kernel_threads = count

            def count_threads(n: int = kernel_threads) -> int:
                return n

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch, "get_num_threads", count_threads)
                again = whole_layer(3)
            for a, b in zip(first, again, strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)
