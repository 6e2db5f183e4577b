"""Today's date read from a story by patterns, apart from the code that writes the stories."""

import re
from calendar import monthrange
from collections.abc import Callable
from datetime import date, timedelta

from falcon_h1r.train.tasks.choices import NUMBER_WORDS
from falcon_h1r.train.tasks.date_scenes import HOLIDAYS, MONTHS, ORDINALS, WEEKDAYS, Scene

_MONTH = "|".join(name[:3] for name in MONTHS)
_DATE = rf"(?:\d+/\d+/\d{{4}}|(?:{_MONTH})[a-z]*\.? \d+(?:st|nd|rd|th)?, \d{{4}})"


def read_date(text: str) -> date:
    """A date as `spell_date` writes it; ValueError for a month that is none."""
    if "/" in text:
        month, day, year = map(int, text.split("/"))
    else:
        month = 1 + [name[:3] for name in MONTHS].index(text[:3])
        day, year = map(int, re.findall(r"\d+", text))
    return date(year, month, day)


def _number(word: str) -> int:
    return int(word) if word.isdigit() else NUMBER_WORDS.index(word)


def add_months(day: date, months: int) -> date:
    """The same day so many months on; ValueError when that month is too short."""
    total = 12 * day.year + day.month - 1 + months
    return date(total // 12, total % 12 + 1, day.day)


def _month_end(year: str, month: int) -> date:
    return date(int(year), month, monthrange(int(year), month)[1])


def _eve(year: str, hours: str) -> date:
    return date(int(year), 1, 1) - timedelta(days=(int(hours) + 12) // 24)


def _palindrome(year: str) -> date:
    backwards = year[::-1]
    return date(int(year), int(backwards[:2]), int(backwards[2:]))


_TODAY: tuple[tuple[str, Callable[..., date]], ...] = (
    (r"today is (\d\d)/(\d\d)/(\d{4}) to them",
     lambda day, month, year: date(int(year), int(month), int(day))),
    (rf"Today is ({'|'.join(HOLIDAYS)}) of (\d{{4}})",
     lambda name, year: date(int(year), *HOLIDAYS[name])),
    (r"Today is the (\w+) day of the (\w+) month of (\d{4})",
     lambda day, month, year: date(int(year), *(1 + ORDINALS.index(w) for w in (month, day)))),
    (r"Today is the last day of the (\w+) quarter of (\d{4})",
     lambda quarter, year: _month_end(year, 3 * (1 + ORDINALS.index(quarter)))),
    (rf"last day of ({_MONTH}) (\d{{4}})",
     lambda month, year: _month_end(year, 1 + [m[:3] for m in MONTHS].index(month))),
    (r"last day of (\d{4})", lambda year: _month_end(year, 12)),
    (r"(\d{4}) is coming in (\d+) hours", _eve),
    (r"palindrome day of (\d{4})", _palindrome),
)  # fmt: skip
"""Stories that tell today's date at once: pattern, and the date from its groups."""

_AWAY: tuple[tuple[str, str, str, int], ...] = (
    (r"(?:their|Today is \S+) (\d+)-year", "then", "years", 1),
    (r"actually (\w+) years", "then", "years", 1), (r"which is (\d+) days", "deadline", "days", -1),
    (r"delayed by (\w+) days?", "plan", "days", 1), (r"(\d+) days(?= have)", "then", "days", 1),
    (r"bought (\d+)", "then", "days", 1),
)  # fmt: skip
"""Stories that name a date and how far it is: pattern of the count, label, unit and sign."""


def read_story(story: str) -> Scene:
    """The story's date, how far from today it is, and where reading may stop.

    ValueError for a story of another kind.
    """
    for pattern, day in _TODAY:
        if match := re.search(pattern, story):
            aside = ""
            if "coming" in pattern:
                digits = match[1][::-1], str(int(match[1]) - 1)[::-1]
                aside = f"-1:p{digits[0]}-1=p{digits[1]}"
            return _scene(story, match.end(), day(*match.groups()), aside=aside)
    if match := re.search(r"(\w+) thinks .*?\. ((\w+) is correct)", story):
        said = re.search(rf"{match[3]} thinks today is ({_DATE})", story)
        if said is None:
            raise ValueError(f"nothing said by {match[3]} in {story!r}")
        return _scene(story, match.end(), read_date(said[1]), aside=said[0])
    if match := re.search(r"The first day of (\d{4}) is a (\w+), and .* first (\w+)", story):
        days = (WEEKDAYS.index(match[3]) - WEEKDAYS.index(match[2])) % 7
        return _scene(story, match.end(), date(int(match[1]), 1, 1), "first", "weekdays", days)
    if match := re.search(
        r"on the (\d+)\w\w of .* the (\w+) of (\d{4})\. .* (\d+)\w\w visit", story
    ):
        start = date(int(match[3]), 1 + MONTHS.index(match[2]), int(match[1]))
        return _scene(story, match.end(), start, "start", "months", int(match[4]) - 1)
    found = re.search(_DATE, story)
    if found is None:
        raise ValueError(f"no date in {story!r}")
    named, end = read_date(found[0]), found.end()
    for pattern, label, unit, sign in _AWAY:
        if match := re.search(pattern, story):
            return _scene(story, match.end(), named, label, unit, sign * _number(match[1]))
    if match := re.search(rf"It was {_DATE} a week ago", story):
        return _scene(story, match.end(), named, "then", "days", 7)
    if "Yesterday" in story:
        return _scene(story, end, named, "yesterday", "days", 1)
    if re.search(r"Tomorrow|tomorrow", story):
        return _scene(story, end, named, "tomorrow", "days", -1)
    return _scene(story, end, named)


def _scene(
    story: str,
    end: int,
    named: date,
    label: str = "today",
    unit: str = "days",
    step: int = 0,
    aside: str = "",
) -> Scene:
    return Scene(text=story, until=story[:end], named=named, label=label, unit=unit, step=step,
                 aside=aside)  # fmt: skip


def today(scene: Scene) -> date:
    """The date of today by calendar arithmetic."""
    if scene.unit in ("days", "weekdays"):
        return scene.named + timedelta(days=scene.step)
    return add_months(scene.named, scene.step * (12 if scene.unit == "years" else 1))
