"""The lines that go from one date to another, days one after another and numbers reversed.

A sum beyond the 28th is followed by a line a month: its year and length, and either the length
taken off or "ok". A difference below one first gains the length of the month before:

    +5:p03+5=p53
    09/1896 03:p53-03=p5
    10/1896 13:p5 ok

    -01:p9 less
    08/1909 13:p9+13=p04
    -01:p04-01=p03
"""

from calendar import monthrange
from collections.abc import Sequence
from datetime import date

from falcon_h1r.train.tasks.choices import LETTERS
from falcon_h1r.train.tasks.date_scenes import WEEKDAYS
from falcon_h1r.train.tasks.steps import reverse


def us(day: date) -> str:
    """A date as MM/DD/YYYY."""
    return f"{day.month:02d}/{day.day:02d}/{day.year:04d}"


def shift(lines: list[str], start: date, unit: str, step: int) -> date:
    """Go `step` days, weekdays, months or years on; ValueError for no such date."""
    if unit == "weekdays":
        names = [(WEEKDAYS * 2)[start.weekday() + i] for i in range(step + 1)]
        lines.append(", ".join(f"{name} {i}" for i, name in enumerate(names, 1)))
        return start.replace(day=start.day + step)
    if unit == "months":
        return _shift_months(lines, start, step)
    if unit == "years":
        sign, number = "-+"[step > 0], reverse(step)
        year = start.year + step
        lines.append(f"{sign}{number} years:p{reverse(start.year)}{sign}{number}=p{reverse(year)}")
        return start.replace(year=year)
    return _add_days(lines, start, step) if step >= 0 else _take_days(lines, start, -step)


def _shift_months(lines: list[str], start: date, step: int) -> date:
    passed = []
    month, year = start.month, start.year
    for count in range(1, abs(step) + 1):
        total = 12 * year + month - 1 + (1 if step > 0 else -1)
        month, year = total % 12 + 1, total // 12
        passed.append(f"{count} {month:02d}/{year}")
    lines.append(f"{step:+d} months: {', '.join(passed)}")
    return date(year, month, start.day)


def _add_days(lines: list[str], start: date, step: int) -> date:
    month, year, total = start.month, start.year, start.day + step
    lines.append(f"+{reverse(step)}:p{reverse(start.day)}+{reverse(step)}=p{reverse(total)}")
    if total <= 28:
        return date(year, month, total)
    while True:
        length = monthrange(year, month)[1]
        head = f"{month:02d}/{year} {reverse(length)}:p{reverse(total)}"
        if total <= length:
            lines.append(f"{head} ok")
            return date(year, month, total)
        lines.append(f"{head}-{reverse(length)}=p{reverse(total - length)}")
        total -= length
        month, year = month % 12 + 1, year + month // 12


def _take_days(lines: list[str], start: date, step: int) -> date:
    month, year, total = start.month, start.year, start.day
    if total <= step:
        lines.append(f"-{reverse(step)}:p{reverse(total)} less")
    while total <= step:
        month, year = (month - 2) % 12 + 1, year - (month == 1)
        days = reverse(length := monthrange(year, month)[1])
        lines.append(
            f"{month:02d}/{year} {days}:p{reverse(total)}+{days}=p{reverse(total + length)}"
        )
        total += length
    left = total - step
    lines.append(f"-{reverse(step)}:p{reverse(total)}-{reverse(step)}=p{reverse(left)}")
    return date(year, month, left)


def try_options(lines: list[str], options: Sequence[str], wanted: str) -> None:
    """Copy option after option: "no" behind the first of month, day and year that is another."""
    for letter, option in zip(LETTERS, options, strict=False):
        parts = option.split("/")
        for i, (part, right) in enumerate(zip(parts, wanted.split("/"), strict=True), 1):
            if part != right:
                lines.append(f"({letter}) {'/'.join(parts[:i])} no")
                break
        else:
            lines.append(f"({letter}) {option} yes")
            return
