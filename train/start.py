"""What a supervised run starts with: its tokenizer and its model, fresh or from a folder."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from falcon_h1r.errors import ConfigError, TrainingError
from falcon_h1r.hub import read_object
from falcon_h1r.model.config import FalconH1Config
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.tokenizer import Tokenizer
from falcon_h1r.train.batches import Source
from falcon_h1r.train.checkpoint import write_folder
from falcon_h1r.train.loop import (
    CHECKPOINTS,
    FINAL,
    METRICS,
    TENSORBOARD,
    make_folder,
    summary_writer,
)
from falcon_h1r.train.lora import add_adapters, read_adapter
from falcon_h1r.train.packing import Document
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.samples import CuratedStream
from falcon_h1r.train.stream import DocumentStream
from falcon_h1r.train.vocabulary import TOKENIZER_FILES, build_vocabulary

VOCABULARY, ADAPTER = "vocabulary", "adapter"


def prepare_output(recipe: SftRecipe, output: Path, fresh: bool) -> None:
    """Make the run's folder; `fresh` forgets an earlier run.

    Raises ConfigError, WeightsError or TrainingError, and leaves all as it was, when the run could
    not begin: a folder, package or GPU is missing, or fields and model do not go together.
    """
    folders = _tokenizer_folders(recipe)
    pick_device(recipe.device, recipe.parallel.processes)
    if recipe.tensorboard:
        summary_writer()
    if not fresh:
        make_folder(output)
        return
    _start_config(recipe)
    for source in (recipe.data.source, recipe.data.held_out):
        if source is not None:
            CuratedStream(source, seed=recipe.seed, max_length=recipe.data.row_length)
    if recipe.lora is not None and recipe.lora.adapter is not None:
        read_adapter(recipe.lora)
        folders.append(recipe.lora.adapter)
    forget = (CHECKPOINTS, FINAL, ADAPTER, VOCABULARY, TENSORBOARD, METRICS)
    make_folder(output, forget, folders)


def pick_device(wanted: str, processes: int = 1) -> torch.device:
    """Where a run computes ("auto": on GPUs where there are any).

    Raises ConfigError when it asks for more GPUs than there are.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name = ("cuda" if count else "cpu") if wanted == "auto" else wanted
    if name == "cuda" and count < processes:
        raise ConfigError(
            f"device is {wanted!r} and torch sees {count} GPUs for {processes} processes; "
            "give device=cpu" + (", or as many parallel.processes as GPUs" if processes > 1 else "")
        )
    return torch.device(name)


def _tokenizer_folders(recipe: SftRecipe) -> list[str]:
    """The folders a run begins with, each with a tokenizer.

    Raises ConfigError when one has none or a file of it is broken: a copy would stay broken after
    the folder was mended.
    """
    data = recipe.data
    sources = [s for s in (recipe.init_from, data.tokenizer, data.source, data.held_out) if s]
    for source in sources:
        if not Tokenizer.is_in(source):
            raise ConfigError(f"{source} holds no {TOKENIZER_FILES[0]}; put its tokenizer there")
        for name in TOKENIZER_FILES:
            if name.endswith(".json"):
                read_object(Path(source) / name)
    return sources


def prepare_vocabulary(recipe: SftRecipe, output: Path) -> None:
    """Put the run's tokenizer into `output`/vocabulary, where there is none yet.

    It is that of the model to start from, else of `data.tokenizer` or the curated set, else trained
    on the generators. Raises ConfigError when a folder has none, or two have different ones.
    """
    folder = output / VOCABULARY
    sources = _tokenizer_folders(recipe)
    tokenizers = [_tokenizer(source) for source in sources]

    def fill(temporary: Path) -> None:
        if not sources:
            build_vocabulary(temporary, recipe.data.vocabulary_size, recipe.seed)
        for name in TOKENIZER_FILES if sources else ():
            if (Path(sources[0]) / name).exists():
                shutil.copy(Path(sources[0]) / name, temporary / name)

    if not folder.exists():
        write_folder(folder, fill)
    for source, tokenizer in zip(sources, tokenizers, strict=True):
        if _tokenizer(folder) != tokenizer:
            raise ConfigError(
                f"{source} has another tokenizer than {folder}; curate with the tokenizer of the "
                "model that learns, or use --fresh where the run was of another"
            )


def _tokenizer(folder: str | Path) -> Any:
    """A folder's tokenizer.json; ConfigError where it cannot be read."""
    return read_object(Path(folder) / TOKENIZER_FILES[0])


def model_config(recipe: SftRecipe, encoder: Tokenizer) -> FalconH1Config:
    """The recipe's model with the tokenizer's size and token ids.

    Raises ConfigError when the tokenizer names no token that ends a text.
    """
    if encoder.eos_token_id is None:
        raise ConfigError(
            "the tokenizer names no eos_token, so that no text would end; name one in its "
            "tokenizer_config.json"
        )
    return _fresh_config(recipe, {
        "vocab_size": encoder.vocab_size,
        "pad_token_id": encoder.pad_token_id,
        "bos_token_id": encoder.bos_token_id,
        "eos_token_id": encoder.eos_token_id,
    })  # fmt: skip


def _fresh_config(recipe: SftRecipe, of_tokenizer: Mapping[str, Any]) -> FalconH1Config:
    fields = {"tie_word_embeddings": True, **of_tokenizer, **recipe.model}
    return FalconH1Config.from_dict(fields, "recipe")


def _start_config(recipe: SftRecipe) -> FalconH1Config:
    """The configuration a run begins with, as far as it is known before there is a tokenizer.

    Raises ConfigError when the folder's model is another than the recipe's.
    """
    if recipe.init_from is None:
        return _fresh_config(recipe, {"vocab_size": recipe.data.vocabulary_size})
    config = FalconH1Config.from_pretrained(recipe.init_from)
    for name, wanted in recipe.model.items():
        found = getattr(config, name)
        if found != wanted and list(_listed(found)) != list(_listed(wanted)):
            raise ConfigError(
                f"{recipe.init_from} has {name} {found!r}, the recipe's model.{name} is "
                f"{wanted!r}; leave model out to take the folder's"
            )
    return config


def build_model(recipe: SftRecipe, encoder: Tokenizer, device: torch.device) -> FalconH1ForCausalLM:
    """The model of the recipe, with fresh weights or those of `init_from`, in its precision.

    Raises ConfigError when the folder's model is another than the recipe's.
    """
    if recipe.init_from is None:
        model = FalconH1ForCausalLM(model_config(recipe, encoder))
        model.reset_parameters(recipe.seed)
    else:
        config = _start_config(recipe)
        if encoder.vocab_size > config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {encoder.vocab_size} tokens, {recipe.init_from} only "
                f"{config.vocab_size}; take the tokenizer that belongs to the model"
            )
        model = FalconH1ForCausalLM.from_pretrained(recipe.init_from, torch.float32)
    model = model.to(device, torch.bfloat16 if recipe.precision == "bf16" else torch.float32)
    if recipe.lora is not None:
        add_adapters(model, recipe.lora, recipe.seed)
    if recipe.activation_checkpointing:
        for layer in model.model.layers:
            layer.forward = partial(_recomputed, layer.forward)
    return model


def open_source(recipe: SftRecipe, encoder: Tokenizer) -> Source:
    """Where the run's documents come from: the curated set, else the generators.

    Raises ConfigError or TrainingError when the set is none, is damaged, or no document fits.
    """
    data = recipe.data
    if data.source is not None:
        return CuratedStream(data.source, seed=recipe.seed, max_length=data.row_length)
    return DocumentStream(
        encoder,
        families=data.families,
        levels=data.levels,
        seed=recipe.seed,
        max_length=data.row_length,
    )


def held_out_documents(recipe: SftRecipe) -> list[Document]:
    """The first documents of `data.held_out`; none where there is no such set."""
    if recipe.data.held_out is None:
        return []
    stream = CuratedStream(recipe.data.held_out, seed=0, max_length=recipe.data.row_length)
    return [stream.document(i) for i in range(min(recipe.evaluate_count, len(stream)))]


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _recomputed(forward: Any, *inputs: Any) -> Any:
    """Call a layer so that its backward computes its inside again."""
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)


@torch.no_grad()
def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Take over every trainable weight of a checkpoint.

    Raises TrainingError naming the first tensor that is missing or of another shape.
    """
    wanted = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for name, parameter in wanted.items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            found = list(tensors[name].shape) if name in tensors else "missing"
            raise TrainingError(
                f"{path.name}: tensor {name} is {found}, the recipe's model needs "
                f"{list(parameter.shape)}; resume with the recipe it was saved with, or --fresh"
            )
    for name, parameter in wanted.items():
        parameter.copy_(tensors[name])
