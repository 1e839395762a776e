"""A finished run as a picture: the plot that the sampler node shows live. Uses matplotlib."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from hybrid_core.errors import HybridError
from hybrid_core.telling.curve import Curve, Step
from hybrid_core.telling.kinds import KINDS, LOOKS, english

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 768, 384  # pixels that the text is sized for
SMALLEST, LARGEST = (320, 200), (8192, 8192)
INK, QUIET, PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"
MARKS = {  # of kinds.json: matplotlib's marker, and whether it is filled
    "disc": ("o", True),
    "ring": ("o", False),
    "diamond": ("D", True),
    "triangle": (">", False),
    "square": ("s", True),
    "plus": ("P", True),
    "cross": ("x", True),
}
STAGES = LOOKS["stages"]
MOST_LINES = 3  # of words above the picture
TOLERANCE_AT = 0.42  # height of the tolerance in the picture, as in the node
DRIFT_REACH = 20  # the logarithmic scale of the drift ends at so many tolerances
TALLEST = 2.5  # typical steps: a slow one must not flatten the others


class NoMatplotlib(HybridError, ImportError):
    """matplotlib, the pack's one requirement, is not installed."""


def pixels(curve: Curve, width: int, height: int, log: bool = True) -> np.ndarray[Any, Any]:
    """The picture, (height, width, 3) uint8; equal for equal arguments."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise NoMatplotlib(
            f"matplotlib cannot be imported ({error}). Expected: the requirements of this pack, "
            "installed. Run `python -m pip install matplotlib` with ComfyUI's Python and restart "
            "ComfyUI."
        ) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever this machine's own style is
        canvas = FigureCanvasAgg(figure(curve, width, height, log))
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def figure(curve: Curve, width: int, height: int, log: bool = True) -> Figure:
    """The picture as a figure of width x height pixels."""
    from matplotlib.figure import Figure

    if not (SMALLEST[0] <= width <= LARGEST[0] and SMALLEST[1] <= height <= LARGEST[1]):
        raise ValueError(
            f"the picture is to be {width}x{height} pixels; expected {SMALLEST[0]}x{SMALLEST[1]} "
            f"to {LARGEST[0]}x{LARGEST[1]}. Change width and height"
        )
    dots = 100 * max(0.7, min(width / WIDTH, height / HEIGHT))  # an inch
    made = Figure(
        figsize=((width + 1e-3) / dots, (height + 1e-3) / dots),
        dpi=dots,
        layout="constrained",
        facecolor=PAPER,
    )
    _title(made, curve, width / dots)
    if curve.steps:
        top, bottom = made.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        top.set_xlim(0.5, curve.total + 0.5)
        handles = _draw_discrepancy(top, curve, log)
        if curve.tolerance and any(step.drift is not None for step in curve.steps):
            handles += _draw_drift(top.twinx(), curve, curve.tolerance, log)
        _draw_stages(top, bottom, curve)
        _draw_times(bottom, curve)
        made.legend(
            handles=handles, loc="outside lower center", ncols=7, fontsize=7.5, frameon=False,
            handlelength=1.6, columnspacing=1.2,
        )  # fmt: skip
    else:
        made.text(0.5, 0.45, _why_empty(curve), ha="center", va="center", color=QUIET, fontsize=9)
    return made


def _title(made: Figure, curve: Curve, inches: float) -> None:
    letters = max(20, int(inches * 72 / 4.6))
    lines = [line for text in (curve.words(), *curve.reasons) for line in _lines(text, letters)]
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1][: letters - 1]}…"]
    made.suptitle(
        "\n".join(lines), x=0.01, ha="left", fontsize=8.5, color=INK, parse_math=False
    )  # fmt: skip


def _lines(text: str, letters: int) -> list[str]:
    known = "".join(c if ord(c) < 0x250 else "?" for c in text)  # what the font has
    return textwrap.wrap(known, letters)


def _why_empty(curve: Curve) -> str:
    if curve.mode == "off":
        return "Mode off: ComfyUI's KSampler, on one GPU.\nThere are no steps to draw."
    return f"Mode {curve.mode}: this run recorded no steps,\nso there is nothing to draw."


def _draw_stages(top: Axes, bottom: Axes, curve: Curve) -> None:
    """The stages as shaded bands with their names."""
    if curve.parallelism is None:
        return
    tau1, tau2 = curve.parallelism
    edges = (0.5, tau1 + 0.5, tau2 + 0.5, curve.total + 0.5)
    for (name, look), left, right in zip(STAGES.items(), edges, edges[1:], strict=False):
        if right <= left:
            continue
        shade = {"color": look["light"], "zorder": 0, "linewidth": 0}
        top.axvspan(left, right, alpha=look["strength"], gid=f"stage {name}", **shade)
        bottom.axvspan(left, right, alpha=look["strength"], **shade)
        if right - left > 0.1 * curve.total:
            top.text(
                (left + right) / 2, 1.01, english(look), ha="center", va="bottom", color=INK,
                transform=top.get_xaxis_transform(), fontsize=8,
            )  # fmt: skip
    for tau in (tau1, tau2):
        top.axvline(tau + 0.5, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)), gid="border")


def _draw_discrepancy(axes: Axes, curve: Curve, log: bool) -> list[Any]:
    """The curve, dashed across steps that measured nothing, a mark a step. Legend entries."""
    seen = _known(((step.position, step.discrepancy) for step in curve.steps), log)
    heights = _heights(curve.steps, seen, log)
    handles: list[Any] = []
    if seen:
        everywhere = [seen.get(step.position, np.nan) for step in curve.steps]
        line = LOOKS["lines"]["difference"]["light"]
        axes.plot(list(seen), list(seen.values()), color=line, linewidth=0.8, linestyle="--")
        handles += axes.plot(
            [step.position for step in curve.steps], everywhere,
            color=line, linewidth=1.5, label=_name("difference"), gid="discrepancy",
        )  # fmt: skip
    else:
        axes.set_yticks([])
        axes.text(
            0.5, 0.25, "how far the two prompts are apart was not measured", ha="center",
            transform=axes.transAxes, fontsize=8, color=QUIET,
        )  # fmt: skip
    size = max(2.0, min(5.0, 260 / curve.total))
    for kind, look in KINDS.items():
        mine = {s.position: heights[at] for at, s in enumerate(curve.steps) if s.kind == kind}
        if mine:
            mark, filled = MARKS[look["mark"]]
            handles += axes.plot(
                list(mine), list(mine.values()), linestyle="none", marker=mark, markersize=size,
                markeredgewidth=0.9, markeredgecolor=look["light"],
                markerfacecolor=look["light"] if filled else PAPER,
                label=english(look), zorder=3, gid=f"marks {kind}",
            )  # fmt: skip
    axes.set_ylabel(_name("difference"), fontsize=8, color=INK)
    if log and seen:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.2 * max(seen.values(), default=0.0) or 1)
    _quiet(axes)
    return handles


def _known(measured: Iterable[tuple[int, float | None]], log: bool) -> dict[int, float]:
    """What was measured, by position, and has a place on the axis."""
    return {at: v for at, v in measured if v is not None and (v > 0 or not log)}


def _heights(steps: tuple[Step, ...], seen: dict[int, float], log: bool) -> list[float]:
    """Where each step's mark stands: on the curve, also where the step itself measured nothing."""
    if not seen:
        return [0.5] * len(steps)
    at, values = [step.position for step in steps], np.array(list(seen.values()))
    if log:
        return list(np.exp(np.interp(at, list(seen), np.log(values))))
    return list(np.interp(at, list(seen), values))


def _draw_drift(axes: Axes, curve: Curve, tolerance: float, log: bool) -> list[Any]:
    """The change that the adaptive policy expects, against its tolerance. Legend entries.

    The tolerance is always at the same height: what counts is which side of it the change is on.
    """
    seen = _known(((step.position, step.drift) for step in curve.steps), log)
    colour = LOOKS["lines"]["change"]["light"]
    handles: list[Any] = axes.plot(
        list(seen), list(seen.values()),
        color=colour, linewidth=1.2, linestyle=(0, (1.2, 1.4)), label=_name("change"), gid="drift",
    )  # fmt: skip
    line = axes.axhline(
        tolerance, color=colour, linewidth=0.9, linestyle="--", gid="tolerance",
        label=f"tolerance {tolerance:g}",
    )  # fmt: skip
    if log:
        decades = math.log10(DRIFT_REACH) / (1 - TOLERANCE_AT)
        axes.set_yscale("log")
        axes.set_ylim(tolerance / 10 ** (decades * TOLERANCE_AT), tolerance * DRIFT_REACH)
    else:
        axes.set_ylim(0, tolerance / TOLERANCE_AT)
    axes.set_axis_off()
    return [*handles, line]


def _draw_times(axes: Axes, curve: Curve) -> None:
    """A bar a step: how long its evaluation took."""
    from matplotlib.ticker import MaxNLocator

    times = [step.milliseconds or 0.0 for step in curve.steps]
    top = min(max(times), TALLEST * sorted(times)[len(times) // 2]) or 1
    for kind, look in KINDS.items():
        mine = {s.position: s.milliseconds or 0.0 for s in curve.steps if s.kind == kind}
        if mine:
            axes.bar(
                list(mine), list(mine.values()),
                width=0.8, color=look["light"], linewidth=0, gid=f"times {kind}",
            )  # fmt: skip
    axes.set_ylim(0, 1.05 * top)
    axes.set_ylabel("ms", fontsize=8, color=INK)
    axes.set_xlabel("step" if curve.on_schedule else "evaluation", fontsize=8, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _quiet(axes)


def _name(line: str) -> str:
    return english(LOOKS["lines"][line])


def _quiet(axes: Axes) -> None:
    axes.tick_params(which="both", labelsize=7.5, colors=QUIET, length=2.5, width=0.6)
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
        spine.set_linewidth(0.7)
