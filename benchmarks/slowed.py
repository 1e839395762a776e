"""A process that runs half of the time: stopped and let go on every few milliseconds (POSIX).

    python benchmarks/slowed.py PID

Until standard input ends. A program of its own, so that the processes that are timed do nothing
for it; standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

HALF = 0.002  # seconds: far shorter than a forward pass, so that each one takes twice as long


@contextlib.contextmanager
def half_speed(pid: int | None) -> Iterator[None]:
    """Meanwhile the process `pid` runs half of the time."""
    if pid is None:
        raise RuntimeError("there is no worker to slow down")
    with subprocess.Popen([sys.executable, __file__, str(pid)], stdin=subprocess.PIPE) as beating:
        try:
            yield
        finally:
            assert beating.stdin is not None
            beating.stdin.close()


def beat(pid: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, os.sched_getaffinity(pid))  # the core that it leaves idle
    go_on = True
    try:
        while not select.select([sys.stdin], [], [], HALF)[0]:
            go_on = not go_on
            os.kill(pid, signal.SIGCONT if go_on else signal.SIGSTOP)
    except ProcessLookupError:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    beat(int(sys.argv[1]))
