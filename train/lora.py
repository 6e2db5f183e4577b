"""Low-rank adapters (Hu et al. 2021) in the files of `peft`.

y = (W + (alpha / rank) B A) x, with A and B the only weights that learn. The multiplier that a
Falcon-H1 projection carries applies to the adapter's part as to W's, so that merging is exact.

Legend: r rank.
"""

import json
import math
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from falcon_h1r import ops
from falcon_h1r.errors import ConfigError, WeightsError
from falcon_h1r.model.mlp import Linear
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.train.config import known_name, require

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "in_proj", "gate_proj", "up_proj", "down_proj")
_PREFIX = "base_model.model."
"""What peft puts before a module's name."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraRecipe:
    """Which projections get an adapter, and how large it is."""

    rank: int = 8
    alpha: float = 16.0
    """The adapter's part is scaled by alpha / rank."""
    targets: tuple[str, ...] = TARGETS
    allow_out_proj: bool = False
    """Let `targets` name out_proj, which fused kernels elsewhere read without its adapter."""
    adapter: str | None = None
    """Folder of an adapter to go on from, of the same rank and targets."""

    def __post_init__(self) -> None:
        require(self.rank >= 1, "lora.rank", self.rank, "at least 1")
        require(self.alpha > 0, "lora.alpha", self.alpha, "positive")
        require(len(self.targets) > 0, "lora.targets", self.targets, "at least one projection")
        for target in self.targets:
            if target == "conv1d":
                raise ConfigError(
                    "lora.targets names conv1d: kernels read its weight directly, so an adapter "
                    "would be silently dead elsewhere and cannot be merged; leave it out"
                )
            if target == "out_proj" and not self.allow_out_proj:
                raise ConfigError(
                    "lora.targets names out_proj: fused Mamba kernels elsewhere read its weight "
                    "without the adapter; leave it out, or set lora.allow_out_proj and merge"
                )
            known_name(target, (*TARGETS, "out_proj"), f"lora.targets: {target}", "a projection")


class LoraLinear(Linear):
    """A projection with an adapter; it shares the weights of the one it replaces."""

    def __init__(self, base: Linear, recipe: LoraRecipe, generator: torch.Generator) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.before, self.after, self._epilogues = base.before, base.after, {}
        self.weight, self.bias = base.weight, base.bias
        self.scaling = recipe.alpha / recipe.rank
        bound = 1 / math.sqrt(self.in_features)
        first = torch.empty(recipe.rank, self.in_features).uniform_(
            -bound, bound, generator=generator
        )
        weight = base.weight
        self.lora_A = nn.Parameter(first.to(weight.device, weight.dtype))  # [r, in]
        self.lora_B = nn.Parameter(weight.new_zeros(self.out_features, recipe.rank))  # [out, r]

    def forward(self, x: Tensor) -> Tensor:
        """Project x [T, in] to [T, out]."""
        y = super().forward(x)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        multiplier = self._epilogues[(x.device, dtype)][0]
        low = ops.linear(ops.linear(x, self.lora_A, None), self.lora_B, None) * self.scaling
        return y + (low if multiplier is None else (low * multiplier).to(low.dtype))

    def merged(self) -> Tensor:
        """The weight [out, in] with the adapter added, in float32 or wider before rounding."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        delta = self.lora_B.to(wide) @ self.lora_A.to(wide) * self.scaling
        return (self.weight.to(wide) + delta).to(self.weight.dtype)


def add_adapters(model: FalconH1ForCausalLM, recipe: LoraRecipe, seed: int) -> None:
    """Freeze the model and put an adapter, at first without effect, on every target.

    Raises WeightsError when `recipe.adapter` does not fit.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in recipe.targets and isinstance(module, Linear):
            setattr(model.get_submodule(parent), name, LoraLinear(module, recipe, generator))
    if recipe.adapter is not None:
        _load(model, recipe, Path(recipe.adapter))


def _adapters(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    for path, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield path, module


def _tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' weights by peft's names."""
    tensors: dict[str, nn.Parameter] = {}
    for path, module in _adapters(model):
        tensors[f"{_PREFIX}{path}.lora_A.weight"] = module.lora_A
        tensors[f"{_PREFIX}{path}.lora_B.weight"] = module.lora_B
    return tensors


def save_adapter(
    model: nn.Module, recipe: LoraRecipe, folder: Path, base: str | None = None
) -> None:
    """Write adapter_config.json and adapter_model.safetensors, which `peft` loads."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(recipe.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    tensors = {name: p.detach().contiguous() for name, p in _tensors(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


_UNKNOWN_WAYS = ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "fan_in_fan_out")
"""Fields of peft that change what an adapter's tensors mean."""


def read_adapter(recipe: LoraRecipe) -> dict[str, Tensor]:
    """The tensors of `recipe.adapter`; WeightsError when it is damaged or of another shape."""
    folder = Path(recipe.adapter or "")
    try:
        config = json.loads((folder / CONFIG).read_text())
        found = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{folder} holds no readable adapter: {error}") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{folder / CONFIG} holds no object; give an adapter's folder")
    for key, wanted in (("r", recipe.rank), ("lora_alpha", recipe.alpha)):
        if config.get(key) != wanted:
            raise WeightsError(
                f"{folder / CONFIG} has {key} {config.get(key)}; the recipe's lora has {wanted}"
            )
    for key in _UNKNOWN_WAYS:
        if config.get(key):
            raise WeightsError(
                f"{folder / CONFIG} has {key} {config[key]!r}, which is not known here; make the "
                "adapter without it"
            )
    if config.get("bias", "none") != "none":
        raise WeightsError(
            f"{folder / CONFIG} has bias {config['bias']!r}, and only bias 'none' is known here; "
            "make the adapter without it"
        )
    return found


@torch.no_grad()
def _load(model: nn.Module, recipe: LoraRecipe, folder: Path) -> None:
    """Take over an adapter's weights."""
    found = read_adapter(recipe)
    tensors = _tensors(model)
    if odd := set(tensors) ^ set(found):
        raise WeightsError(f"{folder / WEIGHTS} and lora.targets differ: {min(odd)}")
    for name, parameter in tensors.items():
        if found[name].shape != parameter.shape:
            raise WeightsError(
                f"{folder / WEIGHTS}: {name} has shape {list(found[name].shape)}; "
                f"the model needs {list(parameter.shape)}"
            )
        parameter.copy_(found[name])


@torch.no_grad()
def merge(model: FalconH1ForCausalLM) -> FalconH1ForCausalLM:
    """A plain model with the adapters merged; the one given keeps them."""
    plain = FalconH1ForCausalLM(copy(model.config)).to(model.lm_head.weight.dtype)
    merged = {f"{path}.weight": module.merged() for path, module in _adapters(model)}
    given = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        parameter.copy_(merged.get(name, given[name]))
    return plain
