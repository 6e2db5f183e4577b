"""Types of the compiled module; `make lint` compares this file with it."""

from collections.abc import Sequence
from typing import Literal, Self, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

__version__: str

# --- tokenizer ---

@disjoint_base
class Tokenizer:
    """Byte-level BPE of a `tokenizer.json`; `falcon_h1r.Tokenizer` adds what a folder says."""

    def __new__(cls, json: str, *_args: object, **_kwargs: object) -> Self: ...
    @property
    def vocab_size(self) -> int:
        """One more than the highest id: the rows an embedding needs."""
    def to_json(self) -> str:
        """Return the text of the `tokenizer.json`."""
    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token as the file writes it; None when there is none."""
    def id_to_token(self, token_id: int) -> str | None:
        """Return the token as the file writes it; None when there is none."""
    def control_tokens(self) -> list[tuple[str, int]]:
        """Return special tokens, and added ones written as tags (`<think>`), in order of id."""
    def reasoning_json(self, symbols: Sequence[str] | None = None) -> str:
        """Return the `tokenizer.json` in which each symbol is one token."""
    def special_tokens(self) -> list[tuple[str, int]]:
        """Return content and id of every special token, in order of id."""
    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return the ids of a text."""
    def encode_batch(
        self,
        texts: Sequence[str],
        add_special_tokens: bool = False,
        num_threads: int | None = None,
    ) -> list[list[int]]:
        """Return the ids of every text, on up to num_threads threads (None: all cores)."""
    def encode_ragged(
        self, texts: Sequence[str], num_threads: int | None = None
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return all ids [total] and the offsets [n + 1] between which each text's lie."""
    def encode_segments(self, segments: Sequence[tuple[str, bool]]) -> list[int]:
        """Return the ids of all texts joined; only texts marked True hold control tokens."""
    def decode(
        self,
        ids: Sequence[int] | NDArray[np.uint32] | NDArray[np.int64],
        skip_special_tokens: bool = True,
    ) -> str:
        """Return the text of ids; wrong UTF-8 as U+FFFD. TokenizerError for an unknown id."""
    def decode_batch(
        self,
        batch: Sequence[Sequence[int] | NDArray[np.uint32] | NDArray[np.int64]],
        skip_special_tokens: bool = True,
    ) -> list[str]:
        """Return the text of every list of ids."""
    def decode_stream(self, skip_special_tokens: bool = True) -> DecodeStream:
        """Return a decoder that takes ids one by one."""

@final
class DecodeStream:
    """Decodes ids as they come; the pieces joined are what `decode` gives for all ids."""

    def push(self, token_id: int) -> str:
        """Return the text that this id completes, '' while a character is incomplete."""
    def flush(self) -> str:
        """Return the rest: U+FFFD for a character that never became complete."""

def reasoning_symbols() -> list[str]:
    """Return the symbols that `Tokenizer.extend_for_reasoning` adds by default."""

def render_chat(template: str, context: str) -> str:
    """Render a chat template with a JSON object; TokenizerError says what went wrong."""

# --- scheduler ---
# T tokens of a plan, S sequences, M blocks of the longest table, R sampled rows.

@final
class DeepConfPolicy:
    """How one request thinks in parallel; its budget of traces is the request's `num_traces`.

    Online: traces 0..warmup-1 run in full; the percentile 100 * (1 - keep) of their lowest groups
    becomes the threshold; a later trace stops as soon as the mean of a full window of `window`
    tokens falls below it (unless it ends by itself on that token). Offline: all run in full.
    `vote` names the measure that weighs a vote; `exp_weights` weighs by its exponential, and either
    is raised to `power`.
    `consensus` ends the traces after the smallest index (of the last warm-up trace or above) at
    which, with at least 4 voters, the leading answer has that share of the weight; where `power` is
    above 1, none of them may weigh more than all the others together. `total_tokens` counts in
    trace order: traces before which that much is spent end with "length", and never vote.
    ConfigError names a field out of its range.
    """

    def __new__(
        cls,
        *,
        mode: str,
        warmup: int,
        keep: float,
        window: int,
        vote: str,
        consensus: float | None = None,
        exp_weights: bool = False,
        power: float = 1.0,
        total_tokens: int | None = None,
    ) -> Self: ...
    @property
    def mode(self) -> str: ...
    @property
    def warmup(self) -> int: ...
    @property
    def keep(self) -> float: ...
    @property
    def window(self) -> int: ...
    @property
    def vote(self) -> str: ...
    @property
    def consensus(self) -> float | None: ...
    @property
    def exp_weights(self) -> bool: ...
    @property
    def power(self) -> float: ...
    @property
    def total_tokens(self) -> int | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Event:
    """Something that happened; what each kind carries:

    - "started": the trace has computed a step of its own (or ended on its first token).
    - "finished": `reason`; `value` is the group that fell below the threshold ("confidence") or the
      share of the weight that decided the vote ("consensus"), else None.
    - "threshold": `value`, the threshold (None: no warm-up trace ended by itself); no trace.
    - "request_finished": all traces have ended; no trace.
    """

    @property
    def request_id(self) -> int: ...
    @property
    def trace_index(self) -> int | None: ...
    @property
    def kind(self) -> Literal["started", "finished", "threshold", "request_finished"]: ...
    @property
    def reason(
        self,
    ) -> Literal["stop", "length", "confidence", "consensus", "abort", "error"] | None: ...
    @property
    def value(self) -> float | None: ...

@final
class Plan:
    """One flat batch: the sequences that feed one token first, then the longer chunks."""

    @property
    def id(self) -> int:
        """What `commit` asks for."""
    @property
    def token_ids(self) -> NDArray[np.uint32]:
        """[T] tokens to feed, sequence after sequence."""
    @property
    def positions(self) -> NDArray[np.int64]:
        """[T] absolute position of every token in its sequence."""
    @property
    def cu_seqlens(self) -> NDArray[np.int32]:
        """[S + 1] offsets of the sequences in the T tokens."""
    @property
    def seq_lens(self) -> NDArray[np.int32]:
        """[S] context length after this step."""
    @property
    def slot_mapping(self) -> NDArray[np.int64]:
        """[T] place of every token in the KV cache: block * block_size + offset."""
    @property
    def block_tables(self) -> NDArray[np.int32]:
        """[S, M] KV blocks of every sequence, padded with 0."""
    @property
    def state_slots(self) -> NDArray[np.int64]:
        """[S] SSM slot of every sequence."""
    @property
    def has_initial_state(self) -> NDArray[np.bool_]:
        """[S] whether the slot holds a state already; else it starts from zero."""
    @property
    def block_copies(self) -> NDArray[np.int64]:
        """[n, 2] (source, destination), before the forward; no source is a destination."""
    @property
    def slot_copies(self) -> NDArray[np.int64]:
        """[m, 2] (source, destination), before the forward; no source is a destination."""
    @property
    def sample_rows(self) -> NDArray[np.int64]:
        """[R] index into the T tokens; one prompt's last row may appear once for each trace."""
    @property
    def sample_request_ids(self) -> NDArray[np.uint64]:
        """[R] request of every sampled row."""
    @property
    def sample_traces(self) -> NDArray[np.uint32]:
        """[R] trace of every sampled row."""
    @property
    def sample_positions(self) -> NDArray[np.int64]:
        """[R] absolute position of the token to be drawn."""
    @property
    def sample_output_lens(self) -> NDArray[np.int64]:
        """[R] number of output tokens the trace already has."""

@final
class Tally:
    """A vote. Answer classes are the numbers given to `set_answer`."""

    @property
    def threshold(self) -> float | None:
        """Online: fixed by the warm-up, once that has ended."""
    @property
    def last_voter(self) -> int | None:
        """Last trace that may vote (by consensus or `total_tokens`); None: all may."""
    @property
    def consensus(self) -> tuple[int, float] | None:
        """Trace index and share at which the vote was decided."""
    @property
    def weights(self) -> list[float | None]:
        """Weight of every trace's vote; None: it does not vote."""
    @property
    def votes(self) -> list[tuple[int, float]]:
        """(class, weight) in the order of the first vote."""
    @property
    def answer_class(self) -> int | None:
        """The class of the highest weight; of equals the one first voted for."""
    @property
    def majority_class(self) -> int | None:
        """What one vote for every answered trace up to `last_voter` says."""

@final
class Scheduler:
    """What runs where, at every step: schedule, run the plan, commit, again.

    With `enable_prefix_caching` the state of a prompt is kept at its last multiple of `chunk_size`
    (a slot and shared blocks, evicted when anything else needs them), and a later prompt that
    begins alike starts from there: `num_cached_tokens` counts, `clear_prefix_cache` forgets.
    Equal calls in equal order give equal plans and events. RequestError (ConfigError from the
    constructor) says what was given and what is allowed; a refused call has changed nothing.
    """

    def __new__(
        cls,
        *,
        num_blocks: int,
        block_size: int,
        num_slots: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        chunk_size: int,
        max_model_len: int,
        enable_prefix_caching: bool = False,
    ) -> Self: ...
    def add_request(
        self,
        request_id: int,
        prompt_token_ids: NDArray[np.uint32],
        *,
        num_traces: int,
        max_tokens: int,
        deepconf: DeepConfPolicy | None = None,
    ) -> None:
        """Queue one prompt; RequestError when it can never fit. At most 65536 traces."""
    def schedule(self) -> Plan | None:
        """Return the next step; None exactly when nothing is unfinished."""
    def commit(
        self,
        plan_id: int,
        token_ids: NDArray[np.uint32],
        confidences: NDArray[np.float32],
        flags: NDArray[np.uint8],
    ) -> list[Event]:
        """Take one entry a sampled row; flag 1: the token ends the trace, 2: the row is unusable.

        The token of an unusable row (flag 2 or a confidence that is not finite) is not taken and
        its trace ends with "error". Rows of traces that ended after the plan was made are ignored.
        """
    def discard(self, plan_id: int) -> None:
        """Give up a plan that failed; its sequences are preempted and recomputed later."""
    def set_answer(
        self, request_id: int, trace_index: int, answer_class: int | None
    ) -> list[Event]:
        """Tell the class of a trace that ended by "stop" or "length", once; may end the others."""
    def abort(self, request_id: int, trace_index: int | None = None) -> list[Event]:
        """End a trace or all; their memory is free on return. Ended traces stay as they are."""
    def tally(self, request_id: int) -> Tally:
        """Count the votes as they stand; RequestError for a request without a policy."""
    def trace_output(
        self, request_id: int, trace_index: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Return the output tokens of a trace and their confidences."""
    def release(self, request_id: int) -> None:
        """Forget a finished request."""
    def clear_prefix_cache(self) -> None:
        """Forget all kept prefixes, as must be done when the model's weights change.

        Those of requests that are still running are kept later on: call it when none is.
        """
    def has_unfinished(self) -> bool: ...
    def stats(self) -> dict[str, int]:
        """Return counters since the start, and the blocks and slots in use and in all."""

@final
class ConfidenceTracker:
    """Window means of token confidences, in double precision, without drift; None while empty.

    >>> t = ConfidenceTracker(window=2)
    >>> for c in (1.0, 3.0, 2.0): t.push(c)
    >>> t.group, t.lowest_group, t.mean
    (2.5, 2.0, 2.0)
    """

    def __new__(cls, window: int) -> Self: ...
    def push(self, confidence: float) -> None:
        """Append one token; RequestError when not finite (the tracker is unchanged)."""
    def extend(self, confidences: NDArray[np.float64]) -> None:
        """Append several tokens at once; all or none."""
    def __len__(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def is_full(self) -> bool:
        """Whether a whole window has been pushed."""
    @property
    def group(self) -> float | None:
        """Mean of the last `window` tokens; of all so far before that."""
    @property
    def lowest_group(self) -> float | None:
        """Smallest mean of a full window; mean of all tokens while shorter than the window."""
    @property
    def mean(self) -> float | None:
        """Mean of all tokens."""
    def tail(self, n: int) -> float | None:
        """Mean of the last n tokens (of all, when fewer)."""
    def bottom_groups(self, q: float) -> float | None:
        """Mean of the lowest max(1, floor(q n)) of the n full-window means."""
    def groups(self) -> NDArray[np.float64]:
        """Means of all full windows, in order; empty while shorter than the window."""
    def weight(self, vote: str, exp_weights: bool = False, power: float = 1.0) -> float | None:
        """The weight a trace with these confidences has in a vote of that name.

        "majority" 1, "mean" the mean, "tail" tail(window), "bottom_groups" bottom_groups(0.1),
        "lowest_group"; the exponential of it with `exp_weights`; raised to `power`.
        """

def confidence_threshold(lowest_groups: NDArray[np.float64], keep: float) -> float | None:
    """numpy.percentile(lowest_groups, 100 * (1 - keep)), to the bit; None when empty."""

def vote(
    answer_classes: Sequence[int | None], weights: Sequence[float | None]
) -> tuple[int | None, list[tuple[int, float]]]:
    """Weigh votes, one class and weight a trace (None in either: no vote).

    Return the winner (the first voted for of equals) and (class, weight) in order of first vote.
    """

def replay(
    policy: DeepConfPolicy,
    confidences: Sequence[NDArray[np.float64]],
    answer_classes: Sequence[int | None],
) -> tuple[Tally, list[tuple[int, bool]]]:
    """What the policy would have done with recorded full traces, taken one after another.

    Return the vote and for every trace (tokens it would have spent, stopped by confidence?); a
    trace that would not have run (after the consensus or `total_tokens`) spends 0.
    """

# --- kernels ---
# Addresses are `tensor.data_ptr()`, strides count elements; only `ops/cpu.py` and
# `ops/cpu_layers.py` call these.

def set_num_threads(num_threads: int) -> None:
    """Use that many threads from now on, the calling one included."""

def num_threads() -> int:
    """Return the number of threads that kernels use."""

def kernel_paths() -> tuple[str, str]:
    """Return the vector level and the path of bfloat16 products on this CPU."""

def linear(
    x: int,
    weight: int,
    scale: float,
    scales: int,
    bias: int,
    y: int,
    m: int,
    n: int,
    k: int,
    x_stride: int,
    is_bf16: bool,
) -> None: ...
def ssd_scan_slots(
    x: int,
    dt: int,
    a: int,
    b: int,
    c: int,
    d: int,
    cu_seqlens: int,
    state: int,
    state_slots: int,
    has_initial_state: int,
    y: int,
    num_tokens: int,
    num_seqs: int,
    num_slots: int,
    heads: int,
    head_dim: int,
    groups: int,
    d_state: int,
    x_stride: int,
    dt_stride: int,
    b_stride: int,
    c_stride: int,
    is_bf16: bool,
) -> None: ...
def causal_conv1d_slots(
    x: int,
    weight: int,
    bias: int,
    cu_seqlens: int,
    state: int,
    state_slots: int,
    has_initial_state: int,
    y: int,
    num_tokens: int,
    num_seqs: int,
    num_slots: int,
    channels: int,
    width: int,
    x_stride: int,
    is_bf16: bool,
) -> None: ...
def paged_attention(
    q: int,
    k_cache: int,
    v_cache: int,
    block_tables: int,
    cu_seqlens: int,
    seq_lens: int,
    y: int,
    scale: float,
    num_tokens: int,
    num_seqs: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    num_blocks: int,
    block_size: int,
    max_blocks: int,
    q_stride: int,
    is_bf16: bool,
) -> None: ...
def rms_norm(
    x: int,
    weight: int,
    y: int,
    eps: float,
    num_rows: int,
    width: int,
    x_stride: int,
    is_bf16: bool,
) -> None: ...
def gated_rms_norm(
    x: int,
    z: int,
    weight: int,
    y: int,
    eps: float,
    num_groups: int,
    norm_before_gate: bool,
    num_rows: int,
    width: int,
    x_stride: int,
    z_stride: int,
    is_bf16: bool,
) -> None: ...
def swiglu(
    gate: int,
    up: int,
    y: int,
    num_rows: int,
    width: int,
    gate_stride: int,
    up_stride: int,
    is_bf16: bool,
) -> None: ...
def softplus_dt(
    dt: int,
    bias: int,
    y: int,
    low: float,
    high: float,
    num_rows: int,
    heads: int,
    dt_stride: int,
    is_bf16: bool,
) -> None: ...
def rope(
    x: int,
    positions: int,
    frequencies: int,
    y: int,
    num_rows: int,
    width: int,
    head_dim: int,
    x_stride: int,
    is_bf16: bool,
) -> None: ...
def write_rows(
    x: int,
    slot_mapping: int,
    cache: int,
    num_rows: int,
    width: int,
    x_stride: int,
    num_slots: int,
    is_bf16: bool,
) -> None: ...
def copy_rows(
    data: int,
    pairs: int,
    num_rows: int,
    row_bytes: int,
    num_pairs: int,
) -> None: ...
def layers_workspace_bytes(sizes: tuple[int, ...], num_tokens: int, is_bf16: bool) -> int: ...
def falcon_layers(
    x: int,
    layers: Sequence[tuple[Sequence[int], Sequence[int]]],
    caches: Sequence[Sequence[int]],
    sizes: tuple[int, ...],
    settings: tuple[float, float, tuple[float, float], bool],
    batch: Sequence[int],
    batch_sizes: Sequence[int],
    cache_sizes: Sequence[int],
    workspace: tuple[int, int],
    is_bf16: bool,
) -> None: ...
def decay_rate(a_log: int, out: int, heads: int, is_bf16: bool) -> None: ...
def sample_with_confidence(
    logits: int,
    adjusted: int,
    temperature: int,
    top_k: int,
    top_p: int,
    min_p: int,
    keys: int,
    positions: int,
    outputs: tuple[int, int, int, int, int, int, int, int, int],
    num_rows: int,
    vocab: int,
    logits_stride: int,
    measure: int,
    confidence_top: int,
    num_top: int,
    is_bf16: bool,
) -> None: ...

# --- kernels (training) ---
# Addresses and row strides as above, in the order of the core's fields; only
# `ops/cpu_train.py` and `ops/cpu_products.py` call these.

TRAIN_ROW_BLOCK: int
"""Rows a task of the row-wise kernels takes; gradients of weights leave one sum a block."""

def train_ssd_forward(
    threads: int,
    sizes: Sequence[int],
    cu_seqlens: Sequence[int],
    rows: Sequence[int],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> None: ...
def train_ssd_backward(
    threads: int,
    sizes: Sequence[int],
    cu_seqlens: Sequence[int],
    rows: Sequence[int],
    inputs: Sequence[int],
    given: Sequence[int],
    outputs: Sequence[int],
) -> None: ...
def train_attention_forward(
    threads: int,
    sizes: Sequence[int],
    bounds: Sequence[Sequence[int]],
    rows: Sequence[int],
    inputs: Sequence[int],
    scale: float,
    outputs: Sequence[int],
) -> None: ...
def train_attention_backward(
    threads: int,
    sizes: Sequence[int],
    bounds: Sequence[Sequence[int]],
    rows: Sequence[int],
    inputs: Sequence[int],
    scale: float,
    given: Sequence[int],
    outputs: Sequence[int],
) -> None: ...
def train_conv_forward(
    threads: int,
    sizes: Sequence[int],
    cu_seqlens: Sequence[int],
    x_row: int,
    inputs: Sequence[int],
    y: int,
) -> None: ...
def train_conv_backward(
    threads: int,
    sizes: Sequence[int],
    cu_seqlens: Sequence[int],
    x_row: int,
    inputs: Sequence[int],
    dy: int,
    outputs: Sequence[int],
) -> None: ...
def train_norm_forward(
    threads: int,
    sizes: Sequence[int],
    rows: Sequence[int],
    inputs: Sequence[int],
    eps: float,
    outputs: Sequence[int],
) -> None: ...
def train_norm_backward(
    threads: int,
    sizes: Sequence[int],
    rows: Sequence[int],
    inputs: Sequence[int],
    eps: float,
    given: Sequence[int],
    outputs: Sequence[int],
) -> None: ...
def train_swiglu_forward(
    threads: int,
    sizes: Sequence[int],
    rows: Sequence[int],
    inputs: Sequence[int],
    y: int,
) -> None: ...
def train_swiglu_backward(
    threads: int,
    sizes: Sequence[int],
    rows: Sequence[int],
    inputs: Sequence[int],
    dy: int,
    outputs: Sequence[int],
) -> None: ...
def train_rope(
    threads: int,
    sizes: Sequence[int],
    x_row: int,
    inputs: Sequence[int],
    reverse: bool,
    y: int,
) -> None: ...
def train_cross_entropy_forward(
    threads: int,
    sizes: Sequence[int],
    logits: int,
    targets: int,
    scale: float,
    outputs: Sequence[int],
) -> None: ...
def train_cross_entropy_backward(
    threads: int,
    sizes: Sequence[int],
    logits: int,
    targets: int,
    scale: float,
    given: Sequence[int],
) -> None: ...
def train_matmul(
    threads: int,
    sizes: Sequence[int],
    a: Sequence[int],
    b: Sequence[int],
    c: int,
    c_row: int,
    add: bool,
) -> None: ...
