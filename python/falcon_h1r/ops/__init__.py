"""One public function an operation, dispatched to a backend: "reference" or "cpu".

`backend=None` picks by device and by whether gradients are wanted:
CPU without gradients -> the Rust kernels (`ops/cpu.py`, float32 and bfloat16), whose every output
row depends on that row and its own past only; CPU with gradients in float32 -> the Rust kernels
with gradients (`ops/cpu_train.py`); everything else -> the differentiable torch paths
(`ops/chunked.py`), which also serve second derivatives (backend "reference" does too). GPUs are
served by those torch paths: there are no Triton kernels yet, and asking for them is refused.
Signatures, shapes and sources stand in `ops/reference.py`, the oracle of each operation.

Legend: T packed tokens, S sequences, H heads, K kv heads, P head width, C conv channels.
"""

from types import ModuleType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from falcon_h1r.errors import RequestError
from falcon_h1r.ops import chunked, cpu, cpu_products, cpu_train, reference, sampling
from falcon_h1r.ops.sampling import ConfidenceMeasure, SampleOutput

Backend = Literal["reference", "cpu"] | None

__all__ = [
    "Backend",
    "ConfidenceMeasure",
    "SampleOutput",
    "causal_conv1d",
    "causal_conv1d_slots",
    "causal_conv1d_step",
    "copy_rows",
    "decay_rate",
    "gated_rms_norm",
    "linear",
    "linear_cross_entropy",
    "paged_attention",
    "rms_norm",
    "rope",
    "sample_with_confidence",
    "softplus_dt",
    "ssd_scan",
    "ssd_scan_slots",
    "ssd_step",
    "swiglu",
    "varlen_attention",
    "write_kv",
]


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | float | None = None,
    backend: Backend = None,
) -> Tensor:
    """Return (x @ weight^T) * scale + bias; every muP multiplier is such an epilogue."""
    if _is_cpu(backend, x, weight, bias):
        return cpu.linear(x, weight, bias, scale)
    if (
        isinstance(scale, Tensor)
        and scale.ndim
        and x.dtype == torch.float32
        and weight.requires_grad
    ):
        # Training in float32: scaling the weight's rows is cheaper than scaling every token's.
        weight, scale = weight * scale[:, None], None
    y = _product(backend, x, weight)
    if scale is not None:
        y = (y * scale).to(y.dtype)
    return y if bias is None else y + bias


def _product(backend: Backend, x: Tensor, weight: Tensor) -> Tensor:
    flows = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if flows and backend is None and cpu_products.is_served(x, weight):
        return cpu_products.linear(x, weight)
    return F.linear(x, weight)


def rms_norm(x: Tensor, weight: Tensor, eps: float, backend: Backend = None) -> Tensor:
    """RMS norm over the last axis; see `reference.rms_norm`."""
    rows = _rows(backend, x, weight)
    y: Tensor = rows.rms_norm(x, weight, eps)
    return y


def gated_rms_norm(
    x: Tensor,
    z: Tensor,
    weight: Tensor,
    eps: float,
    num_groups: int,
    norm_before_gate: bool = False,
    backend: Backend = None,
) -> Tensor:
    """Gate by silu(z) and normalise per group; see `reference.gated_rms_norm`."""
    rows = _rows(backend, x, z, weight)
    y: Tensor = rows.gated_rms_norm(x, z, weight, eps, num_groups, norm_before_gate)
    return y


def swiglu(gate: Tensor, up: Tensor, backend: Backend = None) -> Tensor:
    """Return silu(gate) * up."""
    y: Tensor = _rows(backend, gate, up).swiglu(gate, up)
    return y


def softplus_dt(
    dt: Tensor, dt_bias: Tensor, limit: tuple[float, float], backend: Backend = None
) -> Tensor:
    """Return clamp(softplus(dt + dt_bias), *limit) in float32 (float64 for float64)."""
    if _is_cpu(backend, dt, dt_bias):
        return cpu.softplus_dt(dt, dt_bias, limit)
    return reference.softplus_dt(dt, dt_bias, limit)


def decay_rate(A_log: Tensor, backend: Backend = None) -> Tensor:
    """Return A = -exp(A_log) [H] in float32 (float64 for float64)."""
    if _is_cpu(backend, A_log):
        return cpu.decay_rate(A_log)
    return reference.decay_rate(A_log)


def rope(
    q: Tensor, k: Tensor, positions: Tensor, theta: float, backend: Backend = None
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys by position; see `reference.rope`."""
    rotated: tuple[Tensor, Tensor] = _rows(backend, q, k).rope(q, k, positions, theta)
    return rotated


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    initial_state: Tensor | None = None,
    backend: Backend = None,
) -> tuple[Tensor, Tensor]:
    """Mamba-2's scan over packed sequences -> (y, final_state); see `reference.ssd_scan`."""
    module = _packed(backend, x, dt, A, B, C, D, initial_state)
    out: tuple[Tensor, Tensor] = module.ssd_scan(x, dt, A, B, C, D, cu_seqlens, initial_state)
    return out


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    initial_state: Tensor | None = None,
    backend: Backend = None,
) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution and SiLU -> (y, final_state); see the reference."""
    module = _packed(backend, x, weight, bias, initial_state)
    out: tuple[Tensor, Tensor] = module.causal_conv1d(x, weight, bias, cu_seqlens, initial_state)
    return out


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    scale: float,
    cu_keys: Tensor | None = None,
    backend: Backend = None,
) -> Tensor:
    """Causal grouped-query attention inside each sequence; see `reference.varlen_attention`."""
    module = _packed(backend, q, k, v)
    out: Tensor = module.varlen_attention(q, k, v, cu_seqlens, scale, cu_keys)
    return out


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0, backend: Backend = None
) -> Tensor:
    """Per-token cross entropy of a linear head, never holding all logits; see the reference."""
    module = _packed(backend, hidden, weight)
    losses: Tensor = module.linear_cross_entropy(hidden, weight, targets, scale)
    return losses


def causal_conv1d_slots(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    conv_state: Tensor,
    state_slots: Tensor,
    has_initial_state: Tensor,
    backend: Backend = None,
) -> Tensor:
    """`causal_conv1d` with states in conv_state's slots, in place, no gradients."""
    if _is_cpu(backend, x, weight, bias) and 2 <= weight.shape[1] <= 4:
        return cpu.causal_conv1d_slots(
            x, weight, bias, cu_seqlens, conv_state, state_slots, has_initial_state
        )
    return reference.causal_conv1d_slots(
        x, weight, bias, cu_seqlens, conv_state, state_slots, has_initial_state
    )


def causal_conv1d_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    conv_state: Tensor,
    state_slots: Tensor,
    backend: Backend = None,
) -> Tensor:
    """One token a sequence: x [S, C] -> y [S, C]; conv_state updated in place."""
    cu_seqlens, started = _one_each(x)
    return causal_conv1d_slots(
        x, weight, bias, cu_seqlens, conv_state, state_slots, started, backend
    )


def ssd_scan_slots(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    cu_seqlens: Tensor,
    ssm_state: Tensor,
    state_slots: Tensor,
    has_initial_state: Tensor,
    backend: Backend = None,
) -> Tensor:
    """`ssd_scan` with states in ssm_state's slots, in place, no gradients."""
    if _is_cpu(backend, x, B, C):
        return cpu.ssd_scan_slots(
            x, dt, A, B, C, D, cu_seqlens, ssm_state, state_slots, has_initial_state
        )
    return reference.ssd_scan_slots(
        x, dt, A, B, C, D, cu_seqlens, ssm_state, state_slots, has_initial_state
    )


def ssd_step(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    ssm_state: Tensor,
    state_slots: Tensor,
    backend: Backend = None,
) -> Tensor:
    """One token a sequence: x [S, H, P] -> y [S, H, P]; ssm_state updated in place."""
    cu_seqlens, started = _one_each(x)
    return ssd_scan_slots(x, dt, A, B, C, D, cu_seqlens, ssm_state, state_slots, started, backend)


def write_kv(
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
    backend: Backend = None,
) -> None:
    """Store keys and values [T, K, P] at flat KV slots [T], in place."""
    if _is_cpu(backend, k, v, k_cache, v_cache):
        return cpu.write_kv(k, v, k_cache, v_cache, slot_mapping)
    return reference.write_kv(k, v, k_cache, v_cache, slot_mapping)


def copy_rows(tensor: Tensor, copies: Tensor) -> None:
    """Copy tensor[src] to tensor[dst] for each (src, dst) of copies [n, 2], in place.

    All reads come before all writes; no destination twice.
    """
    source, target = copies.unbind(1)
    if tensor.is_cpu and not torch.isin(target, source).any():
        cpu.copy_rows(tensor, copies)
    else:
        tensor[target] = tensor[source]


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    cu_seqlens: Tensor,
    seq_lens: Tensor,
    scale: float,
    backend: Backend = None,
) -> Tensor:
    """Attend each sequence's last tokens to its KV blocks; see `reference.paged_attention`."""
    if _is_cpu(backend, q, k_cache, v_cache):
        return cpu.paged_attention(q, k_cache, v_cache, block_tables, cu_seqlens, seq_lens, scale)
    return reference.paged_attention(q, k_cache, v_cache, block_tables, cu_seqlens, seq_lens, scale)


def sample_with_confidence(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    keys: Tensor,
    positions: Tensor,
    confidence: ConfidenceMeasure = "top_logprobs",
    confidence_top: int = 20,
    num_logprobs: int = 0,
    adjusted_logits: Tensor | None = None,
    backend: Backend = None,
) -> SampleOutput:
    """Draw one token a row and measure its confidence; see `sampling.sample_with_confidence`."""
    if _is_cpu(backend, logits):
        return cpu.sample_with_confidence(
            logits, temperature, top_k, top_p, min_p, keys, positions, confidence, confidence_top,
            num_logprobs, adjusted_logits,
        )  # fmt: skip
    return sampling.sample_with_confidence(
        logits.detach().cpu(),
        temperature,
        top_k,
        top_p,
        min_p,
        keys,
        positions,
        confidence,
        confidence_top,
        num_logprobs,
        None if adjusted_logits is None else adjusted_logits.detach().cpu(),
    )


def _is_cpu(backend: Backend, *tensors: Tensor | None) -> bool:
    """Say whether the Rust kernels run: asked for, or nothing was and they can."""
    _check_backend(backend)
    if backend == "cpu":
        if not cpu.is_supported(*tensors):
            given = sorted({f"{t.dtype} on {t.device}" for t in tensors if t is not None})
            raise RequestError(
                f'backend "cpu" was given {", ".join(given)}: it takes tensors of one dtype, '
                "float32 or bfloat16, on the CPU, without gradients"
            )
        return True
    return backend is None and cpu.is_supported(*tensors)


def _check_backend(backend: Backend) -> None:
    if backend not in (None, "reference", "cpu"):
        raise RequestError(f'backend is {backend!r}; it must be "reference", "cpu" or None')


def _packed(backend: Backend, *tensors: Tensor | None) -> ModuleType:
    """Return the module that serves an operation over whole packed sequences."""
    _check_backend(backend)
    if backend == "reference":
        return reference
    return cpu_train if cpu_train.is_served(*tensors) else chunked


def _rows(backend: Backend, *tensors: Tensor | None) -> ModuleType:
    """Return the module that serves a row-wise operation: a kernel where there is one."""
    if _is_cpu(backend, *tensors):
        return cpu
    flows = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    served = flows and backend != "reference" and cpu_train.is_served(*tensors)
    return cpu_train if served else reference


def _one_each(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (cu_seqlens, has_initial_state) of a step: one token a sequence, all started."""
    rows = x.shape[0]
    cu_seqlens = torch.arange(rows + 1, dtype=torch.int32, device=x.device)
    return cu_seqlens, torch.ones(rows, dtype=torch.bool, device=x.device)
