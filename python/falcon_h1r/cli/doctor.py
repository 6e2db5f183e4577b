"""Tell what is installed, which path will run and why, and what to do."""

import argparse
import json
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

REQUIRED = ("torch", "numpy", "safetensors", "PyYAML", "rich", "math-verify")
OPTIONAL = {
    "huggingface-hub": "checkpoints by hub id (extra `hub`)",
    "tokenizers": "training a tokenizer (extra `train`)",
    "tensorboard": "curves of a training run (extra `train`)",
    "rensa": "near-duplicates in curation (extra `curate`)",
    "pyarrow": "Parquet files in curation (extra `curate`)",
    "reasoning-gym": "tasks of reasoning-gym in curation (extra `curate`)",
    "matplotlib": "figures of an evaluation (extra `report`)",
}
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "thinking.json")
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
"""Names as Linux prints them; the last three are ARM's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing worth knowing."""

    level: Literal["ok", "note", "problem"]
    what: str
    remedy: str | None = None
    """What to do about it; None where nothing is to be done."""


def diagnose() -> dict[str, Any]:
    """Look at this machine and this installation; nothing is changed.

    Keys: python, platform, packages, cpu, gpus, memory_bytes, model, findings.
    """
    findings: list[Finding] = []
    packages = _packages(findings)
    cpu = _cpu()
    _extension(findings)
    gpus = _gpus(findings) if packages.get("torch") else []
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "cpu": cpu,
        "gpus": gpus,
        "memory_bytes": _memory_bytes(),
        "model": _model(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def _packages(findings: list[Finding]) -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in ("falcon-h1r", *REQUIRED, *OPTIONAL):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    if lacking := [name for name in REQUIRED if versions[name] is None]:
        findings.append(
            Finding(
                level="problem",
                what=f"missing: {', '.join(lacking)}",
                remedy=f"pip install {' '.join(lacking)}",
            )
        )
    for name, purpose in OPTIONAL.items():
        if versions[name] is None:
            findings.append(
                Finding(
                    level="note",
                    what=f"{name} is not installed; it serves {purpose}",
                    remedy=f"pip install {name}",
                )
            )
    return versions


def _extension(findings: list[Finding]) -> None:
    """Is the compiled module there, and of this version?"""
    from falcon_h1r import __version__

    rebuild = "reinstall falcon-h1r, or run `make build` in a checkout"
    try:
        from falcon_h1r import _rust
    except ImportError as error:
        findings.append(
            Finding(level="problem", what=f"the Rust part does not load: {error}", remedy=rebuild)
        )
        return
    if _rust.__version__ != __version__:
        findings.append(
            Finding(
                level="problem",
                what=f"the Rust part is {_rust.__version__}, the Python part {__version__}",
                remedy=rebuild,
            )
        )
        return
    level, bf16_path = _rust.kernel_paths()
    findings.append(
        Finding(
            level="note" if level == "portable" else "ok",
            what=f"Rust {__version__}: CPU kernels run as {level} (the best this CPU offers), "
            f"products in bfloat16 as {bf16_path}, on {_rust.num_threads()} threads",
            remedy="a CPU with AVX2 or AVX-512 is much faster" if level == "portable" else None,
        )
    )


def _cpu() -> dict[str, Any]:
    text = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, flags=re.M)
    present = set(flags[1].split()) if flags else set()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "name": model[1] if model else platform.processor() or platform.machine(),
        "num_cores": usable,
        "features": [flag for flag in CPU_FLAGS if flag in present],
    }


def _gpus(findings: list[Finding]) -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        driver = Path("/proc/driver/nvidia/version").exists()
        why = (
            "the driver is there, but torch cannot use it" if driver else "no GPU driver is loaded"
        )
        findings.append(
            Finding(
                level="problem" if driver else "ok",
                what=f"models run on the CPU ({why})",
                remedy="install a torch built for this driver" if driver else None,
            )
        )
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append({"name": properties.name, "memory_bytes": properties.total_memory})
    findings.append(Finding(level="ok", what=f"models run on {found[0]['name']} (device cuda)"))
    return found


def _model(findings: list[Finding]) -> dict[str, Any]:
    from falcon_h1r import reference_model_path

    folder = Path(reference_model_path())
    lacking = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if lacking:
        findings.append(
            Finding(
                level="problem",
                what=f"the model in the wheel lacks {', '.join(lacking)}",
                remedy="reinstall falcon-h1r, or run `make reference-model` in a checkout",
            )
        )
    present = [path for path in folder.iterdir() if path.is_file()]
    return {"path": str(folder), "num_bytes": sum(path.stat().st_size for path in present)}


def _memory_bytes() -> dict[str, int]:
    """Total and available memory; empty where /proc is not."""
    sizes = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", _read("/proc/meminfo"), re.M))
    names = {"MemTotal": "total", "MemAvailable": "available"}
    return {names[name]: 1024 * int(kib) for name, kib in sizes.items()}


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def describe(report: dict[str, Any]) -> list[str]:
    """The report as lines for a person."""
    packages = report["packages"]
    versions = [f"{name} {version}" for name, version in packages.items() if version]
    cpu, memory = report["cpu"], report["memory_bytes"]
    lines = [
        f"python    {report['python']} on {report['platform']}",
        f"packages  {', '.join(versions)}",
        f"cpu       {cpu['name']}, {cpu['num_cores']} cores, {' '.join(cpu['features']) or '-'}",
    ]
    if memory:
        lines.append(
            f"memory    {memory['available'] / 1e9:.1f} GB free of {memory['total'] / 1e9:.1f} GB"
        )
    lines += [f"gpu       {g['name']}, {g['memory_bytes'] / 1e9:.1f} GB" for g in report["gpus"]]
    lines.append(
        f"model     {report['model']['path']} ({report['model']['num_bytes'] / 1e6:.1f} MB)"
    )
    for finding in report["findings"]:
        remedy = f"; {finding['remedy']}" if finding["remedy"] else ""
        lines.append(f"{finding['level']:9} {finding['what']}{remedy}")
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `falcon-h1r doctor`."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 when there is a problem, else 0."""
    report = diagnose()
    text = json.dumps(report) if args.json else "\n".join(describe(report))
    sys.stdout.write(text + "\n")
    return int(any(finding["level"] == "problem" for finding in report["findings"]))
