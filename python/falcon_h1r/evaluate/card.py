"""Writes the measured table into a model card, between two marks. Imports no torch."""

from pathlib import Path

from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.records import write_whole
from falcon_h1r.evaluate.results import EvalResult
from falcon_h1r.evaluate.tables import accuracy_table, markdown, speed_table

START, END = "<!-- evaluation -->", "<!-- /evaluation -->"


def card_section(result: EvalResult) -> str:
    """Return what a card says of a result: how it was measured, accuracy by task and level, cost.

    In Markdown, without a heading.
    """
    config, machine = result.header["config"], result.header.get("machine", {})
    command = result.header.get("command")
    lines = [
        f"Temperature {config['temperature']}, 95 % intervals over problems in brackets. pass@1: "
        f"mean over {result.budget} traces. Majority: their plain vote, all in full. DeepConf: "
        f"online, the same budget and seed (keep {config['deepconf']['keep']}); tokens saved are "
        "measured against the full budget.",
        *([f"Printed by `{command}`"] if command else []),
        f"on {machine.get('num_cores')} cores of {machine.get('processor')}, "
        f"{result.header.get('date', '')}.",
    ]
    return "\n\n".join(
        ["\n".join(lines), markdown(accuracy_table(result)), markdown(speed_table(result))]
    )


def write_card(path: str | Path, result: EvalResult) -> None:
    """Replace what stands between the marks of a card; the rest stays to the byte.

    Raises ConfigError when the card has no marks.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ConfigError(
            f"{path} has no place for the table; write the lines {START} and {END} where it goes"
        )
    write_whole(path, f"{before}{START}\n{card_section(result)}\n{END}{after}")
