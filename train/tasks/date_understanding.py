"""Dates in BIG-Bench-Hard's wording (date_understanding): which date is some days off?

The chain writes the date the text names, goes to today and from there to the date asked for.
Days are added with reversed digits; a sum beyond the month is reduced by the month's length, a
difference below one first gains the length of the month before:

    yesterday 12/31/1929
    +1:p13+1=p23
    12 13:p23-13=p1
    today 01/01/1930
"""

import re
from calendar import monthrange
from datetime import date, timedelta
from random import Random

from falcon_h1r.train.tasks.base import Problem
from falcon_h1r.train.tasks.choices import LETTERS, NUMBER_WORDS, read_options, render_options
from falcon_h1r.train.tasks.date_scenes import (
    HOLIDAYS,
    MONTHS,
    ORDINALS,
    WEEKDAYS,
    Scene,
    draw_scene,
)
from falcon_h1r.train.tasks.steps import check_steps, reverse

_QUESTIONS: tuple[tuple[str, str, int, int], ...] = (
    ("today", "days", 0, 3),
    ("tomorrow", "days", 1, 4), ("yesterday", "days", -1, 4), ("24 hours later", "days", 1, 2),
    ("one week ago from today", "days", -7, 4), ("one week from today", "days", 7, 4),
    ("10 days ago", "days", -10, 4), ("a month ago", "months", -1, 4),
    ("one year ago from today", "years", -1, 4), ("two weeks from today", "days", 14, 1),
    ("3 days ago", "days", -3, 1), ("5 days from today", "days", 5, 1),
    ("a month from today", "months", 1, 1), ("one year from today", "years", 1, 1),
)  # fmt: skip


def shift(lines: list[str], start: date, unit: str, step: int) -> date:
    """Go `step` days, months or years on, writing the lines; ValueError for no such date."""
    if unit == "years":
        return start.replace(year=start.year + step)
    if unit == "months":
        months = start.month - 1 + step
        return start.replace(year=start.year + months // 12, month=months % 12 + 1)
    day, month, year = start.day, start.month, start.year
    if step >= 0:
        total = day + step
        lines.append(f"+{reverse(step)}:p{reverse(day)}+{reverse(step)}=p{reverse(total)}")
        while total > (length := monthrange(year, month)[1]):
            left = total - length
            lines.append(f"{month:02d}:p{reverse(total)}-{reverse(length)}=p{reverse(left)}")
            total, month = left, month + 1
            if month == 13:
                year, month = year + 1, 1
        return date(year, month, total)
    total, back = day, -step
    while total <= back:
        month -= 1
        if month == 0:
            year, month = year - 1, 12
        length = monthrange(year, month)[1]
        lines.append(f"{month:02d}:p{reverse(total)}+{reverse(length)}=p{reverse(total + length)}")
        total += length
    lines.append(f"-{reverse(back)}:p{reverse(total)}-{reverse(back)}=p{reverse(total - back)}")
    return date(year, month, total - back)


def _us(day: date) -> str:
    return f"{day.month:02d}/{day.day:02d}/{day.year:04d}"


def _think(scene: Scene, unit: str, step: int) -> tuple[list[str], date]:
    lines = [f"{scene.label} {_us(scene.named)}"]
    today = scene.named
    if scene.step:
        if scene.unit != "days":
            lines.append(f"+{scene.step} {scene.unit}")
        today = shift(lines, today, scene.unit, scene.step)
        lines.append(f"today {_us(today)}")
    if step == 0:
        return lines, today
    if unit != "days":
        lines.append(f"{step:+d} {unit}")
    return lines, shift(lines, today, unit, step)


def _distractors(rng: Random, answer: date, others: list[date]) -> list[str]:
    """Dates that differ in day, month or year, and dates the text itself names."""
    found: list[str] = []
    count = rng.choice((4, 5, 5, 5))
    pool = [_us(d) for d in others]
    while len(found) < count:
        kind = rng.random()
        if pool and kind < 0.2:
            text = pool.pop()
        elif kind < 0.55:
            text = _us(answer + timedelta(days=rng.choice((-1, 1, 1, -1, 2, -2, 6, -8, 10, -30))))
        elif kind < 0.75:
            text = _us(answer.replace(year=answer.year + rng.choice((-1, 1, -10, 10, 60, -20))))
        elif kind < 0.9 and answer.day < 13:
            text = _us(answer.replace(month=answer.day, day=answer.month))
        else:
            text = _us(answer.replace(month=rng.randint(1, 12), day=rng.randint(1, 28)))
        if text != _us(answer) and text not in found:
            found.append(text)
    return found


def generate(rng: Random, level: int) -> Problem:
    """Today is named directly (1), by a story (2), or by a story of many days (3)."""
    while True:
        scene = draw_scene(rng, level)
        words, unit, step, _ = rng.choices(_QUESTIONS, [q[3] for q in _QUESTIONS])[0]
        try:
            lines, answer = _think(scene, unit, step)
            others = _distractors(rng, answer, [scene.named])
            break
        except ValueError:  # February 29 a year on, or the 31st of a month of 30 days
            continue
    options = [*others, _us(answer)]
    rng.shuffle(options)
    letter = LETTERS[options.index(_us(answer))]
    lines.append(f"{_us(answer)} {letter}")
    text = f"{scene.text} What is the date {words} in MM/DD/YYYY?"
    return Problem(
        problem=f"{text}\n{render_options(options)}",
        thought="\n".join(lines),
        answer=f"({letter})",
        family="date_understanding",
        level=level,
        keys=(f"date {scene.label} {scene.named} {scene.step} {scene.unit} {step} {unit}",),
    )


_MONTH = "|".join(name[:3] for name in MONTHS)
_DATE = re.compile(
    rf"(\d+)/(\d+)/(\d{{4}})|((?:{_MONTH})[a-z]*)\.? (\d+)(?:st|nd|rd|th)?, (\d{{4}})"
)


def _dates(text: str) -> list[date]:
    found: list[date] = []
    for match in _DATE.finditer(text):
        if match[1]:
            if int(match[2]) <= monthrange(int(match[3]), int(match[1]))[1]:
                found.append(date(int(match[3]), int(match[1]), int(match[2])))
        else:
            month = 1 + [name[:3] for name in MONTHS].index(match[4][:3])
            found.append(date(int(match[6]), month, int(match[5])))
    return found


def _number(word: str) -> int:
    return int(word) if word.isdigit() else NUMBER_WORDS.index(word)


def _add_months(day: date, months: int) -> date:
    total = 12 * day.year + day.month - 1 + months
    return date(total // 12, total % 12 + 1, day.day)


def _month_end(year: int, month: int) -> date:
    return date(year, month, monthrange(year, month)[1])


def _read_today(text: str) -> date:
    """Today's date by the story of the text; ValueError for a story of another kind."""
    if match := re.search(r"today is (\d\d)/(\d\d)/(\d{4}) to them", text):
        return date(int(match[3]), int(match[2]), int(match[1]))
    if match := re.search(r"\. (\w+) is correct", text):
        return _dates(text.split(f"{match[1]} thinks today is", 1)[1])[0]
    if match := re.search(r"Today is ([^.]+) of (\d{4})\.", text):
        if match[1] in HOLIDAYS:
            return date(int(match[2]), *HOLIDAYS[match[1]])
        if numbers := re.fullmatch(r"the (\w+) day of the (\w+) month", match[1]):
            day, month = (1 + ORDINALS.index(w) for w in numbers.groups())
            return date(int(match[2]), month, day)
        if quarter := re.fullmatch(r"the last day of the (\w+) quarter", match[1]):
            return _month_end(int(match[2]), 3 * (1 + ORDINALS.index(quarter[1])))
    if match := re.search(r"last day of (?:(\w{3}) )?(\d{4})\.", text):
        month = 12 if match[1] is None else 1 + [m[:3] for m in MONTHS].index(match[1])
        return _month_end(int(match[2]), month)
    if match := re.search(r"(\d{4}) is coming in (\d+) hours", text):
        return date(int(match[1]), 1, 1) - timedelta(days=(int(match[2]) + 12) // 24)
    if match := re.search(r"palindrome day of (\d)(\d)(\d)(\d)", text):
        a, b, c, d = match.groups()
        return date(int(a + b + c + d), int(d + c), int(b + a))
    if match := re.search(r"The first day of (\d{4}) is a (\w+), and .* first (\w+) of", text):
        days = (WEEKDAYS.index(match[3]) - WEEKDAYS.index(match[2])) % 7
        return date(int(match[1]), 1, 1 + days)
    if match := re.search(
        r"on the (\d+)\w\w of .* the (\w+) of (\d{4})\. .* (\d+)\w\w visit", text
    ):
        start = date(int(match[3]), 1 + MONTHS.index(match[2]), int(match[1]))
        return _add_months(start, int(match[4]) - 1)
    named = _dates(text)
    if not named:
        raise ValueError(f"no date in {text!r}")
    return _apply(named[0], text)


def _apply(day: date, text: str) -> date:
    """Go from the date named in the text to today."""
    if match := re.search(r"their (\d+)-year|(\d+)-year-old|actually (\w+) years", text):
        years = _number(next(filter(None, match.groups())))
        return day.replace(year=day.year + years)
    if match := re.search(r"which is (\d+) days away", text):
        return day - timedelta(days=int(match[1]))
    if match := re.search(r"delayed by (\w+) day|(\d+) days have|bought (\d+) ", text):
        return day + timedelta(days=_number(next(filter(None, match.groups()))))
    if re.search(r"It was .* a week ago", text):
        return day + timedelta(days=7)
    if re.search(r"Yesterday", text):
        return day + timedelta(days=1)
    if re.search(r"Tomorrow|tomorrow,? ", text):
        return day - timedelta(days=1)
    return day


def solve(text: str) -> str:
    """The date asked for, by calendar arithmetic on the text."""
    story, question = text.split("\nOptions:")[0].split(" What is the date ")
    today = _read_today(story)
    words = question.removesuffix(" in MM/DD/YYYY?")
    unit, step = next((u, s) for w, u, s, _ in _QUESTIONS if w == words)
    if unit == "days":
        return _us(today + timedelta(days=step))
    return _us(_add_months(today, step * (12 if unit == "years" else 1)))


def _walk(text: str, lines: list[str]) -> list[str]:
    """The lines from the first date to the last, written once more from the text and that date."""
    story, question = text.split("\nOptions:")[0].split(" What is the date ")
    today = _read_today(story)
    words = question.removesuffix(" in MM/DD/YYYY?")
    unit, step = next((u, s) for w, u, s, _ in _QUESTIONS if w == words)
    label, shown = lines[0].split()
    named = date(int(shown[6:]), int(shown[:2]), int(shown[3:5]))
    away = {"today": 0, "tomorrow": -1, "yesterday": 1, "first": (today - named).days}.get(label)
    known = away is not None or label == "start" or named in _dates(story)
    if not known or (away is not None and named + timedelta(days=away) != today):
        return []
    count, passed = (today - named).days, "days"
    if len(lines) > 1 and lines[1].endswith(("years", "months")) and label != "today":
        passed = lines[1].split()[1]
        months = 12 * (today.year - named.year) + today.month - named.month
        count = months // 12 if passed == "years" else months
    scene = Scene(text=story, named=named, label=label, unit=passed, step=count)
    walked, answer = _think(scene, unit, step)
    return [*walked, f"{_us(answer)} {lines[-1][-1]}"]


def verify(problem: Problem) -> bool:
    """Read the story by patterns and use the calendar; the walk is written once more."""
    value = solve(problem.problem)
    options = read_options(problem.problem)
    if options.count(value) != 1:
        return False
    letter = LETTERS[options.index(value)]
    lines = problem.thought.split("\n")
    return (
        problem.answer == f"({letter})"
        and lines[-1] == f"{value} {letter}"
        and lines == _walk(problem.problem, lines)
        and check_steps(problem.thought)
    )
