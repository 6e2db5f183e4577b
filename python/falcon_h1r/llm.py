"""LLM: what a user holds. generate() by the engine, think() by thinking."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

import torch

from falcon_h1r.engine.engine import Engine, EngineConfig
from falcon_h1r.engine.outputs import EngineEvent, RequestOutput
from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.engine.shared import Seat, SharedEngine
from falcon_h1r.errors import ConfigError, RequestError
from falcon_h1r.hub import model_folder, read_object, token_ids_in
from falcon_h1r.model.model import FalconH1ForCausalLM
from falcon_h1r.reference_model import reference_model_path
from falcon_h1r.thinking.deepconf import DeepConf, ThinkingDefaults
from falcon_h1r.thinking.prompts import WHAT_TO_GIVE, Prompt, encode_prompt, items_of
from falcon_h1r.thinking.results import ThinkingEvent, ThinkingResult
from falcon_h1r.thinking.think import Thinking
from falcon_h1r.tokenizer import Tokenizer

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


class LLM:
    """A model with its tokenizer and engine; a context manager.

    Calls may overlap: several threads, or streams that are read in turns, share every step.

    `model` is a folder, a hub id, or a FalconH1ForCausalLM, which keeps its own device and dtype;
    None is the model in the wheel.
    Raises ConfigError, WeightsError or TokenizerError naming the file, OutOfMemoryPlanError when
    memory_bytes is too small.
    """

    def __init__(
        self,
        model: str | Path | FalconH1ForCausalLM | None = None,
        *,
        tokenizer: Tokenizer | None = None,
        device: str = "auto",
        dtype: str = "auto",
        seed: int = 0,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        max_model_len: int | None = None,
        memory_bytes: int | None = None,
        enable_prefix_caching: bool = True,
    ) -> None:
        config = EngineConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
            memory_bytes=memory_bytes,
            seed=seed,
            enable_prefix_caching=enable_prefix_caching,
        )
        if dtype != "auto" and dtype not in _DTYPES:
            raise ConfigError(f"dtype is {dtype!r}; it must be 'auto' or one of {list(_DTYPES)}")
        self.folder: Path | None = None
        if isinstance(model, FalconH1ForCausalLM):
            _check_left_out(device=device, dtype=dtype)
            self.model = model
        else:
            self.folder = model_folder(reference_model_path() if model is None else model)
            self.model = FalconH1ForCausalLM.from_pretrained(
                self.folder, dtype=_DTYPES.get(dtype), device=_pick_device(device)
            )
        if tokenizer is None and self.folder and Tokenizer.is_in(self.folder):
            tokenizer = Tokenizer.from_pretrained(self.folder)
        self.tokenizer = tokenizer
        self.thinking_defaults = ThinkingDefaults.load(self.folder)
        self.model.eval()
        self.engine = Engine(self.model, tokenizer, config, self._eos_token_ids())
        self._shared = SharedEngine(self.engine)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | None = None,
    ) -> list[RequestOutput]:
        """Continue each prompt; Ctrl-C returns what is done, the rest marked "abort".

        All prompts are checked before the first is queued (RequestError).
        """
        params = sampling_params or SamplingParams()
        encoded = [self.encode(p) for p in as_prompts(prompts)]
        reasons: dict[tuple[int, int], str | None] = {}
        outputs = []
        with closing(self._shared.seat()) as seat:
            ids = [seat.add_request(token_ids, params) for _, token_ids in encoded]
            try:
                _run(seat, reasons)
            except KeyboardInterrupt:
                for request_id in ids:
                    seat.abort(request_id)
                _run(seat, reasons)
            for request_id, (text, token_ids) in zip(ids, encoded, strict=True):
                traces = [
                    seat.output(request_id, t, reasons.get((request_id, t), "abort"))
                    for t in range(params.n)
                ]
                done = all(t.finish_reason != "abort" for t in traces)
                outputs.append(RequestOutput(request_id, text, token_ids, traces, done))
                seat.release(request_id)
        return outputs

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> Generator[EngineEvent, None, None]:
        """Continue one prompt event by event, text included; closing the iterator cancels."""
        params = sampling_params or SamplingParams()
        _, token_ids = self.encode(prompt)
        with closing(self._shared.seat()) as seat:
            seat.add_request(token_ids, params, stream=True)
            while seat.has_unfinished():
                yield from seat.step()

    def think(
        self,
        prompts: Prompt | Sequence[Prompt],
        deepconf: DeepConf | None = None,
        sampling_params: SamplingParams | None = None,
        *,
        record: str | Path | None = None,
    ) -> list[ThinkingResult]:
        """Think about each prompt with `deepconf.budget` traces; weak ones stop early, the rest
        vote. A text prompt is asked as a chat message. Ctrl-C returns what is done, `partial`.

        `record` writes the traces with their confidences as JSONL that replay reads.
        """
        return self.thinking(prompts, deepconf, sampling_params, record=record).run()

    def think_stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        deepconf: DeepConf | None = None,
        sampling_params: SamplingParams | None = None,
        *,
        text: bool = True,
        record: str | Path | None = None,
    ) -> Iterator[ThinkingEvent]:
        """As `think`, event by event, with the traces' text as it grows; closing it cancels."""
        thinking = self.thinking(prompts, deepconf, sampling_params, text=text, record=record)
        yield from thinking.events()

    def thinking(
        self,
        prompts: Prompt | Sequence[Prompt],
        deepconf: DeepConf | None = None,
        sampling_params: SamplingParams | None = None,
        *,
        text: bool = False,
        record: str | Path | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Thinking:
        """Queue prompts to think about: what `think` and `think_stream` run.

        `seeds` are one a prompt, instead of the one of `sampling_params`.
        """
        defaults = self.thinking_defaults
        encoded = [
            encode_prompt(self.tokenizer, prompt, defaults.system_prompt)
            for prompt in as_prompts(prompts)
        ]
        return Thinking(
            self._shared.seat(),
            encoded,
            deepconf,
            sampling_params,
            defaults=defaults,
            tokenizer=self.tokenizer,
            text=text,
            record=record,
            seeds=seeds,
        )

    def encode(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        """Return (text, token ids) of a prompt to continue; chat messages are rendered first."""
        if not isinstance(prompt, str):
            return None, encode_prompt(self.tokenizer, prompt)
        if self.tokenizer is None:
            raise RequestError("this checkpoint has no tokenizer; give the prompt as token ids")
        return prompt, self.tokenizer.encode(prompt, add_special_tokens=True)

    def stats(self) -> dict[str, int]:
        """Return counters: steps, prompt and generated tokens, preemptions, blocks, slots."""
        return self.engine.stats()

    def close(self) -> None:
        """Free the cache; the object is of no use afterwards. A second call does nothing."""
        self.__dict__.pop("engine", None)
        self.__dict__.pop("_shared", None)

    def __enter__(self) -> "LLM":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _eos_token_ids(self) -> tuple[int, ...]:
        """Return every id that ends a sequence, by config, generation config and tokenizer."""
        ids = set(self.model.config.eos_token_ids)
        if self.tokenizer is not None:
            ids.update(self.tokenizer.eos_token_ids)
        if self.folder is not None:
            ids.update(token_ids_in(read_object(self.folder / "generation_config.json"), "eos"))
        return tuple(sorted(i for i in ids if 0 <= i < self.model.config.vocab_size))


def as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """Return a list of prompts from one prompt or several.

    Raises RequestError where there is none; what a prompt holds is for `encode_prompt` to check.
    """
    if isinstance(prompts, str):
        return [prompts]
    items = items_of(prompts)
    if not items:
        raise RequestError(f"no prompt was given; {WHAT_TO_GIVE}")
    return [items] if isinstance(items[0], (dict, int, float)) else items


def _run(seat: Seat, reasons: dict[tuple[int, int], str | None]) -> None:
    """Step until the seat's requests are done; keep why each trace ended."""
    while seat.has_unfinished():
        for event in seat.step():
            if event.kind == "finished" and event.trace_index is not None:
                reasons[(event.request_id, event.trace_index)] = event.reason


def _check_left_out(**given: str) -> None:
    for name, value in given.items():
        if value != "auto":
            raise ConfigError(
                f"{name} is {value!r} beside a model object, which keeps its own; leave it out and "
                "change the model itself with model.to(...)"
            )


def _pick_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device is {device!r}; it must be 'auto', 'cpu' or 'cuda'") from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if picked.type == "cuda" and (picked.index or 0) >= count:
        raise ConfigError(f"device is {device!r} but torch sees {count} GPUs; give 'cpu'")
    return picked
