"""Written arithmetic for chains of thought: numbers least significant digit first.

`reverse(45)` is "54". A tally keeps two unsigned sums, `p` (plus) and `n` (minus), so that no step
adds numbers of different sign; one ordered subtraction joins them at the end:

    17 + 25 - 9   ->   p71 / p71+52=p24 / n9 / p24-n9=p33
"""

import re

Signed = tuple[int, int]
"""(sign +1 or -1, magnitude): minus zero keeps its sign, so that each step stays local."""

_SUM = re.compile(r"^([pnNSEW]?)(\d+)([+\-*/])([pnNSEW]?)(\d+)=([pnNSEW]?)(\d+)$")


def reverse(number: int) -> str:
    """Digits of |number|, least significant first."""
    return str(abs(number))[::-1]


def signed(number: int) -> Signed:
    """Split a number into sign and magnitude."""
    return (-1 if number < 0 else 1), abs(number)


def value(number: Signed) -> int:
    """The number itself."""
    return number[0] * number[1]


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
            self.lines.append(f"{old}+{reverse(magnitude)}={show((sign, total))}")
        else:
            total = magnitude
            self.lines.append(show(term))
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
        return a * b
    lines.append(f"{reverse(a)}*{reverse(b)}")
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
    return total


def number_partials(a: int, b: int) -> int:
    """How many partial products `multiply` writes."""
    return len(str(a)) * len(str(b))


def check_steps(thought: str) -> bool:
    """Whether every line of the thought that is an equation of reversed numbers holds.

    A partial product may carry zeros in front (a shift by powers of ten): it holds when the
    product of the two digits is the number without that shift.
    """
    for line in thought.split("\n"):
        match = _SUM.match(line)
        if match is None:
            continue
        a, operator, b, c = (match[i] for i in (2, 3, 5, 7))
        x, y, z = (int(digits[::-1]) for digits in (a, b, c))
        if operator == "*" and len(a) == len(b) == 1:
            product = x * y
            if product == 0 and z == 0:
                continue
            while z > product and z % 10 == 0:
                z //= 10
            holds = product == z
        else:
            holds = {"+": x + y, "-": x - y, "*": x * y, "/": x // y if y else -1}[operator] == z
            if operator == "/":
                holds = holds and x % y == 0
        if not holds:
            return False
    return True


def last_number(thought: str) -> int:
    """The signed number at the very end of a thought (reversed digits behind a label p or n)."""
    match = re.search(r"([pn]?)(\d+)$", thought)
    assert match is not None
    return int(match[2][::-1]) * (-1 if match[1] == "n" else 1)
