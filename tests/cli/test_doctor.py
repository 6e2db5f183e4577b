"""doctor tells what is wrong and what to do about it."""

import json
from importlib import metadata

import pytest

from falcon_h1r.cli import doctor
from falcon_h1r.cli.main import main


def test_json_and_lines_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["packages"]["torch"] == metadata.version("torch")
    assert report["cpu"]["num_cores"] >= 1
    assert status == any(f["level"] == "problem" for f in report["findings"])
    text = "\n".join(doctor.describe(report))
    for finding in report["findings"]:
        assert finding["what"] in text


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every package but this one."""

    def version(name: str) -> str:
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "version", version)


def test_a_missing_package_is_a_problem_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    without("rich", monkeypatch)
    findings: list[doctor.Finding] = []
    assert doctor._packages(findings)["rich"] is None
    assert [(f.level, f.remedy) for f in findings] == [("problem", "pip install rich")]


def test_a_stale_extension_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("falcon_h1r.__version__", "9.9.9")
    findings: list[doctor.Finding] = []
    doctor._extension(findings)
    assert [f.level for f in findings] == ["problem"]
    assert "9.9.9" in findings[0].what


def test_a_model_without_weights_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr("falcon_h1r.reference_model_path", lambda: tmp_path)
    findings: list[doctor.Finding] = []
    doctor._model(findings)
    assert "model.safetensors" in findings[0].what


def test_an_unknown_bench_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "no_such"]) == 2
    assert "no_such" in capsys.readouterr().err


def test_an_optional_package_is_a_note_with_its_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    without("pyarrow", monkeypatch)
    findings: list[doctor.Finding] = []
    assert doctor._packages(findings)["pyarrow"] is None
    assert [(f.level, f.remedy) for f in findings] == [("note", "pip install pyarrow")]
    assert "Parquet" in findings[0].what
