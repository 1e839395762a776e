"""A real ComfyUI server with this pack, on a folder of its own, for the demo and the tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACK = "hybrid-ksampler"
NOT_SHIPPED = (".git", ".dev", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__")


class Server:
    """Talks to a running server."""

    def __init__(self, address: str, folder: Path, process: subprocess.Popen[bytes]):
        self.address, self.folder, self.process = address, folder, process

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.address}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                data = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode()[:2000]}") from error
        return json.loads(data) if data else None

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queue a prompt in API format; its id."""
        return str(self.post("/prompt", {"prompt": prompt})["prompt_id"])

    def finished(self, prompt_id: str, seconds: float = 300) -> dict[str, Any]:
        """The history entry of a prompt once it has ended, however it ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return dict(history[prompt_id])
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with exit code {self.process.returncode}")
            time.sleep(0.05)
        raise TimeoutError(f"prompt {prompt_id} did not end within {seconds} s")

    def run(self, prompt: dict[str, Any], seconds: float = 300) -> dict[str, Any]:
        """Queue and wait. Raises RuntimeError with ComfyUI's message when it failed."""
        entry = self.finished(self.queue(prompt), seconds)
        if entry["status"]["status_str"] != "success":
            raise RuntimeError(json.dumps(entry["status"]["messages"][-1])[:3000])
        return entry

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")


def seconds_taken(entry: dict[str, Any]) -> float:
    """Execution time of a finished prompt by the server's own clock."""
    stamps = {name: data["timestamp"] for name, data in entry["status"]["messages"]}
    return float(stamps["execution_success"] - stamps["execution_start"]) / 1000


def install_pack(folder: Path) -> None:
    """Put this pack into `folder`/custom_nodes: a link, or a copy where links are not allowed."""
    target = folder / "custom_nodes" / PACK
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        return
    try:
        target.symlink_to(ROOT, target_is_directory=True)
    except OSError:
        shutil.copytree(
            ROOT, target, ignore=shutil.ignore_patterns(*NOT_SHIPPED), dirs_exist_ok=True
        )


@contextlib.contextmanager
def serving(
    folder: Path, arguments: Sequence[str] = (), device: str = "cpu:1", core: int = 0
) -> Iterator[Server]:
    """A server on `folder`, pinned to `core`; its worker gets `device`. Ended on leaving."""
    install_pack(folder)
    port = _free_port()
    command = [
        sys.executable, str(Path(os.environ["COMFYUI_DIR"]) / "main.py"),
        "--cpu", "--base-directory", str(folder), "--database-url", "sqlite:///:memory:",
        "--listen", "127.0.0.1", "--port", str(port), "--disable-api-nodes", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "HYBRID_KSAMPLER_DEVICE": device}
    pin = (lambda: os.sched_setaffinity(0, {core})) if hasattr(os, "sched_setaffinity") else None
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=pin,  # noqa: PLW1509  no threads yet
        )
    server = Server(f"http://127.0.0.1:{port}", folder, process)
    try:
        _wait_until_up(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(server: Server, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, ValueError):
            server.get("/system_stats")
            return
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not come up:\n{server.log[-3000:]}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
