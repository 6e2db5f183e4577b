"""All layers of a cached step on the CPU in one call, instead of some twenty calls a layer.

`block.py` says what a layer computes and stays the oracle: the bits are the same. Weights are
looked up where the modules keep them at every step, so an update in place, a new tensor in a
parameter's place or another dtype is seen; what is remembered is only that shapes were checked.

Legend: T packed tokens, D model width.
"""

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from falcon_h1r.model.cache import HybridCache, PackedBatch
from falcon_h1r.model.mlp import Linear
from falcon_h1r.ops.cpu_layers import CpuLayers, LayerSizes, LayerTensors, TensorPlace

if TYPE_CHECKING:
    from torch import nn

    from falcon_h1r.model.block import FalconH1Block
    from falcon_h1r.model.model import FalconH1Model

_Seen = tuple[list[tuple[dict[str, "nn.Module | None"], str, Linear]], CpuLayers | None]
"""Where each projection was kept, under which name, and which it was; the layers made of them."""
_LAYERS: "WeakKeyDictionary[nn.Module, _Seen]" = WeakKeyDictionary()
"""Beside the models, not in them: a copied or stored model takes no addresses along."""


def run(model: "FalconH1Model", x: Tensor, batch: PackedBatch, cache: HybridCache) -> bool:
    """Run the layers on x [T, D] in place if this can; say whether it did.

    It can without gradients, on the CPU, in one dtype of float32 and bfloat16, without biases or
    adapters in projections.
    """
    if torch.is_grad_enabled() or not x.is_cpu:
        return False
    known = _LAYERS.get(model)
    if known is None or any(modules[name] is not p for modules, name, p in known[0]):
        known = _LAYERS[model] = _seen([*model.layers])
    layers = known[1]
    if layers is None or not layers.serves(x):
        return False
    assert batch.slot_mapping is not None
    assert batch.block_tables is not None
    assert batch.seq_lens is not None
    assert batch.state_slots is not None
    assert batch.has_initial_state is not None
    first = cache.layers[0]
    layers.run(
        x,
        (first.k_cache, first.v_cache, first.conv_state, first.ssm_state),
        cache.addresses,
        positions=batch.positions,
        cu_seqlens=batch.cu_seqlens,
        seq_lens=batch.seq_lens,
        slot_mapping=batch.slot_mapping,
        block_tables=batch.block_tables,
        state_slots=batch.state_slots,
        has_initial_state=batch.has_initial_state,
    )
    return True


def _seen(blocks: "list[FalconH1Block]") -> _Seen:
    """Build the layers, and note the projections: an adapter put on later takes one's place."""
    places = [
        (owner._modules, name, projection)
        for block in blocks
        for owner in (block.self_attn, block.mamba, block.feed_forward)
        for name, projection in owner.named_children()
        if isinstance(projection, Linear)
    ]
    return places, _build(blocks)


def _build(blocks: "list[FalconH1Block]") -> CpuLayers | None:
    """Return the layers as the kernels take them; None for a model that must go layer by layer:
    of no layers, with biases, or with projections that do more than multiply (adapters).
    """
    projections = [p for block in blocks for p in _projections(block)]
    if not blocks or any(type(p) is not Linear or p.bias is not None for p in projections):
        return None
    attention, mixer, norm = blocks[0].self_attn, blocks[0].mamba, blocks[0].input_layernorm
    sizes = LayerSizes(
        width=attention.q_proj.in_features,
        hidden=blocks[0].feed_forward.gate_proj.out_features,
        heads=attention.q_proj.out_features // attention.head_dim,
        kv_heads=attention.k_proj.out_features // attention.head_dim,
        head_dim=attention.head_dim,
        ssm_heads=mixer.num_heads,
        d_ssm=mixer.d_ssm,
        groups=mixer.num_groups,
        d_state=mixer.d_state,
        conv_width=mixer.conv1d.kernel_size[0],
    )
    before_gate = mixer.norm is not None and mixer.norm.norm_before_gate
    return CpuLayers(
        [LayerTensors(_places(b), [p.scale() for p in _projections(b)]) for b in blocks],
        sizes=sizes,
        settings=(norm.eps, attention.scale, mixer.time_step_limit, before_gate),
        theta=attention.theta,
    )


def _projections(block: "FalconH1Block") -> "list[Linear]":
    """Return a layer's projections in the order of the kernel's scales."""
    attention, mixer, mlp = block.self_attn, block.mamba, block.feed_forward
    return [
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
        mixer.in_proj, mixer.out_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    ]  # fmt: skip


def _places(block: "FalconH1Block") -> list[TensorPlace]:
    """Return where a layer's tensors are kept, in the order of the kernel's weights."""
    mixer = block.mamba
    q, k, v, o, ssm_in, ssm_out, gate, up, down = (
        (p._parameters, "weight") for p in _projections(block)
    )
    own = mixer._parameters
    conv = mixer.conv1d._parameters
    norm = {"weight": None} if mixer.norm is None else mixer.norm._parameters
    return [
        (block.input_layernorm._parameters, "weight"),
        q, k, v, o, ssm_in, ssm_out,
        (conv, "weight"), (conv, "bias"), (own, "dt_bias"), (own, "A_log"), (own, "D"),
        (norm, "weight"),
        (block.pre_ff_layernorm._parameters, "weight"),
        gate, up, down,
    ]  # fmt: skip
