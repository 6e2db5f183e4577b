"""What a finished run leaves: a model folder, and the adapter where one was trained."""

import json
import shutil
from pathlib import Path

from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.train.checkpoint import write_folder
from falcon_h1r.train.loop import FINAL
from falcon_h1r.train.lora import merge, save_adapter
from falcon_h1r.train.recipe_sft import SftRecipe
from falcon_h1r.train.start import ADAPTER, VOCABULARY
from falcon_h1r.train.vocabulary import TOKENIZER_FILES


def export(model: FalconH1ForCausalLM, recipe: SftRecipe, output: Path) -> None:
    """Write `output`/final, which `from_pretrained` loads, and with LoRA `output`/adapter.

    Raises TrainingError when the disk refuses.
    """
    plain = model if recipe.lora is None else merge(model)

    def fill(temporary: Path) -> None:
        plain.save_pretrained(temporary)
        for name in TOKENIZER_FILES:
            if (output / VOCABULARY / name).exists():
                shutil.copy(output / VOCABULARY / name, temporary / name)
        generation = {
            "eos_token_id": list(plain.config.eos_token_ids),
            "pad_token_id": plain.config.pad_token_id,
            "do_sample": True,
            "temperature": 0.7,
            "top_p": 1.0,
        }
        (temporary / "generation_config.json").write_text(json.dumps(generation) + "\n")

    write_folder(output / FINAL, fill)
    if recipe.lora is not None:
        lora, base = recipe.lora, recipe.init_from
        write_folder(output / ADAPTER, lambda path: save_adapter(model, lora, path, base))
