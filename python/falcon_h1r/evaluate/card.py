"""Writes measured tables into a model card, each between two marks. Imports no torch."""

from pathlib import Path

from falcon_h1r.errors import ConfigError
from falcon_h1r.evaluate.records import write_whole
from falcon_h1r.evaluate.results import EvalResult
from falcon_h1r.evaluate.tables import accuracy_table, markdown, speed_table

EVALUATION, CALIBRATION = "evaluation", "calibration"
"""Sections of a card: each stands between `<!-- NAME -->` and `<!-- /NAME -->`."""


def card_section(result: EvalResult) -> str:
    """Return what a card says of a result: how it was measured, accuracy by task and level, cost.

    In Markdown, without a heading.
    """
    config, machine = result.header["config"], result.header.get("machine", {})
    command = result.header.get("command")
    how = (
        "replayed over these traces" if config.get("replay") else "online, the same budget and seed"
    )
    lines = [
        f"Temperature {config['temperature']}, 95 % intervals over problems in brackets. pass@1: "
        f"mean over {result.budget} traces. Majority: their plain vote, all in full. DeepConf: "
        f"{how} (keep {config['deepconf']['keep']}); tokens saved are measured against the full "
        "budget.",
        *([f"Printed by `{command}`"] if command else []),
        f"on {machine.get('num_cores')} cores of {machine.get('processor')}, "
        f"{result.header.get('date', '')}.",
    ]
    return "\n\n".join(
        ["\n".join(lines), markdown(accuracy_table(result)), markdown(speed_table(result))]
    )


def write_card(path: str | Path, result: EvalResult) -> None:
    """Replace the evaluation of a card; the rest stays to the byte.

    Raises ConfigError when the card has no marks.
    """
    write_section(path, EVALUATION, card_section(result))


def check_card(path: str | Path, section: str) -> None:
    """Raise ConfigError unless the card is there and has the section's marks."""
    _parts(Path(path), section)


def write_section(path: str | Path, section: str, text: str) -> None:
    """Replace what stands between a section's marks; the rest stays to the byte.

    Raises ConfigError when the card has no marks.
    """
    path = Path(path)
    before, after = _parts(path, section)
    write_whole(path, f"{before}\n{text}\n{after}")


def _parts(path: Path, section: str) -> tuple[str, str]:
    """The card up to the end of a section's first mark, and from its second mark on."""
    start, end = f"<!-- {section} -->", f"<!-- /{section} -->"
    if not path.is_file():
        raise ConfigError(f"no such card: {str(path)!r}; name a Markdown file with the marks")
    before, has_start, rest = path.read_text(encoding="utf-8").partition(start)
    _, has_end, after = rest.partition(end)
    if not has_start or not has_end:
        raise ConfigError(
            f"{path} has no place for the table; write the lines {start} and {end} where it goes"
        )
    return before + start, end + after
