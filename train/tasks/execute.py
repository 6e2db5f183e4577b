"""Independent solvers for the verifiers: expressions are read back from the problem's text."""

import ast
import operator
import re
from collections.abc import Callable

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


def _walk(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=bool(truth)):
            return int(truth)
        case ast.Constant(value=int(number)):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_walk(inner)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return int(not _walk(inner))
        case ast.BoolOp(op=op, values=values):
            results = [bool(_walk(item)) for item in values]
            return int(all(results) if isinstance(op, ast.And) else any(results))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_walk(left), _walk(right))
    raise ValueError(f"not an expression of numbers and truth values: {ast.dump(node)}")


def evaluate_expression(text: str) -> int:
    """Value of an expression of integers, + - *, brackets, True, False, not, and, or."""
    return _walk(ast.parse(text.strip(), mode="eval").body)


def find_arithmetic(text: str) -> str:
    """The arithmetic expression inside a problem's text, its words turned into signs."""
    for word, sign in (
        ("product of", ""), ("Multiply", ""), ("plus", "+"), ("minus", "-"), ("times", "*"),
        ("and", "*"), ("by", "*"), ("\u00d7", "*"), ("x", "*"),
    ):  # fmt: skip
        text = re.sub(rf"(?<![A-Za-z]){word}(?![A-Za-z])", sign, text)
    match = re.search(r"[-(]*\d[\d\s+\-*()]*", text)
    if match is None:
        raise ValueError(f"no expression in {text!r}")
    return match[0]


def evaluate_arithmetic(text: str) -> int:
    """Find the arithmetic expression inside a problem's text and evaluate it."""
    return evaluate_expression(find_arithmetic(text))


def read_terms(expression: str) -> list[int]:
    """The terms of a sum and difference, signs taken in: "17 - 9 + -2" is [17, -9, -2]."""
    terms: list[int] = []
    node = ast.parse(expression.strip(), mode="eval").body
    while isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        terms.append(_walk(node.right) * (-1 if isinstance(node.op, ast.Sub) else 1))
        node = node.left
    return [_walk(node), *terms[::-1]]
