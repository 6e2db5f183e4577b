"""GRPO steps: our loop beside TRL's GRPOTrainer, same model, prompts, sizes and machine.

Sampling, rewards and one update, in float32 on one thread. TRL generates and learns with
transformers' FalconH1; it runs in the peers' environment (`make test-peers` makes it). What is
compared is processor time, which other work on the machine disturbs less than it does the clock.
The first step of each is not counted. TRL's reward is the number of tokens, which costs nothing;
ours verifies answers.

`all groups` learns from every group, as TRL does; `as trained` leaves out those without an
advantage, as the loop does (their gradient is zero). `bf16 gradients` is `gradient_precision:
medium` here, and `torch.set_float32_matmul_precision("medium")` on TRL's side, which has no such
choice for gradients alone.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from falcon_h1r import reference_model_path
from falcon_h1r.train.config import load_recipe
from falcon_h1r.train.grpo import GrpoRun
from falcon_h1r.train.loop import flushed_denormals
from falcon_h1r.train.recipe_rl import GrpoRecipe
from falcon_h1r.train.stream import prompt_text

PYTHON = Path(__file__).parents[1] / ".venv-peers/bin/python"
PROMPTS, GROUP, MAX_TOKENS, STEPS = 8, 8, 96, 3

TRL = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from datasets import Dataset
from transformers import FalconH1ForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
given = json.load(sys.stdin)
torch.set_float32_matmul_precision(given["precision"])
tokenizer = PreTrainedTokenizerFast(
    tokenizer_file=given["model"] + "/tokenizer.json", pad_token="<|pad|>", eos_token="<|im_end|>",
    padding_side="left",
)
model = FalconH1ForCausalLM.from_pretrained(given["model"], dtype=torch.float32)
size = given["prompts"] * given["group"]
config = GRPOConfig(
    output_dir=given["output"], use_cpu=True, bf16=False, fp16=False, max_steps=given["steps"],
    per_device_train_batch_size=size, num_generations=given["group"], temperature=1.0, beta=0.0,
    max_completion_length=given["max_tokens"], gradient_accumulation_steps=1, report_to=[],
    save_strategy="no", logging_steps=1, learning_rate=1e-5, shuffle_dataset=False,
    gradient_checkpointing=False, disable_tqdm=True,
)
spent, lengths = [], []
class Clock(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        spent.append(time.process_time())
def reward(completion_ids, **kwargs):
    lengths.append(sum(map(len, completion_ids)))
    return [float(len(ids)) for ids in completion_ids]
trainer = GRPOTrainer(
    model=model, reward_funcs=reward, args=config, processing_class=tokenizer,
    train_dataset=Dataset.from_list([{"prompt": p} for p in given["texts"]]), callbacks=[Clock()],
)
trainer.train()
steps = [b - a for a, b in zip(spent, spent[1:])]
print("\\n" + json.dumps({"seconds": steps, "tokens": lengths[1:]}))
"""


def ours(
    output: Path, all_groups: bool, precision: str
) -> tuple[list[float], list[int], list[str]]:
    """Processor time and tokens of each step but the first, and the prompts of all."""
    overrides = [
        f"rollout.num_prompts={PROMPTS}", f"rollout.max_prompts={PROMPTS}",
        f"rollout.group_size={GROUP}", f"rollout.max_tokens={MAX_TOKENS}",
        "data.families={sums: 1, equations: 1}", "data.levels={2: 1}", "optimizer.adam_lr=1e-5",
        f"gradient_precision={precision}",
    ]  # fmt: skip
    run = GrpoRun(load_recipe(GrpoRecipe, "reference_grpo", overrides), output, print)
    weights = run.recipe.reward
    seconds, tokens = [], []
    for step in range(STEPS):
        began = time.process_time()
        groups = run.sample(range(step * PROMPTS, (step + 1) * PROMPTS))
        run.update([g for g in groups if all_groups or g.has_advantage(weights)])
        run.step += 1
        run.engine.update_weights(run.step)
        seconds.append(time.process_time() - began)
        tokens.append(sum(len(r.token_ids) for g in groups for r in g.rollouts))
    run.verdicts.close()
    texts = [prompt_text(run.problem(i).problem) for i in range(STEPS * PROMPTS)]
    return seconds[1:], tokens[1:], texts


def trl(texts: list[str], output: Path, precision: str) -> tuple[list[float], list[int]]:
    """The same of TRL, on the same prompts."""
    given = {
        "model": str(reference_model_path()), "texts": texts, "output": str(output),
        "prompts": PROMPTS, "group": GROUP, "max_tokens": MAX_TOKENS, "steps": STEPS,
        "precision": precision,
    }  # fmt: skip
    done = subprocess.run(
        [str(PYTHON), "-c", TRL], input=json.dumps(given), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    return theirs["seconds"], theirs["tokens"]


@pytest.mark.parametrize("precision", ["highest", "medium"], ids=["float32", "bf16 gradients"])
def bench_a_grpo_step_beside_trl(
    precision: str, tmp_path: Path, record: Callable[[dict[str, Any]], None]
) -> None:
    if not PYTHON.exists():
        pytest.skip("the peers' environment is missing; run `make test-peers`")
    torch.set_num_threads(1)
    with flushed_denormals():  # as the loop has it
        seconds, tokens, texts = ours(tmp_path, True, precision)
        rows = {"ours, all groups": (seconds, tokens)}
        rows["ours, as trained"] = ours(tmp_path, False, precision)[:2]
    rows["TRL"] = trl(texts, tmp_path / "trl", precision)
    samples, theirs = PROMPTS * GROUP, median(rows["TRL"][0])
    for name, (spent, count) in rows.items():
        record(
            {
                "variant": name,
                "precision": precision,
                "samples_a_step": samples,
                "tokens_a_step": median(count),
                "cpu_seconds_a_step": median(spent),
                "samples_per_cpu_second": samples / median(spent),
                "faster_than_trl_by": theirs / median(spent),
            }
        )
