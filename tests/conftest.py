"""What every test gets: no network, fixed seeds, and uninitialised memory that shows itself.

And what a campaign keeps: a test marked so writes what it found to `benches/results/campaign/`. It
is not run again on the same sources, so a campaign that was cut short goes on where it stopped.
"""

import functools
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("house")

# A shell lets what it starts in the background ignore Ctrl-C, which tests send and expect.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benches/results/campaign"
# What a campaign's outcome can depend on.
SOURCES = ("rust", "python", "train", "triton_kernels", "tests", "Cargo.lock", "pyproject.toml")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--again", action="store_true", help="run campaign tests that have passed too")
    parser.addoption("--regold", action="store_true", help="write the golden curves anew")


@functools.cache
def sources() -> str | None:
    """A hash of the committed sources; None where they are changed or git does not know them."""
    for command in (["status", "--porcelain", "--"], ["ls-tree", "HEAD", "--"]):
        try:
            done = subprocess.run(["git", *command, *SOURCES], cwd=ROOT, capture_output=True)
        except FileNotFoundError:
            return None
        if done.returncode != 0 or (command[0] == "status" and done.stdout):
            return None
    return hashlib.sha256(done.stdout).hexdigest()[:16]


def result_path(item: pytest.Item) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", item.nodeid.removeprefix("tests/").lower()).strip("-")
    return RESULTS / f"{name}.json"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip campaign tests that have passed on these very sources, which are named now."""
    for item in items:
        if item.get_closest_marker("campaign") is None:
            continue
        path, named = result_path(item), sources()
        if config.getoption("again") or not path.exists():
            continue
        if json.loads(path.read_text())["sources"] == named:
            reason = f"passed on these sources: {path.relative_to(ROOT)} (--again runs it anyway)"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what a campaign test found; of sources that no commit names, nothing is kept."""
    report = yield
    is_result = report.when == "call" and report.passed and item.get_closest_marker("campaign")
    if is_result and (named := sources()) is not None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        row = {"test": item.nodeid, "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}"}
        row |= {"sources": named, "seconds": round(report.duration, 1)}
        row |= dict(item.user_properties)
        result_path(item).write_text(json.dumps(row, indent=1) + "\n")
    return report


# Rooms whose code fills memory that it takes uninitialised.
POISONED_ROOMS = {"ops", "kernels", "model", "engine"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that would leave this machine."""
    connect = socket.socket.connect

    def guarded(sock: socket.socket, address: Any) -> None:
        is_internet = sock.family in (socket.AF_INET, socket.AF_INET6)
        if is_internet and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests do not use the network, but one connects to {address[0]}")
        connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Seed torch where it is loaded; a test that needs no torch must not pay for it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def poisoned_memory(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fill `torch.empty` and its kin with NaN in the rooms that use them.

    Fresh pages are zero, so a kernel that forgets an element passes by luck without this.
    """
    if request.path.parent.name in POISONED_ROOMS and "torch" in sys.modules:
        torch = sys.modules["torch"]

        def poison(make: Callable[..., Any]) -> Callable[..., Any]:
            def made(*args: Any, **kwargs: Any) -> Any:
                tensor = make(*args, **kwargs)
                if tensor.is_floating_point():
                    with torch.no_grad():
                        tensor.fill_(float("nan"))
                return tensor

            return made

        for owner, name in [
            (torch, "empty"),
            (torch, "empty_like"),
            (torch.Tensor, "new_empty"),
        ]:
            monkeypatch.setattr(owner, name, poison(getattr(owner, name)))
    yield


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[..., Any]:
    """make_tiny_model(seed, scale, **config): a random model of two layers, ready to run.

    `scale` widens the matrices, so that the logits are far from flat.
    """
    import torch

    from falcon_h1r import FalconH1Config, FalconH1ForCausalLM

    shape = {
        "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "mamba_d_ssm": 64, "mamba_n_heads": 4,
        "mamba_d_state": 16, "max_position_embeddings": 1024,
    }  # fmt: skip

    def make(seed: int, scale: float, **config: Any) -> FalconH1ForCausalLM:
        model = FalconH1ForCausalLM(FalconH1Config(**(shape | config)))
        model.reset_parameters(seed=seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(scale)
        return model.eval()

    return make
