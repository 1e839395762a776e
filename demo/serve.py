"""ComfyUI with this pack until Ctrl-C: `python dev.py serve`."""

from __future__ import annotations

import sys
import time

from demo.server import ROOT, serving


def main() -> None:
    folder = ROOT / ".dev" / "serve"
    folder.mkdir(parents=True, exist_ok=True)
    with serving(folder, sys.argv[1:]) as server:
        print(f"open {server.address}, end with Ctrl-C; log in {folder / 'server.log'}")  # noqa: T201
        while server.process.poll() is None:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
