"""The evaluation: every item greedily, with the whole budget and with DeepConf; kept at once."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.errors import RequestError
from falcon_h1r.evaluate.grading import is_right
from falcon_h1r.evaluate.items import Item
from falcon_h1r.evaluate.machine import machine, utc_now
from falcon_h1r.evaluate.records import Run, RunRecord, Store
from falcon_h1r.evaluate.results import EvalResult, runs_of
from falcon_h1r.llm import LLM
from falcon_h1r.thinking.deepconf import DeepConf
from falcon_h1r.thinking.prompts import encode_prompt
from falcon_h1r.thinking.record import RecordedPrompt, replay_record
from falcon_h1r.thinking.results import ThinkingResult

AT_ONCE = 64
"""Problems queued together: enough to fill a batch, few enough to be kept in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """How to evaluate. Raises RequestError on construction for a value not allowed."""

    modes: tuple[str, ...] = ("greedy", "pass@1", "majority", "deepconf")
    """Measures: "greedy" (one trace, temperature 0), "pass@K" (unbiased, over the traces of the
    whole budget), "majority" (their plain vote), "deepconf" (online, the same budget and seed)."""
    deepconf: DeepConf = field(default_factory=lambda: DeepConf(budget=32))
    """DeepConf's settings; its budget is the budget of every run but the greedy one."""
    replay: bool = False
    """DeepConf is replayed over the traces of the full budget instead of run again: the same vote,
    the fewest tokens it can spend, no seconds of its own."""
    seed: int = 0
    """Every item draws from a seed mixed from this one and its key, so neither the order of the
    items nor an interruption changes a result."""
    temperature: float | None = None
    """Of sampled traces. None: the model's, or 0.6."""
    top_p: float | None = None
    """Of sampled traces. None: the model's, or 0.95."""
    max_tokens: int | None = None
    """Tokens a trace may have. None: the model's, or the rest of the context."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "modes", tuple(dict.fromkeys(self.modes)))
        if not self.modes:
            raise RequestError("no mode was given; name one, such as greedy or deepconf")
        for mode in self.modes:
            self._check_mode(mode)
        if self.deepconf.mode != "online":
            raise RequestError(
                "deepconf.mode is 'offline'; the evaluation measures 'online' against full traces"
            )
        if self.replay and "full" not in runs_of(self.modes):
            raise RequestError("replay needs full traces; add majority or pass@1 to the modes")
        SamplingParams(
            seed=self.seed,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            max_tokens=self.max_tokens,
        )

    def _check_mode(self, mode: str) -> None:
        name, _, count = mode.partition("@")
        if mode in ("greedy", "majority", "deepconf"):
            return
        if name != "pass" or not count.isdecimal():
            raise RequestError(
                f"a mode is {mode!r}; allowed are greedy, pass@K, majority and deepconf"
            )
        if not 1 <= int(count) <= self.deepconf.budget:
            raise RequestError(
                f"a mode is {mode!r}; its K must lie in [1, {self.deepconf.budget}], the budget"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far an evaluation is."""

    done: int
    """Problems x runs that are done, those of an earlier call included."""
    total: int
    run: Run
    """The run that just finished a problem."""
    num_tokens: int
    """Generated in this call."""
    seconds: float
    """Since this call began."""


def evaluate(
    llm: LLM,
    items: Sequence[Item],
    config: EvalConfig | None = None,
    *,
    output: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    command: str | None = None,
) -> EvalResult:
    """Measure a model on items; Ctrl-C returns what is done, `interrupted`.

    `output` is a folder where every result is kept at once; the same call continues there. It
    raises ConfigError when it holds results of another model or configuration. `command` is what
    the report prints as the way to these figures.
    """
    config = config or EvalConfig()
    items = list(items)
    if not items:
        raise RequestError("there is no item to evaluate on; load some")
    header = {
        "model": describe_model(llm),
        "config": _settings(config, llm),
        "machine": machine(),
        "date": utc_now(),
        "command": command,
        "modes": list(config.modes),
    }
    store = Store(None if output is None else Path(output), header)
    work = _Work(llm, config, store, progress, total=len(items) * len(runs_of(config.modes)))
    work.done = sum(
        (item.id.key, run) in store.records for item in items for run in runs_of(config.modes)
    )
    try:
        finished = all(
            work.run(run, items[start : start + AT_ONCE])
            for start in range(0, len(items), AT_ONCE)
            for run in runs_of(config.modes)
            if not (run == "deepconf" and config.replay)
        )
    except KeyboardInterrupt:
        finished = False
    finally:
        store.close()
    return EvalResult(
        items=[item.id for item in items],
        records=store.records,
        modes=config.modes,
        header=header,
        interrupted=not finished,
    )


@dataclass(slots=True)
class _Work:
    """One call of `evaluate`."""

    llm: LLM
    config: EvalConfig
    store: Store
    progress: Callable[[Progress], None] | None
    total: int
    done: int = 0
    num_tokens: int = 0
    start: float = field(default_factory=time.perf_counter)

    def run(self, run: Run, items: list[Item]) -> bool:
        """Do what is left of these items in one run; False when it was interrupted."""
        needed = (run, "deepconf") if run == "full" and self.config.replay else (run,)
        have = self.store.records
        items = [item for item in items if any((item.id.key, each) not in have for each in needed)]
        prompts = [self._encode(item) for item in items]
        room = self.llm.engine.limits.max_model_len
        for item, prompt in zip(items, prompts, strict=True):
            if len(prompt) >= room:
                self._keep(_too_long(item, run, len(prompt)))
                if run == "full" and self.config.replay:
                    self._keep(_too_long(item, "deepconf", len(prompt)))
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) < room]
        if not fitting:
            return True
        deepconf, params = run_settings(run, self.config, self.llm)
        thinking = self.llm.thinking(
            [prompts[i] for i in fitting],
            deepconf,
            params,
            seeds=[seed_of(items[i], self.config.seed) for i in fitting],
        )
        events = thinking.events()
        before = time.perf_counter()
        try:
            for event in events:
                if event.kind == "result" and event.result is not None:
                    index = fitting[event.prompt_index]
                    now = time.perf_counter()
                    length = len(prompts[index])
                    self._keep(record_of(items[index], run, event.result, length, now - before))
                    if run == "full" and self.config.replay:
                        self._replay(items[index], event.result, length)
                    before = now
                    thinking.results[event.prompt_index] = None  # the traces are no longer needed
        except KeyboardInterrupt:
            events.close()
            return False
        return True

    def _encode(self, item: Item) -> list[int]:
        return encode_prompt(
            self.llm.tokenizer, item.problem, self.llm.thinking_defaults.system_prompt
        )

    def _replay(self, item: Item, full: ThinkingResult, num_prompt_tokens: int) -> None:
        """Keep what DeepConf makes of the traces of the full budget."""
        recorded = RecordedPrompt(
            prompt_index=0,
            prompt_token_ids=[],
            deepconf=self.config.deepconf.resolved(self.llm.thinking_defaults),
            traces=[asdict(trace) for trace in full.traces],
            result={},
        )
        result = replay_record(recorded)
        self._keep(record_of(item, "deepconf", result, num_prompt_tokens, seconds=0.0))

    def _keep(self, record: RunRecord) -> None:
        if (record.key, record.run) in self.store.records:  # its replay was lost, and is redone
            return
        self.store.add(record)
        self.done += 1
        self.num_tokens += record.num_tokens
        if self.progress is not None:
            self.progress(
                Progress(
                    done=self.done,
                    total=self.total,
                    run=record.run,
                    num_tokens=self.num_tokens,
                    seconds=time.perf_counter() - self.start,
                )
            )


def run_settings(run: Run, config: EvalConfig, llm: LLM) -> tuple[DeepConf, SamplingParams]:
    """Return what a run thinks with; "full" and "deepconf" draw the same tokens."""
    params = llm.thinking_defaults.sampling_params()
    changes = {
        name: getattr(config, name)
        for name in ("temperature", "top_p", "max_tokens")
        if getattr(config, name) is not None
    }
    params = replace(params, **changes)
    if run == "greedy":
        deepconf = replace(
            config.deepconf,
            mode="offline",
            budget=1,
            warmup=None,
            keep=1.0,
            consensus=None,
            total_tokens=None,
        )
        return deepconf, replace(params, temperature=0.0, top_p=1.0)
    if run == "full":
        full = replace(config.deepconf, mode="offline", keep=1.0, consensus=None, total_tokens=None)
        return full, params
    return config.deepconf, params


def record_of(
    item: Item, run: Run, result: ThinkingResult, num_prompt_tokens: int, seconds: float
) -> RunRecord:
    """Return what is kept of a result: answers graded, lengths, how the traces ended."""
    verdicts = {
        answer: is_right(answer, item)
        for answer in dict.fromkeys(
            [result.answer, result.majority_answer, *(trace.answer for trace in result.traces)]
        )
    }
    answer = result.majority_answer if run == "full" else result.answer
    return RunRecord(
        **item.id._asdict(),
        run=run,
        answer=answer,
        is_right=verdicts[answer],
        num_prompt_tokens=num_prompt_tokens,
        answers=[trace.answer for trace in result.traces],
        rights=[verdicts[trace.answer] for trace in result.traces],
        lengths=[len(trace.token_ids) for trace in result.traces],
        stopped_by=dict(Counter[str](trace.stopped_by for trace in result.traces)),
        seconds=round(seconds, 6),
        num_tokens_saved=result.num_tokens_saved,
    )


def seed_of(item: Item, seed: int) -> int:
    """Return the 64-bit seed of an item's request."""
    digest = blake2b(f"{seed} {item.id.key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def describe_model(llm: LLM) -> dict[str, Any]:
    """Return the model's name, size, configuration and a fingerprint of its weights."""
    weights = sha256()
    for path in sorted(llm.folder.glob("*.safetensors")) if llm.folder else []:
        size = path.stat().st_size
        weights.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            weights.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            weights.update(file.read())
    parameters = list(llm.model.parameters())
    return {
        "name": llm.folder.name if llm.folder else type(llm.model).__name__,
        "num_parameters": sum(p.numel() for p in parameters),
        "dtype": str(parameters[0].dtype).removeprefix("torch."),
        "device": str(parameters[0].device),
        "weights": weights.hexdigest()[:16] if llm.folder else None,
        "config": llm.model.config.to_dict(),
    }


def _settings(config: EvalConfig, llm: LLM) -> dict[str, Any]:
    """Return what decides a result: all but the modes, which may grow from call to call."""
    _, params = run_settings("full", config, llm)
    deepconf = config.deepconf.resolved(llm.thinking_defaults)
    return {
        "deepconf": asdict(deepconf),
        "replay": config.replay,
        "seed": config.seed,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_tokens": params.max_tokens,
        "system_prompt": llm.thinking_defaults.system_prompt,
        "max_model_len": llm.engine.limits.max_model_len,
        "chat_template": _digest(llm.tokenizer.chat_template if llm.tokenizer else None),
    }


def _digest(text: str | None) -> str | None:
    return None if text is None else blake2b(text.encode(), digest_size=8).hexdigest()


def _too_long(item: Item, run: Run, num_prompt_tokens: int) -> RunRecord:
    return RunRecord(
        **item.id._asdict(),
        run=run,
        answer=None,
        is_right=False,
        num_prompt_tokens=num_prompt_tokens,
        does_not_fit=True,
    )
