"""What every test gets: no network, fixed seeds, and uninitialised memory that shows itself."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("house")

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
