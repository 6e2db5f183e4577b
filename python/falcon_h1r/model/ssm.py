"""The Mamba-2 mixer over packed sequences, with or without state slots.

Legend: T packed tokens, S sequences, D model width, I ssm channels (H * P), H heads, P head width,
G groups, N state width, C conv channels (I + 2 G N), W conv width.
"""

import math

import torch
from torch import Tensor, nn

from falcon_h1r import ops
from falcon_h1r.model.cache import LayerCache, PackedBatch, SharedPrompts
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.model.mlp import Linear

_States = tuple[Tensor, Tensor]
"""Of the convolution [S, C, W-1] and of the scan [S, H, P, N]."""
_DT_RANGE = (1e-3, 1e-1)
"""Log-uniform range of the first time steps (Gu & Dao 2023, section 3.6)."""


class GatedRMSNorm(nn.Module):
    """The norm inside the mixer of the larger models (`mamba_rms_norm`)."""

    def __init__(self, config: FalconH1Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.d_ssm))
        self.eps = config.rms_norm_eps
        self.num_groups = config.mamba_n_groups
        self.norm_before_gate = config.mamba_norm_before_gate

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Gate and normalise x [T, I] by z [T, I]."""
        return ops.gated_rms_norm(
            x, z, self.weight, self.eps, self.num_groups, self.norm_before_gate
        )


class FalconH1Mixer(nn.Module):
    """SSM branch: project to z, x, B, C, dt; convolve x, B, C; scan; gate; project back."""

    def __init__(self, config: FalconH1Config) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.mamba_n_heads, config.ssm_head_dim
        self.num_groups, self.d_state = config.mamba_n_groups, config.mamba_d_state
        self.d_ssm, self.conv_dim = config.d_ssm, config.conv_dim
        self.time_step_limit = config.time_step_limit
        group_width = self.num_groups * self.d_state
        widths = [self.d_ssm, self.d_ssm, group_width, group_width, self.num_heads]
        mup_vector = torch.tensor(
            [m for m, w in zip(config.ssm_multipliers, widths, strict=True) for _ in range(w)],
            dtype=torch.float64,
            device="cpu",
        )
        self.in_proj = Linear(
            config.hidden_size,
            sum(widths),
            config.mamba_proj_bias,
            before=config.ssm_in_multiplier,
            after=mup_vector,
        )
        self.conv1d = nn.Conv1d(
            self.conv_dim,
            self.conv_dim,
            config.mamba_d_conv,
            groups=self.conv_dim,
            bias=config.mamba_conv_bias,
        )
        self.dt_bias = nn.Parameter(torch.empty(self.num_heads))
        self.A_log = nn.Parameter(torch.empty(self.num_heads))
        self.D = nn.Parameter(torch.ones(self.num_heads))
        self.norm = GatedRMSNorm(config) if config.mamba_rms_norm else None
        self.out_proj = Linear(
            self.d_ssm, config.hidden_size, config.projectors_bias, after=config.ssm_out_multiplier
        )

    @torch.no_grad()
    def reset_state_parameters(self) -> None:
        """Start A, dt and D as Mamba-2 does: A in [1, 16], dt log-uniform, D one."""
        self.A_log.uniform_(1.0, 16.0).log_()
        low, high = math.log(_DT_RANGE[0]), math.log(_DT_RANGE[1])
        dt = torch.empty_like(self.dt_bias).uniform_(low, high).exp()
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt
        self.D.fill_(1.0)

    def forward(self, u: Tensor, batch: PackedBatch, cache: LayerCache | None) -> Tensor:
        """Map u [T, D] to [T, D]; with a cache, states are read from and written to its slots."""
        widths = [self.d_ssm, self.conv_dim, self.num_heads]
        z, xBC, dt = torch.split(self.in_proj(u), widths, dim=-1)
        weight = self.conv1d.weight[:, 0]  # [C, W]
        dt = ops.softplus_dt(dt, self.dt_bias, self.time_step_limit)  # [T, H]
        A = ops.decay_rate(self.A_log)  # [H]
        if cache is None and batch.shared is None:
            y, _ = self._mix(xBC, dt, A, batch.cu_seqlens)
        elif cache is None:
            assert batch.shared is not None
            y = self._mix_shared(xBC, dt, A, batch.shared)
        else:
            assert batch.state_slots is not None
            assert batch.has_initial_state is not None
            slots, started = batch.state_slots, batch.has_initial_state
            xBC = ops.causal_conv1d_slots(
                xBC, weight, self.conv1d.bias, batch.cu_seqlens, cache.conv_state, slots, started
            )
            x, B, C = self._split(xBC)
            y = ops.ssd_scan_slots(
                x, dt, A, B, C, self.D, batch.cu_seqlens, cache.ssm_state, slots, started
            )
        y = y.flatten(1)  # [T, I]
        y = ops.swiglu(z, y) if self.norm is None else self.norm(y, z)
        out: Tensor = self.out_proj(y)
        return out

    def _mix(
        self, xBC: Tensor, dt: Tensor, A: Tensor, cu_seqlens: Tensor, start: _States | None = None
    ) -> tuple[Tensor, _States]:
        """Convolve and scan whole sequences -> (y [T, H, P], states after each)."""
        conv_start, ssm_start = start or (None, None)
        weight, bias = self.conv1d.weight[:, 0], self.conv1d.bias
        xBC, conv_state = ops.causal_conv1d(xBC, weight, bias, cu_seqlens, conv_start)
        x, B, C = self._split(xBC)
        y, ssm_state = ops.ssd_scan(x, dt, A, B, C, self.D, cu_seqlens, ssm_start)
        return y, (conv_state, ssm_state)

    def _mix_shared(self, xBC: Tensor, dt: Tensor, A: Tensor, shared: SharedPrompts) -> Tensor:
        """Run the prompts, then the responses from the states after theirs -> y [T, H, P]."""
        sizes = [shared.num_tokens, xBC.shape[0] - shared.num_tokens]
        (prompts, responses), (dt, more_dt) = torch.split(xBC, sizes), torch.split(dt, sizes)
        y, (conv_state, ssm_state) = self._mix(prompts, dt, A, shared.cu_prompts)
        if not sizes[1]:  # every response is empty
            return y
        conv_state = conv_state.index_select(0, shared.prompt_of)
        ssm_state = ssm_state.index_select(0, shared.prompt_of)
        more, _ = self._mix(responses, more_dt, A, shared.cu_responses, (conv_state, ssm_state))
        return torch.cat([y, more])

    def _split(self, xBC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        group_width = self.num_groups * self.d_state
        x, B, C = torch.split(xBC, [self.d_ssm, group_width, group_width], dim=-1)
        return (
            x.view(-1, self.num_heads, self.head_dim),
            B.view(-1, self.num_groups, self.d_state),
            C.view(-1, self.num_groups, self.d_state),
        )
