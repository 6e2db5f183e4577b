"""Files with tensors explain their letters; kernels name the oracle they must equal."""

import ast
import re

from falcon_h1r.ops import reference

SHAPE = re.compile(r"\[([A-Z](?: ?[+*-] ?[\w()]+)?(?:, ?(?:[A-Z]|\d|[A-Z] ?[+*-] ?[\w()]+))*)\]")
EXEMPT = ("tests/", "benches/")


def shapes_of(text: str) -> list[str]:
    """Shapes written in docstrings and comments: `[T, H, P]`, `[S + 1]`."""
    written = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    strings = [value for value in written if isinstance(value, str)]
    comments = re.findall(r"#(.*)", text)
    return [shape for part in strings + comments for shape in SHAPE.findall(part)]


def letters_of(shape: str) -> set[str]:
    return set(re.findall(r"\b[A-Z]\b", shape))


def test_shape_letters_are_in_a_legend(sources: dict[str, str]) -> None:
    unexplained = {}
    for path, text in sources.items():
        if not path.endswith(".py") or path.startswith(EXEMPT) or "import torch" not in text:
            continue
        docstring = ast.get_docstring(ast.parse(text)) or ""
        legend = docstring.partition("Legend:")[2]
        letters = set().union(*map(letters_of, shapes_of(text)), set())
        if lacking := {letter for letter in letters if not re.search(rf"\b{letter}\b", legend)}:
            unexplained[path] = sorted(lacking)
    assert unexplained == {}


def test_triton_kernels_name_their_oracle(sources: dict[str, str]) -> None:
    nameless = []
    for path, text in sources.items():
        if not path.startswith("triton_kernels/") or "@triton.jit" not in text:
            continue
        docstring = ast.get_docstring(ast.parse(text)) or ""
        named = re.findall(r"reference\.(\w+)", docstring)
        if not named or any(not hasattr(reference, name) for name in named):
            nameless.append(path)
    assert nameless == []


def test_the_search_sees_shapes() -> None:
    assert shapes_of("x = 1  # [T, H, P]\n'''y [S + 1] and z[V]'''\n") == ["S + 1", "V", "T, H, P"]
