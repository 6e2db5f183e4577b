"""Documents that stay true: links lead somewhere, commands exist, examples compile."""

import ast
import re
import subprocess
from pathlib import Path


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def documents(root: Path, tracked: list[str]) -> dict[str, str]:
    return {path: (root / path).read_text() for path in tracked if path.endswith(".md")}


def test_relative_links_lead_somewhere(root: Path, tracked: list[str]) -> None:
    broken = [
        f"{path}: {target}"
        for path, text in documents(root, tracked).items()
        for target in re.findall(r"\]\(([^)#\s]+)\)", text)
        if "://" not in target and not ((root / path).parent / target).exists()
    ]
    assert broken == []


def test_every_decision_is_linked(root: Path, tracked: list[str]) -> None:
    index = (root / "docs/architecture.md").read_text()
    decisions = [Path(p).name for p in tracked if p.startswith("docs/decisions/")]
    assert decisions
    assert [name for name in decisions if f"decisions/{name}" not in index] == []
    assert [name for name in decisions if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)] == []


def test_the_readme_opens_with_two_commands(root: Path) -> None:
    first = blocks((root / "README.md").read_text(), "sh")[0]
    assert first.split("\n")[:2] == ["make solve", "make test"]


def test_make_commands_in_documents_exist(root: Path, tracked: list[str]) -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    targets = set(re.findall(r"^make (\S+)", listed, flags=re.M))
    assert {"setup", "solve", "test", "lint", "wheel", "clean"} <= targets
    for path, text in documents(root, tracked).items():
        named = {
            name
            for block in blocks(text, "sh")
            for name in re.findall(r"^make ([a-z-]+)", block, flags=re.M)
        }
        named |= set(re.findall(r"`make ([a-z-]+)`", text))
        assert named <= targets, path


def test_python_blocks_parse(root: Path, tracked: list[str]) -> None:
    for text in documents(root, tracked).values():
        for block in blocks(text, "python"):
            ast.parse(block)


def test_the_architecture_names_what_exists(root: Path) -> None:
    """`path:name` is a definition in that file; a bare `name` beside it is one in the last file."""
    text = (root / "docs/architecture.md").read_text().partition("## The life of a prompt")[2]
    text = text.partition("## Decisions")[0]
    homes = (root, root / "python/falcon_h1r")
    missing, source = [], ""
    for path, name, bare in re.findall(r"`([\w/]+\.(?:py|rs))(?::(\w+))?`|`(_?[a-z_]+)`", text):
        if path:
            found = [home / path for home in homes if (home / path).is_file()]
            source = found[0].read_text() if found else ""
            if not found:
                missing.append(path)
        wanted = name or bare
        is_code = bool(name) or "_" in bare
        if wanted and is_code and not re.search(rf"(?:def|class|fn|struct) {wanted}\b", source):
            missing.append(f"{path or 'there'}:{wanted}")
    assert missing == []


def test_the_architecture_maps_files_that_exist(root: Path) -> None:
    """A row of the map starts with a folder; what it names is in that folder or from the root."""
    text = (root / "docs/architecture.md").read_text().partition("Inside the rooms:")[2]
    rows = re.findall(r"^\| `([\w/]+)` \| (.*) \|$", text.partition("\n## ")[0], flags=re.M)
    assert len(rows) > 10
    for folder, cell in rows:
        homes = [home / folder for home in (root, root / "python") if (home / folder).is_dir()]
        assert homes, folder
        named = re.findall(r"`([\w/]+(?:\.pyi?|\.rs|/))`", cell)
        lacking = [n for n in named if not (homes[0] / n).exists() and not (root / n).exists()]
        assert lacking == [], folder
