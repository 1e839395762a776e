"""Train and judge the emoji models: `python -m demo.training COMMAND`; see README.md here."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from pathlib import Path

import torch

from demo.training import emoji, judge, train

FOLDER = Path(__file__).resolve().parents[2] / ".dev" / "training"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where everything is kept")
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data", help="fetch and render the emoji")
    going = commands.add_parser("train", help="begin a training, or go on with it")
    going.add_argument("kind", choices=sorted(train.SETTINGS))
    going.add_argument("--minutes", type=float, default=60)
    judged = commands.add_parser("evaluate", help="how often a model draws what was asked")
    judged.add_argument("kind", choices=sorted(train.SETTINGS))
    judged.add_argument("--count", type=int, default=128, help="prompts of each list")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"{getattr(arguments, 'kind', arguments.command)}.log"
    handlers = [logging.StreamHandler(), logging.FileHandler(record)]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    if arguments.command == "data":
        logging.info("%s", emoji.fetch(folder))
    elif arguments.command == "evaluate":
        for name, shares in judge.evaluate(arguments.kind, folder, arguments.count).items():
            logging.info("%s: %s", name, " ".join(f"{k} {v:.0%}" for k, v in shares.items()))
    else:
        asked = threading.Event()  # a step is never cut in two
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.set())
        train.train(arguments.kind, folder, arguments.minutes, asked.is_set)


if __name__ == "__main__":
    main()
