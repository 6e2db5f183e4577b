"""Written arithmetic for chains of thought: numbers least significant digit first.

`reverse(45)` is "54". A tally keeps two unsigned sums, `p` (plus) and `n` (minus), so that no step
adds numbers of different sign. Each line first copies its term, so that looking it up and adding
it are two steps; one ordered subtraction joins the sums at the end:

    17 + 25 - 9   ->   +71:p71 / +52:p71+52=p24 / -9:n9 / p24-n9=p33
"""

import re

Signed = tuple[int, int]
"""(sign +1 or -1, magnitude): minus zero keeps its sign, so that each step stays local."""

_STEP = re.compile(r"(?=.*\d)(?:[^:]*:)?[pnNSEW+*/\d-]+=[pnNSEW+*/\d-]+")
"""What claims to be an equation of reversed numbers."""
_NUMBER = r"(0|\d{0,60}[1-9])"
"""Reversed digits: none of them is a zero in front of the number."""
_EQUATION = re.compile(
    rf"(?:([^:]*):)?([pnNSEW+-]?){_NUMBER}([+*/-])([pn+-]?){_NUMBER}=([pnNSEW+-]?)(\d{{1,120}})"
)
_COPY = re.compile(r"([+-])(\d+)(?: years)?|(\d+) (?:forward|right|backward|left|steps)")
_THING = re.compile(r"(?:- )?[A-Za-z][A-Za-z' -]+(?: \d+)?|\d\d|\d\d/\d{4} \d\d")
"""What else stands before a colon: a thing that is counted, a name with a number, a month, a month
of a year with its length."""
_SIGNS = {"p": 1, "+": 1, "n": -1, "-": -1}


def reverse(number: int) -> str:
    """Digits of |number|, least significant first."""
    return str(abs(number))[::-1]


def signed(number: int) -> Signed:
    """Split a number into sign and magnitude."""
    return (-1 if number < 0 else 1), abs(number)


def value(number: Signed) -> int:
    """The number itself."""
    return number[0] * number[1]


def plain(number: Signed) -> str:
    """Sign and reversed digits: (-1, 43) is "-34"."""
    return ("-" if number[0] < 0 else "+") + reverse(number[1])


def show(number: Signed) -> str:
    """Label and reversed digits: (-1, 43) is "n34"."""
    return ("n" if number[0] < 0 else "p") + reverse(number[1])


class Tally:
    """Adds signed terms one by one, writing a line for each."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.sums: dict[int, int] = {}

    def add(self, term: Signed) -> None:
        """Write the line that adds `term` to the sum of its sign."""
        sign, magnitude = term
        if sign in self.sums:
            total = self.sums[sign] + magnitude
            old = show((sign, self.sums[sign]))
            new = show((sign, total))
            self.lines.append(f"{plain(term)}:{old}+{reverse(magnitude)}={new}")
        else:
            total = magnitude
            self.lines.append(f"{plain(term)}:{show(term)}")
        self.sums[sign] = total

    def result(self) -> Signed:
        """Join the two sums, the larger first; the last line written ends in the result."""
        if len(self.sums) == 1:
            return next(iter(self.sums.items()))
        plus, minus = (1, self.sums[1]), (-1, self.sums[-1])
        large, small = (plus, minus) if plus[1] >= minus[1] else (minus, plus)
        total = (large[0], large[1] - small[1])
        self.lines.append(f"{show(large)}-{show(small)}={show(total)}")
        return total


def add_terms(lines: list[str], terms: list[Signed]) -> Signed:
    """Tally `terms` in order and return their sum."""
    tally = Tally(lines)
    for term in terms:
        tally.add(term)
    return tally.result()


def multiply(lines: list[str], a: int, b: int) -> int:
    """Product of two magnitudes: single digits by table, others by digit-expanded partial products.

    Partial products carry their zeros (in front, since digits are reversed) and are added at once.
    """
    if a < 10 and b < 10:
        lines.append(f"{a}*{b}={reverse(a * b)}")
    else:
        lines.append(f"{reverse(a)}*{reverse(b)}")
        _expand(lines, a, b)
    return a * b


def multiply_signed(lines: list[str], a: Signed, b: Signed) -> Signed:
    """Product with the signs written out, so that the sign of the result is found in the line.

    A long product decides its sign in its first line, beside the factors, and copies it at the end.
    """
    product = (a[0] * b[0], a[1] * b[1])
    if a[1] < 10 and b[1] < 10:
        lines.append(f"{plain(a)}*{plain(b)}={plain(product)}")
    else:
        lines.append(f"{plain(a)}*{plain(b)}:{plain(product)[0]}")
        _expand(lines, a[1], b[1])
        lines.append(plain(product))
    return product


def _expand(lines: list[str], a: int, b: int) -> None:
    total: int | None = None
    for j, v in enumerate(map(int, reverse(b))):
        for i, u in enumerate(map(int, reverse(a))):
            partial = u * v * 10 ** (i + j)
            lines.append(f"{u}*{v}={'0' * (i + j) if u * v else ''}{reverse(u * v)}")
            if total is None:
                total = partial
            else:
                lines.append(f"{reverse(total)}+{reverse(partial)}={reverse(total + partial)}")
                total += partial
    assert total == a * b


def number_partials(a: int, b: int) -> int:
    """How many partial products `multiply` writes."""
    return len(str(a)) * len(str(b))


def is_step(line: str) -> bool:
    """Whether a line claims an equation of reversed numbers, so that `check_steps` can judge it."""
    return _STEP.fullmatch(line) is not None


def check_steps(thought: str) -> bool:
    """Whether every line of the thought that claims an equation of reversed numbers holds."""
    return all(_holds(line) for line in thought.split("\n") if is_step(line))


def _holds(line: str) -> bool:
    """Whether a line is an equation as the chains write it: copy, labels and digits.

    A sum keeps its label; a difference joins unlike labels, the larger first, or keeps one label;
    products and quotients multiply their signs. The term copied in front is the one that is added.
    """
    match = _EQUATION.fullmatch(line)
    if match is None:
        return False
    copied, *labels, found = match[1], match[2], match[5], match[7], match[8]
    a, operator, b = match[3], match[4], match[6]
    x, y = int(a[::-1]), int(b[::-1])
    if not _labels_agree(operator, labels) or not _is_copy(copied, operator, labels, b):
        return False
    if operator == "*":
        shifted = len(a) == len(b) == 1 and x * y > 0 and not any(labels)
        shift = found.removesuffix(reverse(x * y))
        return shift != found and not (shift.strip("0") if shifted else shift)
    if operator == "/":
        return y > 0 and x % y == 0 and found == reverse(x // y)
    if operator == "+":
        return found == reverse(x + y)
    return x >= y and found == reverse(x - y) and (x > y or labels[:2] != ["n", "p"])


def _labels_agree(operator: str, labels: list[str]) -> bool:
    """Whether the labels of the two numbers and of the result belong together."""
    first, second, result = labels
    if operator in "*/" and any(labels):
        allowed = "+-" if operator == "*" else "pn"
        signs = [_SIGNS[label] for label in labels if label and label in allowed]
        return len(signs) == 3 and signs[0] * signs[1] == signs[2]
    if first != result or first in tuple("+-"):
        return False
    return second == "" or (operator == "-" and {first, second} == {"p", "n"})


def _is_copy(copied: str | None, operator: str, labels: list[str], term: str) -> bool:
    """Whether what stands before the colon is the term that the equation adds or takes off.

    That a thing is the right one, and its number, belongs to the family's own verifier.
    """
    way = labels[0] + operator + labels[1]
    if copied is None:
        return way not in ("N+", "S+", "E+", "W+", "p-", "n-")
    if (match := _COPY.fullmatch(copied)) is None:
        return _THING.fullmatch(copied) is not None and way in ("+", "p+", "p-")
    ways = {"+": ("p+",), "-": ("n+", "p-"), None: ("N+", "S+", "E+", "W+")}[match[1]]
    return way in ways and term == (match[2] or match[3])


def last_number(thought: str) -> int:
    """The signed number at the very end of a thought: reversed digits behind p, n, + or -."""
    match = re.search(r"([pn+-]?)(\d+)$", thought)
    assert match is not None
    return int(match[2][::-1]) * (-1 if match[1] in ("n", "-") else 1)
