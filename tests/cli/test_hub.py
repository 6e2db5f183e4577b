"""Models of the hub: a small hub on this machine, asked by the real client in its own process."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from falcon_h1r import Tokenizer, reference_model_path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = ("tokenizer.json", "tokenizer_config.json", "config.json", "README.md")


class Hub(BaseHTTPRequestHandler):
    """Serves "us/model" with the files of the model in the wheel; others are refused."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        folder = reference_model_path()
        if "/us/gated/" in self.path:
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif self.path.startswith("/api/models/us/model/"):
            tree = [
                {"type": "file", "path": name, "rfilename": name, "oid": "0" * 40,
                 "size": (folder / name).stat().st_size}
                for name in FILES
            ]  # fmt: skip
            info = {"id": "us/model", "sha": COMMIT, "siblings": tree}
            answer = tree if "/tree/" in self.path else info
            self.answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        elif self.path.startswith(f"/us/model/resolve/{COMMIT}/"):
            name = self.path.rpartition("/")[2]
            headers = {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
            self.server.sent.append(name)  # type: ignore[attr-defined]
            self.answer(200, (folder / name).read_bytes(), headers)
        else:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.sent = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def tokenize(name: str, port: int, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(home)}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "falcon_h1r.cli.main", "tokenize", "--model", name, "7 + 8"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_model_is_fetched_once_and_then_found_without_the_hub(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    done = tokenize("us/model", hub.server_port, tmp_path)
    assert done.returncode == 0, done.stderr
    expected = Tokenizer.from_pretrained(reference_model_path()).encode("7 + 8")
    assert [int(word) for word in done.stdout.split()] == expected
    sent: list[str] = hub.sent  # type: ignore[attr-defined]
    assert "tokenizer.json" in sent and "README.md" not in sent
    again = tokenize("us/model", 9, tmp_path)  # port 9: nobody listens
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [("us/absent", "check the name"), ("us/gated", "accept its terms"), ("us/model", "network")],
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    name: str, said: str, hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    port = 9 if said == "network" else hub.server_port
    done = tokenize(name, port, tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert repr(name) in done.stderr and said in done.stderr
