"""A Ray cluster of two nodes on this machine, for tests and benchmarks: `ray start`, loopback only.

Nodes have addresses of the loopback; what Ray itself listens to beside them is Ray's choice.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tooling.installed import ROOT

COMMON = ("--block", "--disable-usage-stats", "--object-store-memory", "200000000")
HERE, THERE = "127.0.0.2", "127.0.0.3"  # Ray takes 127.0.0.1 for the network's address


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"a Ray node did not do as expected within {seconds:.0f} s")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind((HERE, 0))
        return bound.getsockname()[1]


class Node:
    """One `ray start --block`, in a session of its own: all that it starts is in it.

    A keeper (`keep`) ends the session when this process ends it, or ends in whatever way.
    """

    def __init__(self, folder: Path, name: str, env: dict[str, str], *words: str):
        self._log = (folder / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tooling.cluster", *words, *COMMON],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def parts(self, name: str = "") -> list[psutil.Process]:
        """Its processes, of one name."""
        return [process for process in of_session(self.process.pid) if name in named(process)]

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        wait_until(lambda: not self.parts(), 20)
        self._log.close()


def keep(words: list[str]) -> None:
    """Run `ray start` until standard input ends or it does; nothing of it is left then."""
    ray = subprocess.Popen([sys.executable, "-m", "ray.scripts.scripts", "start", *words])
    while ray.poll() is None and not select.select([sys.stdin], [], [], 0.2)[0]:
        pass
    ray.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        ray.wait(10)
    for process in of_session(os.getpid()):
        if process.pid != os.getpid():
            with contextlib.suppress(psutil.Error):
                process.kill()


def of_session(number: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == number:
                found.append(process)
    return found


def named(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""


def command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


class Cluster:
    def __init__(self, comfyui: str):
        self._env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([comfyui, str(ROOT)]),
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # of 15, which waits for all other tests
        }
        self.folder = Path(tempfile.mkdtemp(prefix="hybrid-ray-"))
        self.address = f"{HERE}:{free_port()}"
        self.nodes: list[Node] = []

    def start(self) -> None:
        port = self.address.rpartition(":")[2]
        self._add(
            "head", HERE, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false",
            f"--temp-dir={self.folder / 'ray'}",
        )  # fmt: skip
        self._add(
            "other", THERE, f"--address={self.address}", "--num-cpus=1",
            '--resources={"hybrid_ksampler": 1}',
        )  # fmt: skip

    def _add(self, name: str, address: str, *words: str) -> None:
        node = Node(self.folder, name, self._env, f"--node-ip-address={address}", *words)
        self.nodes.append(node)
        log = self.folder / f"{name}.log"

        def up() -> bool:
            if node.process.poll() is not None:
                raise RuntimeError(log.read_text())
            return "Ray runtime started" in log.read_text()

        wait_until(up, 90)

    @property
    def other(self) -> Node:
        """The other computer."""
        return self.nodes[1]

    def stop(self) -> list[str]:
        """Processes that are left."""
        for node in reversed(self.nodes):
            node.stop()
        left = [" ".join(command(p)) for node in self.nodes for p in node.parts()]
        shutil.rmtree(self.folder, ignore_errors=True)
        return left


if __name__ == "__main__":
    keep(sys.argv[1:])
