"""Whole layers as one Rust call: tensors to addresses, checked whenever an address changes.

Legend: T packed tokens, S sequences, M max blocks a sequence, D model width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from falcon_h1r import _rust
from falcon_h1r.errors import RequestError
from falcon_h1r.ops.cpu import SUPPORTED, frequencies

TensorPlace = tuple[Mapping[str, Tensor | None], str]
"""A dictionary of parameters and a name in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSizes:
    """The widths of a layer, in the kernel's order."""

    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ssm_heads: int
    d_ssm: int
    groups: int
    d_state: int
    conv_width: int

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: x, B and C."""
        return self.d_ssm + 2 * self.groups * self.d_state

    def weight_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of a layer's tensors, in the kernel's order."""
        d, f, h, inner, conv = self.width, self.hidden, self.ssm_heads, self.d_ssm, self.conv_dim
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            (d,), (q, d), (kv, d), (kv, d), (d, q), (inner + conv + h, d), (d, inner),
            (conv, 1, self.conv_width), (conv,), (h,), (h,), (h,), (inner,),
            (d,), (f, d), (f, d), (d, f),
        ]  # fmt: skip

    def cache_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of a layer's caches less blocks, their size, and slots."""
        kv = (self.kv_heads, self.head_dim)
        ssm = (self.ssm_heads, self.d_ssm // self.ssm_heads, self.d_state)
        return [kv, kv, (self.conv_dim, self.conv_width - 1), ssm]


@dataclass(frozen=True, slots=True)
class LayerTensors:
    """One layer: where its weights are kept, and the factors of its nine projections."""

    places: list[TensorPlace]
    scales: list[Tensor]


class CpuLayers:
    """The layers of one model. Weights are looked up at every step."""

    def __init__(
        self,
        layers: list[LayerTensors],
        *,
        sizes: LayerSizes,
        settings: tuple[float, float, tuple[float, float], bool],
        theta: float,
    ) -> None:
        self.sizes = sizes
        self.settings = settings
        """Epsilon of the norms, scale of attention, bounds of dt, whether the norm precedes."""
        self.theta = theta
        self._sizes = astuple(sizes)
        self._layers = layers
        self._places = [place for layer in layers for place in layer.places]
        self._checked: list[int] = []
        self._dtype: torch.dtype | None = None
        self._addresses: list[tuple[list[int], list[int]]] = []

    def serves(self, x: Tensor) -> bool:
        """Say whether the kernel takes x and the weights as they are now."""
        addresses = [
            0 if (t := kept[name]) is None else t.data_ptr() for kept, name in self._places
        ]
        if addresses != self._checked:
            self._check(addresses)
        return x.dtype is self._dtype and x.is_contiguous()

    def _check(self, addresses: list[int]) -> None:
        """Look at every weight; remember the addresses, and the dtype if all fits the kernel."""
        self._checked = addresses
        width = len(self._layers[0].places)
        self._addresses = [
            (addresses[i * width : (i + 1) * width], [s.data_ptr() for s in layer.scales])
            for i, layer in enumerate(self._layers)
        ]
        shapes = self.sizes.weight_shapes() * len(self._layers)
        tensors = [kept[name] for kept, name in self._places]
        dtypes = {t.dtype for t in tensors if t is not None}
        fits = all(
            t is None or (t.is_cpu and t.is_contiguous() and t.shape == shape)
            for t, shape in zip(tensors, shapes, strict=True)
        )
        fits = fits and len(dtypes) == 1 and dtypes <= {*SUPPORTED}
        self._dtype = dtypes.pop() if fits and 2 <= self.sizes.conv_width <= 4 else None

    def run(
        self,
        x: Tensor,
        first: tuple[Tensor, Tensor, Tensor, Tensor],
        caches: Sequence[tuple[int, int, int, int]],
        *,
        positions: Tensor,
        cu_seqlens: Tensor,
        seq_lens: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        state_slots: Tensor,
        has_initial_state: Tensor,
    ) -> None:
        """Run all layers on x [T, D] in place; `serves` said that it can.

        `caches` holds the addresses of each layer's KV blocks and states, which are like those
        of the `first`. Raises RequestError for shapes that do not fit, before anything is written,
        and for slots or blocks outside the caches.
        """
        tokens, seqs = positions.shape[0], state_slots.shape[0]
        batch = [
            _as("positions", positions, torch.int64, (x.shape[0],)),
            frequencies(self.theta, self.sizes.head_dim),
            _as("slot_mapping", slot_mapping, torch.int64, (tokens,)),
            _as("block_tables", block_tables, torch.int32, (seqs, block_tables.shape[1])),
            _as("seq_lens", seq_lens, torch.int32, (seqs,)),
            _as("cu_seqlens", cu_seqlens, torch.int32, (seqs + 1,)),
            _as("state_slots", state_slots, torch.int64, (seqs,)),
            _as("has_initial_state", has_initial_state, torch.bool, (seqs,)),
        ]
        self._check_caches(x, first, caches)
        is_bf16 = x.dtype is torch.bfloat16
        num_bytes = _rust.layers_workspace_bytes(self._sizes, tokens, is_bf16)
        workspace = torch.empty(num_bytes, dtype=torch.uint8, device="cpu")
        _rust.falcon_layers(
            x.data_ptr(),
            self._addresses,
            caches,
            self._sizes,
            self.settings,
            [t.data_ptr() for t in batch],
            (tokens, seqs, block_tables.shape[1], first[0].shape[1]),
            (first[0].shape[0], first[2].shape[0]),
            (workspace.data_ptr(), num_bytes),
            is_bf16,
        )

    def _check_caches(
        self, x: Tensor, first: Sequence[Tensor], caches: Sequence[tuple[int, ...]]
    ) -> None:
        dtypes = (x.dtype, x.dtype, x.dtype, torch.float32)
        for cache, shape, dtype in zip(first, self.sizes.cache_shapes(), dtypes, strict=True):
            if cache.dtype is not dtype or cache.shape[-len(shape) :] != shape:
                raise RequestError(
                    f"a cache is {cache.dtype} {list(cache.shape)}; these layers need {dtype} "
                    f"[.., {', '.join(map(str, shape))}]"
                )
        if len(caches) != len(self._layers) or x.shape[1:] != (self.sizes.width,):
            raise RequestError(
                f"x is {list(x.shape)} with caches of {len(caches)} layers; these "
                f"{len(self._layers)} layers are {self.sizes.width} wide"
            )


def _as(name: str, given: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Return a contiguous tensor of that dtype; refuse another shape."""
    if given.shape != shape:
        raise RequestError(f"{name} is {list(given.shape)}; this batch needs {list(shape)}")
    return given if given.dtype is dtype and given.is_contiguous() else given.to(dtype).contiguous()
