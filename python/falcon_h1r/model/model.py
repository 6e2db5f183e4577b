"""FalconH1ForCausalLM: one code for training (packed or batch) and for generation (with a cache).

Legend: B batch, L padded length, T packed tokens, S sequences, R rows wanted, D model width,
V vocabulary.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from falcon_h1r import ops
from falcon_h1r.model import fused, weights
from falcon_h1r.model.block import FalconH1Block
from falcon_h1r.model.cache import HybridCache, PackedBatch
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.model.mlp import Linear, RMSNorm


class FalconH1Model(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: FalconH1Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(FalconH1Block(config) for _ in range(config.num_hidden_layers))
        self.final_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.embedding_multiplier = config.embedding_multiplier

    def forward(
        self, input_ids: Tensor, batch: PackedBatch, cache: HybridCache | None = None
    ) -> Tensor:
        """Map input_ids [T] to hidden states [T, D] after the final norm."""
        x = self.embed_tokens(input_ids)
        if self.embedding_multiplier != 1.0:
            x = x * self.embedding_multiplier
        if cache is None or not fused.run(self, x, batch, cache):
            for i, layer in enumerate(self.layers):
                x = layer(x, batch, None if cache is None else cache.layers[i])
        out: Tensor = self.final_layernorm(x)
        return out


class FalconH1ForCausalLM(nn.Module):
    """A Falcon-H1 language model; tensor names and files are Hugging Face's."""

    def __init__(self, config: FalconH1Config) -> None:
        super().__init__()
        self.config = config
        self.model = FalconH1Model(config)
        self.lm_head = Linear(
            config.hidden_size, config.vocab_size, bias=False, after=config.lm_head_multiplier
        )
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.no_grad()
    def reset_parameters(self, seed: int = 0) -> None:
        """Draw fresh weights: normal(0, initializer_range), Mamba-2's start of A, dt and D."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for module in self.modules():
                if isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d)):
                    module.weight.normal_(0.0, self.config.initializer_range)
                    if getattr(module, "bias", None) is not None:
                        module.bias.zero_()  # type: ignore[union-attr, operator]
                if isinstance(module, nn.Conv1d):
                    module.reset_parameters()
                if hasattr(module, "reset_state_parameters"):
                    module.reset_state_parameters()  # type: ignore[operator]

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map input_ids [B, L] (no padding) to logits [B, L, V]."""
        rows, length = input_ids.shape
        end, device = (rows + 1) * length, input_ids.device
        cu_seqlens = torch.arange(0, end, length, dtype=torch.int32, device=device)
        logits = self.forward_packed(input_ids.flatten(), cu_seqlens)
        return logits.view(rows, length, -1)

    def forward_packed(self, input_ids: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Map packed input_ids [T] with cu_seqlens int32 [S+1] to logits [T, V]."""
        return self.logits(self.hidden_packed(input_ids, cu_seqlens))

    def hidden_packed(self, input_ids: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Map packed input_ids [T] to hidden states [T, D]; sequences do not see each other."""
        out: Tensor = self.model(input_ids, PackedBatch.from_cu_seqlens(cu_seqlens))
        return out

    def forward_cached(
        self, input_ids: Tensor, batch: PackedBatch, cache: HybridCache, rows: Tensor
    ) -> Tensor:
        """Map this step's input_ids [T] to the logits [R, V] of `rows`, updating the cache."""
        return self.logits(self.model(input_ids, batch, cache)[rows])

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states [.., D] to logits [.., V]."""
        out: Tensor = self.lm_head(hidden)
        return out

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy [T] of targets [T] given hidden [T, D], without all logits."""
        return ops.linear_cross_entropy(
            hidden, self.lm_head.weight, targets, self.config.lm_head_multiplier
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> "FalconH1ForCausalLM":
        """Load a folder in Hugging Face's format by memory map; dtype None keeps the file's.

        Raises ConfigError or WeightsError, naming file and tensor, before memory is taken.
        """
        config = FalconH1Config.from_pretrained(path)
        weights.check_size(config, Path(path))
        with torch.device("meta"):
            model = cls(config)
        weights.load(model, Path(path), dtype=dtype, device=torch.device(device))
        return model

    def save_pretrained(self, path: str | Path) -> None:
        """Write config.json and model.safetensors to the folder `path`, each file whole or not."""
        weights.save(self, Path(path))
