"""A parent to be killed: starts a worker from a thread that ends, says its pid, waits.

python lifeline_process.py kernel|watcher
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from hybrid_core.workers.process import lifeline  # noqa: E402


def work(connection, way):
    if way == "watcher":
        lifeline.by_kernel = lambda: False
    lifeline.hold()
    connection.send_bytes(b"%d" % os.getpid())
    time.sleep(600)


def main(way):
    import lifeline_process  # the worker knows no __main__

    from hybrid_core.workers.process import spawning

    ours, theirs = spawning.pipe()

    def start():
        spawning.start(lifeline_process.work, (theirs, way))
        theirs.close()
        print(ours.recv_bytes().decode(), flush=True)  # it is held from now on

    short = threading.Thread(target=start)
    short.start()
    short.join()
    time.sleep(600)


if __name__ == "__main__":
    main(sys.argv[1])
