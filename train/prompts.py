"""Where reinforcement learning's prompts come from: the generators, or a curated set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from falcon_h1r.errors import ConfigError
from falcon_h1r.ops.reference import mix64
from falcon_h1r.thinking.prompts import ChatTokenizer, encode_prompt
from falcon_h1r.train.checkpoint import verify_folder
from falcon_h1r.train.samples import Sample, permuted, read_samples
from falcon_h1r.train.tasks import Problem, sample_problem

_FRAME = 256
"""More tokens than a chat template puts around a problem and a system prompt."""


def draw_problem(
    ordinal: int, seed: int, families: Mapping[str, float], levels: Mapping[int, float]
) -> Problem:
    """Problem number `ordinal` of the endless stream; never one of the evaluation's operands."""
    return sample_problem(Random(f"rollout {seed} {ordinal}"), families, levels)


def read_prompts(folder: Path) -> list[Sample]:
    """The samples of a curated set; ConfigError when the folder is damaged or holds none."""
    wrong = verify_folder(folder) if folder.is_dir() else "there is no such folder"
    if wrong is not None:
        raise ConfigError(f"data.source {folder}: {wrong}; give the folder of a curated set")
    files = sorted(folder.glob("samples-*.jsonl"))
    samples = [sample for path in files for sample in read_samples(path)]
    if not samples:
        raise ConfigError(f"data.source {folder} holds no sample; loosen its filters")
    return samples


def has_room(
    tokenizer: ChatTokenizer, problem: str, context: int, system_prompt: str | None = None
) -> bool:
    """Whether a problem's prompt leaves room for at least one token in the context."""
    texts = problem + (system_prompt or "")
    if len(texts.encode(errors="surrogatepass")) + _FRAME < context:
        return True  # no token is shorter than a byte: most need not be encoded
    return len(encode_prompt(tokenizer, problem, system_prompt)) < context


def curated_problem(samples: Sequence[Sample], ordinal: int, seed: int) -> Problem:
    """Prompt number `ordinal` of a curated set: all samples once an epoch, shuffled anew."""
    epoch, index = divmod(ordinal, len(samples))
    sample = samples[permuted(index, len(samples), mix64(mix64(seed) ^ epoch))]
    return Problem(
        problem=sample.problem,
        thought=sample.thought,
        answer=sample.answer,
        family=sample.family,
        level=sample.level,
        keys=(),
    )
