"""A device that is not the CPU, played by the CPU: what a GPU would refuse is refused.

Tensors of device "lazy" hide a CPU tensor; operations that mix them with the CPU's raise, and they
do not become numpy arrays. "lazy" stands for CUDA because torch starts a driver for every device
that has one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("lazy:0")
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
_TAKES_NEAR_INDICES = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
}


class FarTensor(torch.Tensor):
    """A tensor on the far device; `near` is what it hides."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> "FarTensor":
        made: FarTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(),
            dtype=near.dtype, device=FAR,
        )  # fmt: skip
        made.near = near
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"FarTensor({self.near!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    far = [t for t in tensors if isinstance(t, FarTensor)]
    near = [t for t in tensors if not isinstance(t, FarTensor) and t.ndim]
    if far and near and func not in _COPIES | _TAKES_NEAR_INDICES:
        raise RuntimeError(f"{func} mixes devices: {[t.shape for t in far]} are far, "
                           f"{[t.shape for t in near]} near")  # fmt: skip
    hidden = tree_map(lambda t: t.near if isinstance(t, FarTensor) else t, (args, kwargs))
    wanted = kwargs.get("device")
    if wanted is not None:
        hidden[1]["device"] = torch.device("cpu")
    out = func(*hidden[0], **hidden[1])
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.is_write:  # the caller's own tensor, whose hidden one has changed
            return value
    for argument in func._schema.arguments:
        if argument.is_write and argument.name in kwargs:
            return kwargs[argument.name]
    is_far = bool(far) if wanted is None else torch.device(wanted).type == FAR.type
    if not is_far:
        return out
    with torch.inference_mode(False):
        return tree_map(lambda t: FarTensor(t) if isinstance(t, torch.Tensor) else t, out)


class _Dispatched(TorchDispatchMode):
    """Makes new tensors of the far device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Called(TorchFunctionMode):
    """What never reaches the dispatcher."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func is torch.tensor and device is not None and torch.device(device).type == FAR.type:
            return func(*args, **kwargs | {"device": "cpu"}).to(FAR)
        if func is torch.Tensor.tolist and isinstance(args[0], FarTensor):
            return args[0].near.tolist()
        return func(*args, **kwargs)


@contextmanager
def far_device() -> Iterator[torch.device]:
    """The far device, which exists inside."""
    with _Dispatched(), _Called():
        yield FAR
