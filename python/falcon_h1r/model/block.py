"""One Falcon-H1 layer: attention and SSM side by side from one norm, then the MLP.

Legend: T packed tokens, D model width.
"""

from torch import Tensor, nn

from falcon_h1r.model.attention import FalconH1Attention
from falcon_h1r.model.cache import LayerCache, PackedBatch
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.model.mlp import FalconH1MLP, RMSNorm
from falcon_h1r.model.ssm import FalconH1Mixer


class FalconH1Block(nn.Module):
    """x + attention(norm x) + ssm(norm x), then x + mlp(norm x)."""

    def __init__(self, config: FalconH1Config) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = FalconH1Attention(config)
        self.mamba = FalconH1Mixer(config)
        self.pre_ff_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward = FalconH1MLP(config)

    def forward(self, x: Tensor, batch: PackedBatch, cache: LayerCache | None) -> Tensor:
        """Map x [T, D] to [T, D]."""
        h = self.input_layernorm(x)
        x = x + (self.mamba(h, batch, cache) + self.self_attn(h, batch, cache))
        out: Tensor = x + self.feed_forward(self.pre_ff_layernorm(x))
        return out
