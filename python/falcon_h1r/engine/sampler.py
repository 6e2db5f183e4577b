"""Draws one token a row of a plan, with each request's own parameters.

Legend: R sampled rows, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from falcon_h1r import ops
from falcon_h1r._rust import Plan
from falcon_h1r.engine.params import SamplingParams
from falcon_h1r.ops import ConfidenceMeasure, SampleOutput
from falcon_h1r.ops.reference import noise_key


@dataclass(frozen=True, slots=True)
class RequestSampling:
    """What the sampler keeps of a request while it runs."""

    params: SamplingParams
    keys: npt.NDArray[np.int64]
    """[n]: the noise key of each trace."""
    end_ids: npt.NDArray[np.uint32]
    """Tokens that end a trace: end of sequence unless ignored, and stop_token_ids."""
    prompt_token_ids: npt.NDArray[np.uint32]
    confidence: ConfidenceMeasure
    confidence_top: int

    @classmethod
    def build(
        cls,
        params: SamplingParams,
        num_traces: int,
        seed: int,
        eos_token_ids: tuple[int, ...],
        prompt_token_ids: npt.NDArray[np.uint32],
        confidence: ConfidenceMeasure,
        confidence_top: int,
    ) -> "RequestSampling":
        """Derive the noise keys and the ending tokens once a request."""
        keys = np.array([noise_key(seed, t) for t in range(num_traces)], dtype=np.uint64)
        ends = {*(() if params.ignore_eos else eos_token_ids), *params.stop_token_ids}
        return cls(
            params,
            keys.view(np.int64),
            np.array(sorted(ends), dtype=np.uint32),
            prompt_token_ids,
            confidence,
            confidence_top,
        )


class Sampler:
    """Holds the sampling side of every live request."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.requests: dict[int, RequestSampling] = {}
        self._counts: dict[int, dict[int, Tensor]] = {}
        """Request -> trace -> how often each token was drawn, where penalties ask for it."""

    def add(self, request_id: int, sampling: RequestSampling) -> None:
        """Start serving a request."""
        self.requests[request_id] = sampling

    def remove(self, request_id: int) -> None:
        """Forget a request."""
        self.requests.pop(request_id, None)
        self._counts.pop(request_id, None)

    def sample(self, logits: Tensor, plan: Plan) -> tuple[SampleOutput, npt.NDArray[np.bool_]]:
        """Draw a token for each row of logits [R, V]; return the draws and which end a trace."""
        ids = plan.sample_request_ids
        if ids.size == 0:  # a step of prefill only
            return SampleOutput.empty(), np.zeros(0, dtype=np.bool_)
        groups = [(int(i), np.flatnonzero(ids == i)) for i in np.unique(ids)]
        temperature = np.empty(ids.size, dtype=np.float64)
        top_p, min_p = np.empty_like(temperature), np.empty_like(temperature)
        top_k, keys = np.empty(ids.size, dtype=np.int64), np.empty(ids.size, dtype=np.int64)
        for request_id, rows in groups:
            request = self.requests[request_id]
            params = request.params
            temperature[rows], top_p[rows] = params.temperature, params.top_p
            top_k[rows], min_p[rows] = params.top_k, params.min_p
            keys[rows] = request.keys[plan.sample_traces[rows]]
        adjusted = self._adjust(logits, plan, groups)
        first = self.requests[groups[0][0]]
        measures = {
            (self.requests[i].confidence, self.requests[i].confidence_top) for i, _ in groups
        }
        num_logprobs = max(self.requests[i].params.logprobs or 0 for i, _ in groups)

        def draw(confidence: ConfidenceMeasure, top: int) -> SampleOutput:
            return ops.sample_with_confidence(
                logits,
                torch.from_numpy(temperature),
                torch.from_numpy(top_k),
                torch.from_numpy(top_p),
                torch.from_numpy(min_p),
                torch.from_numpy(keys),
                torch.from_numpy(plan.sample_positions),
                confidence,
                top,
                num_logprobs,
                adjusted,
            )

        output = draw(first.confidence, first.confidence_top)
        for confidence, top in measures - {(first.confidence, first.confidence_top)}:
            other = draw(confidence, top).confidences  # the same tokens: noise is by position
            for request_id, rows in groups:
                request = self.requests[request_id]
                if (request.confidence, request.confidence_top) == (confidence, top):
                    output.confidences[torch.from_numpy(rows)] = other[torch.from_numpy(rows)]
        tokens = output.token_ids.numpy()
        ends = np.zeros(ids.size, dtype=np.bool_)
        for request_id, rows in groups:
            request = self.requests[request_id]
            ends[rows] = (tokens[rows, None] == request.end_ids).any(1)
        return output, ends

    def count(self, sample: SampleOutput, plan: Plan) -> None:
        """Count a step's tokens for penalties, once they are committed."""
        if not self._counts:
            return
        rows = zip(plan.sample_request_ids.tolist(), plan.sample_traces.tolist(),
                   sample.token_ids.tolist(), strict=True)  # fmt: skip
        for request_id, trace, token in rows:
            if (of_trace := self._counts.get(request_id, {}).get(trace)) is not None:
                of_trace[token] += 1

    def _adjust(
        self, logits: Tensor, plan: Plan, groups: list[tuple[int, npt.NDArray[np.int64]]]
    ) -> Tensor | None:
        """Return logits with penalties and min_tokens applied, or None where nobody asked."""
        adjusted: Tensor | None = None
        for request_id, rows in groups:
            request = self.requests[request_id]
            params = request.params
            early = plan.sample_output_lens[rows] < params.min_tokens
            if not params.has_penalties and not (early.any() and request.end_ids.size):
                continue
            if adjusted is None:
                adjusted = logits.float() if logits.dtype != torch.float32 else logits.clone()
            for row, is_early in zip(rows, early, strict=True):
                line = adjusted[row]
                if params.has_penalties:
                    trace = (request_id, int(plan.sample_traces[row]))
                    self._penalise(line, request, trace)
                if is_early:
                    line[torch.from_numpy(request.end_ids.astype(np.int64))] = -torch.inf
        return adjusted

    def _penalise(self, line: Tensor, request: RequestSampling, trace: tuple[int, int]) -> None:
        """Apply vLLM's penalties to one row [V] in place."""
        of_request = self._counts.setdefault(trace[0], {})
        if trace[1] not in of_request:
            of_request[trace[1]] = torch.zeros(self.vocab_size, dtype=torch.int32, device="cpu")
        counts = of_request[trace[1]].to(line.device)
        params = request.params
        if params.repetition_penalty != 1.0:
            seen = counts > 0
            seen[torch.from_numpy(request.prompt_token_ids.astype(np.int64))] = True
            factor = params.repetition_penalty
            line.copy_(torch.where(seen, torch.where(line > 0, line / factor, line * factor), line))
        line -= params.frequency_penalty * counts
        line -= params.presence_penalty * (counts > 0)
