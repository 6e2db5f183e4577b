"""What every bench gets: a place to put its rows, the machine beside them, and a model to time.

A bench records rows (plain dictionaries). At the end each file's rows are printed and written to
`results/NAME-DATE.json` with the machine they were measured on.
"""

import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy")

Row = dict[str, Any]
_rows: dict[str, list[Row]] = {}


def machine() -> Row:
    """Name, cores and memory of this machine, and the versions that matter."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    meminfo = Path("/proc/meminfo").read_text()
    name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, flags=re.M)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, flags=re.M)
    flags = set(cpuinfo.split())
    return {
        "cpu": name[1] if name else platform.machine(),
        "cpu_features": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags],
        "num_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": 1024 * int(memory[1]) if memory else None,
        "python": platform.python_version(),
        "packages": {package: metadata.version(package) for package in PACKAGES},
    }


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Keep one measured row of this file."""
    rows = _rows.setdefault(request.path.stem.removeprefix("bench_"), [])

    def keep(row: Row) -> None:
        rows.append(row)
        print("\n" + "  ".join(f"{key}={_short(value)}" for key, value in row.items()))

    return keep


def pytest_sessionfinish() -> None:
    now = datetime.now(UTC)
    for name, rows in _rows.items():
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}-{now:%Y-%m-%d}.json"
        result = {"bench": name, "date": f"{now:%Y-%m-%dT%H:%MZ}", "machine": machine()}
        path.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@pytest.fixture(scope="session")
def model_219m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 219M random bfloat16 weights: Falcon-H1-0.5B's shape with 12 layers."""
    import torch

    from falcon_h1r import FalconH1Config, FalconH1ForCausalLM

    config = FalconH1Config(
        vocab_size=32784,
        hidden_size=1024,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        rope_theta=1e11,
        max_position_embeddings=16384,
        mamba_d_ssm=1536,
        mamba_n_heads=24,
        mamba_d_head=64,
        mamba_n_groups=1,
        mamba_d_state=128,
        mamba_d_conv=4,
        mamba_chunk_size=128,
        mamba_norm_before_gate=False,
        mamba_rms_norm=False,
        embedding_multiplier=5.656854249492381,
        lm_head_multiplier=0.0390625,
        key_multiplier=0.39062499999999994,
        attention_out_multiplier=0.9375,
        ssm_in_multiplier=1.25,
        ssm_out_multiplier=0.23570226039551587,
        ssm_multipliers=(0.35355339, 0.25, 0.35355339, 0.5, 0.35355339),
        mlp_multipliers=(0.8838834764831844, 0.5859375),
        dtype="bfloat16",
    )
    folder = tmp_path_factory.mktemp("model") / "falcon-h1-219m"
    model = FalconH1ForCausalLM(config)
    model.reset_parameters(seed=0)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Both sides of a comparison use two threads."""
    import torch

    from falcon_h1r import _rust

    before = torch.get_num_threads(), _rust.num_threads()
    torch.set_num_threads(2)
    _rust.set_num_threads(2)
    yield
    torch.set_num_threads(before[0])
    _rust.set_num_threads(before[1])
