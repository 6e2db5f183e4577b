"""What a terminal shows while traces think: a grid of them, tokens, votes, the answer."""

from collections.abc import Generator, Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from falcon_h1r.cli.report import (
    STOPPED_BY,
    printable,
    shares,
    tokens_line,
    trace_lines,
    votes_line,
)
from falcon_h1r.thinking.results import ThinkingEvent, ThinkingResult
from falcon_h1r.thinking.think import Thinking

WAITING, RUNNING = "waiting", "running"

LOOKS = {
    WAITING: ("·", "bright_black"),
    RUNNING: ("●", "cyan"),
    "stop": ("✓", "green"),
    "length": ("…", "yellow"),
    "confidence": ("✗", "red"),
    "consensus": ("○", "blue"),
    "abort": ("·", "yellow"),
    "error": ("!", "bold red"),
}
"""State of a trace -> its character and style in the grid."""

MAX_CELLS = 512
"""Traces drawn one by one; a larger budget shows counts only."""
BAR_WIDTH = 32
MAX_BARS = 5
MAX_PANELS = 3
"""Problems shown at once; the engine takes them in order, so few run together."""
INTERRUPTED = 130


class Panel:
    """The state of one problem as its events tell it."""

    def __init__(self, problem: str, budget: int, warmup: int) -> None:
        self.problem = printable(problem)
        self.warmup = warmup
        self.states = [WAITING] * budget
        self.num_tokens = 0
        self.threshold: float | None = None
        self.votes: dict[str, float] = {}
        self.result: ThinkingResult | None = None

    @property
    def is_active(self) -> bool:
        """Whether it has begun and not ended."""
        return self.result is None and any(state != WAITING for state in self.states)

    def follow(self, event: ThinkingEvent) -> None:
        """Take in one event."""
        if event.trace_index is not None:
            if event.kind == "started":
                self.states[event.trace_index] = RUNNING
            elif event.kind == "stopped":
                self.states[event.trace_index] = event.reason or "abort"
        if event.kind == "tokens":
            self.num_tokens += len(event.token_ids)
        elif event.kind == "threshold":
            self.threshold = event.value
        elif event.kind == "vote":
            self.votes = event.votes
        elif event.kind == "result" and event.result is not None:
            self.finish(event.result)

    def finish(self, result: ThinkingResult) -> None:
        """Take in the outcome, which may be a partial one."""
        self.result = result
        self.votes = result.votes
        self.states = [trace.stopped_by for trace in result.traces]
        self.threshold = result.threshold

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [
            Text(self.problem, style="bold"),
            Padding(Group(self._grid(), self._legend(), self._tokens(), *self._bars()), (0, 2)),
        ]
        if self.result is not None:
            parts.append(self._answer(self.result))
        return Group(*parts)

    def _grid(self) -> Text:
        """One character a trace; a bar parts the warm-up from the rest."""
        grid = Text()
        if len(self.states) > MAX_CELLS:
            return grid
        for index, state in enumerate(self.states):
            if index and index == self.warmup:
                grid.append("│ ", style="bright_black")
            character, style = LOOKS[state]
            grid.append(character + " ", style=style)
        return grid

    def _legend(self) -> Text:
        legend = Text()
        for state, (character, style) in LOOKS.items():
            if (number := self.states.count(state)) > 0:
                name = STOPPED_BY.get(state, state)
                legend.append(f"{character} {number} {name}   ", style=style)
        return legend

    def _tokens(self) -> Text:
        if self.result is not None:
            line = f"tokens: {tokens_line(self.result)}"
        else:
            line = f"tokens: {self.num_tokens} spent"
        if self.threshold is not None:
            line += f", threshold {self.threshold:.4g}"
        return Text(line, style="bright_black")

    def _bars(self) -> Iterable[Text]:
        listed = [(printable(answer), share) for answer, share in shares(self.votes)[:MAX_BARS]]
        width = min(24, max((len(answer) for answer, _ in listed), default=0))
        for place, (answer, share) in enumerate(listed):
            style = "green" if place == 0 else "bright_black"
            line = Text(f"{answer[:width]:>{width}} ")
            line.append("█" * max(1, round(share * BAR_WIDTH)), style=style)
            line.append(f" {share:.1%}")
            yield line

    def _answer(self, result: ThinkingResult) -> Text:
        if result.answer is None:
            return Text("no answer found", style="yellow")
        line = Text("answer: ").append(printable(result.answer), style="bold green")
        if result.majority_answer != result.answer:
            line.append(f"  ({votes_line(result).rpartition(' (')[2]}", style="bright_black")
        return line


def show_live(
    thinking: Thinking,
    events: Generator[ThinkingEvent, None, None],
    problems: list[str],
    show_traces: bool,
    console: Console | None = None,
) -> int:
    """Show events as they come; finished problems scroll up. Return the exit status."""
    console = console or Console(highlight=False)
    config = thinking.deepconf
    warmup = config.warmup or 0 if config.mode == "online" else 0
    panels = [Panel(problem, config.budget, warmup) for problem in problems]
    try:
        return _follow(events, panels, console, show_traces)
    finally:  # also when the record's disk is full: the answers are there
        for panel, result in zip(panels, thinking.results, strict=True):
            if panel.result is None and result is not None:
                panel.finish(result)
                _print(console, panel, show_traces)


def _follow(
    events: Generator[ThinkingEvent, None, None],
    panels: list[Panel],
    console: Console,
    show_traces: bool,
) -> int:
    """Draw the panels until the events end, or Ctrl-C; return the exit status."""
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        try:
            for event in events:
                panel = panels[event.prompt_index]
                panel.follow(event)
                if event.kind in ("started", "result"):  # a panel draws its own changes
                    live.update(Group(*[p for p in panels if p.is_active][:MAX_PANELS]))
                if event.kind == "result":
                    _print(console, panel, show_traces)
        except KeyboardInterrupt:
            live.update(Text("stopping ..."))
            return INTERRUPTED
        finally:
            events.close()
    return 0


def _print(console: Console, panel: Panel, show_traces: bool) -> None:
    if show_traces and panel.result is not None:
        for trace in panel.result.traces:
            head, *text = trace_lines(trace)
            console.print(Text(head, style=LOOKS[trace.stopped_by][1]))
            console.print(Text("\n".join(text), style="bright_black"))
    console.print(panel)
    console.print(Rule(style="bright_black"))
