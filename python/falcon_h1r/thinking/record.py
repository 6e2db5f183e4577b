"""Recorded traces: JSONL with every confidence, and what another policy would make of it.

A file holds, for every prompt, one line {"type": "request", prompt_index, prompt_token_ids,
deepconf, sampling_params}, one {"type": "trace", prompt_index, index, text, token_ids, answer,
confidences, stopped_by} a trace, and one {"type": "result", ...} as `ThinkingResult.to_dict`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from falcon_h1r._rust import ConfidenceTracker, replay
from falcon_h1r.engine.outputs import FinishReason
from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import RequestError
from falcon_h1r.thinking.answers import AnswerClasses
from falcon_h1r.thinking.deepconf import DeepConf
from falcon_h1r.thinking.results import ThinkingResult, Trace, build_result


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordedPrompt:
    """One prompt of a record."""

    prompt_index: int
    prompt_token_ids: list[int]
    deepconf: DeepConf
    """What it was recorded with, resolved."""
    traces: list[dict[str, Any]]
    result: dict[str, Any]


class Recorder:
    """Writes a record. Raises RequestError at once when the file cannot be opened; OSError naming
    it when a prompt cannot be written (a full disk), after which it writes nothing more.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._is_broken = False
        try:
            self._file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise RequestError(
                f"the record {path} cannot be written ({error.strerror}); give another path"
            ) from error

    def write(
        self,
        prompt_index: int,
        prompt_token_ids: list[int],
        deepconf: DeepConf,
        sampling_params: SamplingParams,
        result: ThinkingResult,
    ) -> None:
        """Append one prompt whole; it is on its way to the disk when this returns."""
        header = {
            "prompt_token_ids": prompt_token_ids,
            "deepconf": dataclasses.asdict(deepconf),
            "sampling_params": dataclasses.asdict(sampling_params),
        }
        rows: list[dict[str, Any]] = [{"type": "request", "prompt_index": prompt_index, **header}]
        for trace in result.traces:
            row = dataclasses.asdict(trace)
            rows.append({"type": "trace", "prompt_index": prompt_index, **row})
        rows.append({"type": "result", "prompt_index": prompt_index, **result.to_dict()})
        if self._is_broken:
            return
        try:
            self._file.write("".join(json.dumps(row) + "\n" for row in rows))
            self._file.flush()
        except OSError as error:
            self._is_broken = True
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def close(self) -> None:
        """Close the file; what a full disk did not take is given up."""
        try:
            self._file.close()
        except OSError:
            if not self._is_broken:
                raise


def read_record(path: str | Path) -> list[RecordedPrompt]:
    """Read a record, its prompts in their order (a file has them as they finished).

    Raises RequestError naming the line that is broken.
    """
    prompts: dict[int, dict[str, Any]] = {}
    with Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                kind, index = row.pop("type"), row.pop("prompt_index")
                if kind == "request":
                    row["deepconf"] = DeepConf(**row["deepconf"])
                    prompts[index] = row | {"traces": [], "result": {}}
                elif kind == "trace":
                    prompts[index]["traces"].append(row)
                else:
                    prompts[index]["result"] = row
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RequestError(
                    f"{path}, line {number}, is not a line of a record ({error}); record it again"
                ) from error
    return [
        RecordedPrompt(
            prompt_index=index,
            prompt_token_ids=row["prompt_token_ids"],
            deepconf=row["deepconf"],
            traces=row["traces"],
            result=row["result"],
        )
        for index, row in sorted(prompts.items())
    ]


def replay_record(prompt: RecordedPrompt, deepconf: DeepConf | None = None) -> ThinkingResult:
    """Return what `deepconf` (default: the recorded one) makes of the recorded traces.

    Traces are taken one after another, so num_tokens is the least the policy can spend. The
    traces must have run in full to tell what a milder policy would do: record offline. Raises
    RequestError when the policy asks for more traces than were recorded, or for another measure of
    confidence.
    """
    recorded = prompt.deepconf.confidence
    config = deepconf or prompt.deepconf
    config = dataclasses.replace(config, confidence=config.confidence or recorded)
    if recorded is not None and config.confidence != recorded:
        raise RequestError(
            f"confidence is {config.confidence!r} but the record holds {recorded!r}; leave it out "
            "or record with it"
        )
    if config.budget > len(prompt.traces):
        raise RequestError(
            f"budget is {config.budget} but {len(prompt.traces)} traces are recorded; "
            "lower budget or record more"
        )
    rows = prompt.traces[: config.budget]
    classes = AnswerClasses()
    answers = [None if r["answer"] is None else classes.class_of(r["answer"]) for r in rows]
    confidences = [np.asarray(row["confidences"], dtype=np.float64) for row in rows]
    tally, spent = replay(config.policy(), confidences, answers)
    last = max((i for i, (num_tokens, _) in enumerate(spent) if num_tokens), default=0)
    left_out: FinishReason = "consensus" if tally.consensus else "length"
    traces = []
    for i, (row, (num_tokens, is_weak)) in enumerate(zip(rows, spent, strict=True)):
        tracker = ConfidenceTracker(config.window or 1)
        tracker.extend(confidences[i][:num_tokens])
        reason: FinishReason = "confidence" if is_weak else row["stopped_by"]
        traces.append(
            Trace(
                index=i,
                is_warmup=config.mode == "online" and i < (config.warmup or 0),
                text=row["text"] if num_tokens == len(row["token_ids"]) else "",
                token_ids=row["token_ids"][:num_tokens],
                answer=None if is_weak or i > last else row["answer"],
                confidences=row["confidences"][:num_tokens],
                lowest_group=tracker.lowest_group,
                weight=tally.weights[i],
                stopped_by=left_out if i > last and tally.last_voter is not None else reason,
            )
        )
    return build_result(tally, classes, traces, seconds=0.0, partial=False)
