"""Draw benchmarks/frontier.json as docs/frontier.png: `python -m benchmarks.plot`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
ARMS = {
    "paper": ("#b3541e", "o", "paper, k ="),
    "adaptive": ("#1f5fa8", "s", "adaptive, tolerance"),
    "0.4.0": ("#7a7a7a", "D", "version 0.4.0, tolerance"),
}
STEPS = (20, 50)
INK, QUIET = "#222222", "#8a8a8a"


def main() -> None:
    rows = json.loads((ROOT / "benchmarks" / "frontier.json").read_text())["rows"]
    models = sorted({row["model"] for row in rows})
    plt.rcParams |= {"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK}
    figure, panels = plt.subplots(
        len(STEPS), len(models), figsize=(9.6, 6.6), sharex="row", sharey=True, squeeze=False
    )
    for across, steps in enumerate(STEPS):
        for down, model in enumerate(models):
            draw(panels[across][down], rows, model, steps)
    for axis in panels[:, 0]:
        axis.set_ylabel("PSNR against the exact image, dB")
    for axis in panels[-1]:
        axis.set_xlabel("ideal speed-up on two devices, by counting forwards")
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "frontier.png", dpi=130)


def draw(axis: Any, rows: list[dict[str, Any]], model: str, steps: int) -> None:
    """One model at one number of steps: euler, cfg 5."""
    setting = {"model": model, "steps": steps, "sampler": "euler", "cfg": 5.0}
    pairs = 0
    for arm, (colour, mark, label) in ARMS.items():
        found = [
            row
            for row in rows
            if row["arm"] == arm and all(row[key] == value for key, value in setting.items())
            if "devices" not in row
        ]
        if not found:
            continue
        found.sort(key=lambda row: row["ideal"])
        pairs = max(pairs, *(row["pairs"] for row in found))
        axis.plot(
            [row["ideal"] for row in found], [row["psnr_db"] for row in found],
            color=colour, marker=mark, markersize=5, linewidth=1.6, label=label,
        )  # fmt: skip
        for place, row in enumerate(found):
            axis.annotate(
                f"{row.get('k', row.get('tolerance')):g}", (row["ideal"], row["psnr_db"]),
                textcoords="offset points", xytext=((6, 4), (-10, -13))[place % 2], color=colour,
                fontsize=8,
            )  # fmt: skip
    axis.axhline(40, color=QUIET, linewidth=0.8, linestyle=":")
    axis.set_title(f"{model}, {steps} steps, {pairs} pictures", fontsize=10, loc="left")
    axis.grid(color="#e6e6e6", linewidth=0.6)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(frameon=False, loc="upper right")


if __name__ == "__main__":
    main()
