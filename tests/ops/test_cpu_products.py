"""Products with operands in bfloat16: the oracle is float64 of what is rounded, by torch.

Legend: T rows, K inputs, N outputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from falcon_h1r import ops
from falcon_h1r.ops import cpu_products, cpu_train
from falcon_h1r.ops.precision import matmul_precision


@contextmanager
def suited(answer: bool = True) -> Iterator[None]:
    """Take this CPU for one that the kernel is for; where it is none, the plain loop answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_products, "_IS_SUITED", answer)
        yield


def rounded(tensor: Tensor) -> Tensor:
    return tensor.detach().bfloat16().double()


def bound(a: Tensor, b: Tensor) -> Tensor:
    """How far float32 sums of the products may be from the exact ones."""
    return 1.2e-7 * a.shape[1] ** 0.5 * (rounded(a).abs() @ rounded(b).abs()) + 1e-30


def check(got: Tensor, a: Tensor, b: Tensor, before: Tensor | None = None) -> None:
    """Hold `got` against a b in float64, added to `before` if given."""
    error, limit = (got.double() - rounded(a) @ rounded(b)), bound(a, b)
    if before is not None:
        error, limit = error - before.double(), limit + 1e-6 * (1 + before.double().abs())
    assert bool((error.abs() <= limit).all())


def view(shape: tuple[int, int], kind: str, seed: int) -> Tensor:
    """A matrix as contiguous rows, rows apart, a transpose, or elements apart."""
    g = torch.Generator().manual_seed(seed)
    rows, cols = shape
    if kind == "transpose":
        return torch.randn(cols, rows, generator=g).t()
    if kind == "strided":
        return torch.randn(rows, 2 * cols, generator=g)[:, ::2]
    return torch.randn(rows, cols + (3 if kind == "apart" else 0), generator=g)[:, :cols]


kinds = st.sampled_from(["rows", "apart", "transpose", "strided"])
sizes = st.integers(1, 70)


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, sizes, kinds, kinds, st.booleans())
def test_products(m: int, n: int, k: int, left: str, right: str, add: bool) -> None:
    a, b, out = view((m, k), left, 1), view((k, n), right, 2), torch.randn(m, n + 2)[:, :n]
    before = out.clone() if add else None
    with suited(), matmul_precision("medium"):
        cpu_products.mm(a, b, out, add)
    check(out, a, b, before)


def grads(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = function(x, weight)
    return y.detach(), *torch.autograd.grad(y, (x, weight), dy)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (65, 64, 33), (400, 24, 40)])
def test_linear_and_its_gradients(shape: tuple[int, int, int]) -> None:
    T, K, N = shape
    x, weight, dy = torch.randn(T, K), torch.randn(N, K), torch.randn(T, N)
    with suited(), matmul_precision("medium"):
        y, dx, dweight = grads(ops.linear, x, weight, dy)
    check(y, x, weight.t())
    check(dx, dy, weight)
    check(dweight, dy.t(), x)


def test_shapes_of_more_than_two_axes_and_what_needs_no_gradient() -> None:
    x, weight = torch.randn(2, 5, 8), torch.randn(6, 8)
    with suited(), matmul_precision("medium"):
        wanted = weight.clone().requires_grad_()
        y = ops.linear(x, wanted)
        y.sum().backward()  # an expanded gradient, all strides 0
        other = x.clone().requires_grad_()
        ops.linear(other, weight).sum().backward()
    assert y.shape == (2, 5, 6)
    check(y.detach().reshape(10, 6), x.reshape(10, 8), weight.t())
    assert wanted.grad is not None and other.grad is not None
    check(wanted.grad, torch.ones(6, 10), x.reshape(10, 8))
    check(other.grad.reshape(10, 8), torch.ones(10, 6), weight)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_other_precisions_have_the_bits_of_torch(precision: str) -> None:
    x, weight, dy = torch.randn(130, 48), torch.randn(96, 48), torch.randn(130, 96)
    with matmul_precision(precision):
        with suited():
            ours = grads(ops.linear, x, weight, dy)
        theirs = grads(F.linear, x, weight, dy)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_gradients_alone_may_be_rounded() -> None:
    """As `gradient_precision: medium` asks."""
    x, weight, dy = torch.randn(33, 20), torch.randn(12, 20), torch.randn(33, 12)
    leaf = x.clone().requires_grad_()
    with suited():
        y = ops.linear(leaf, weight)
        with matmul_precision("medium"):
            (dx,) = torch.autograd.grad(y, leaf, dy)
    assert torch.equal(y, F.linear(x, weight))
    check(dx, dy, weight)


def test_second_derivatives_are_torch_s() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(2, 3, requires_grad=True)
    with suited(), matmul_precision("medium"):
        (dx,) = torch.autograd.grad(ops.linear(x, weight).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(dx.sum(), weight)
    exact = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    (dx,) = torch.autograd.grad(F.linear(*exact).square().sum(), exact[0], create_graph=True)
    (want,) = torch.autograd.grad(dx.sum(), exact[1])
    assert float((second - want).norm() / want.norm()) < 0.02


def calls(patch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is called from now on: the kernel, or `linear` of this room."""
    seen: list[str] = []
    for name in ("_rounded", "linear"):
        original = getattr(cpu_products, name)

        def spy(*args: object, name: str = name, original: Callable[..., Tensor] = original):
            seen.append(name)
            return original(*args)

        patch.setattr(cpu_products, name, spy)
    return seen


def test_the_path_is_taken_only_where_it_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls(monkeypatch)

    def run(dtype: torch.dtype = torch.float32, **how: object) -> list[str]:
        seen.clear()
        x = torch.randn(5, 4).to(dtype)
        weight = torch.randn(3, 4).to(dtype).requires_grad_()
        ops.linear(x, weight, **how)  # type: ignore[arg-type]
        return list(seen)

    with suited():
        assert run() == ["linear"], "torch's product in our function: precision may still change"
        with matmul_precision("high"):
            assert run() == ["linear"]
        with matmul_precision("medium"):
            assert run() == ["linear", "_rounded"]
            assert run(torch.float64) == run(torch.bfloat16) == []
            assert run(backend="reference") == []
            with torch.no_grad():
                assert run() == []
            with torch.autocast("cpu", torch.bfloat16):
                assert run() == []
    with suited(False), matmul_precision("medium"):
        assert run() == []
        out = cpu_products.mm(torch.randn(2, 3), torch.randn(3, 4), torch.empty(2, 4))
        assert out.shape == (2, 4) and seen == []


def test_only_cpus_with_avx512_bf16_and_without_amx_are_suited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path, answer in (("avx512_bf16", True), ("amx_bf16", False), ("avx512", False),
                         ("avx2", False), ("portable", False)):  # fmt: skip
        monkeypatch.setattr(cpu_products._rust, "kernel_paths", lambda path=path: ("", path))
        assert cpu_products._is_suited() is answer


def test_cross_entropy() -> None:
    hidden, weight = torch.randn(70, 24), torch.randn(50, 24)
    targets, dlosses = torch.randint(0, 50, (70,)), torch.rand(70)

    def run(h: Tensor, w: Tensor) -> Tensor:
        return cpu_train.linear_cross_entropy(h, w, targets, 0.5, rows=32)

    with suited(), matmul_precision("medium"):
        losses, dh, dw = grads(run, hidden, weight, dlosses)
    exact = grads(
        lambda h, w: F.cross_entropy(h @ w.t() * 0.5, targets, reduction="none"),
        rounded(hidden), rounded(weight), dlosses.double(),
    )  # fmt: skip
    assert float((losses - exact[0]).abs().max()) < 1e-5
    for got, want in ((dh, exact[1]), (dw, exact[2])):  # gradients of logits are rounded too
        assert float((got - want).norm() / want.norm()) < 4e-3


def test_bits_do_not_depend_on_threads() -> None:
    x, weight, dy = torch.randn(301, 192), torch.randn(70, 192), torch.randn(301, 70)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            with suited(), matmul_precision("medium"):
                results.append(grads(ops.linear, x, weight, dy))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_refusals() -> None:
    with suited(), matmul_precision("medium"):
        with pytest.raises(ValueError, match="columns"):
            ops.linear(torch.randn(2, 3), torch.randn(4, 5, requires_grad=True))
        with pytest.raises(ValueError, match="does not give"):
            cpu_products.mm(torch.randn(2, 3), torch.randn(3, 4), torch.empty(2, 5))
        with pytest.raises(ValueError, match="contiguous"):
            cpu_products.mm(torch.randn(2, 3), torch.randn(3, 4), torch.empty(4, 2).t())
