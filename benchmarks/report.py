"""What a benchmark prints: one JSON object, or a table for people."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]


def ratios(baseline: Sequence[float], arm: Sequence[float]) -> Row:
    """How many times as fast `arm` is: of the medians, and the extremes round by round."""
    by_round = [a / b for a, b in zip(baseline, arm, strict=True)]
    return {
        "ratio": round(statistics.median(baseline) / statistics.median(arm), 3),
        "ratio_min": round(min(by_round), 3),
        "ratio_max": round(max(by_round), 3),
    }


def publish(bench: str, rows: list[Row]) -> None:
    """Print to standard output; `--json` in the arguments asks for JSON."""
    if "--json" in sys.argv:
        document = {"bench": bench, "commit": commit(), "machine": machine(), "rows": rows}
        document["machine"]["date"] = datetime.date.today().isoformat()
        print(json.dumps(document, indent=1))  # noqa: T201  a command-line tool
        return
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))  # noqa: T201


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  a command-line tool


def commit() -> str:
    try:
        command = ("git", "describe", "--always", "--dirty")
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> Row:
    names = [
        line.partition(":")[2].strip()
        for line in (
            Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        )
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **(gpus() if torch.cuda.is_available() else {}),
    }


def gpus() -> Row:
    asked = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "gpus": [f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB" for gpu in found],
        "driver": driver,
        "cuda": torch.version.cuda,
        "allocator": torch.cuda.get_allocator_backend(),
    }
