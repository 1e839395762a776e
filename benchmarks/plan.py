"""Schedules planned from earlier pictures: the bound that mode adaptive's live choice is held to.

    python dev.py bench plan [--json] [--model WORD] [--sampler euler] [--steps 20] [--pictures 16]

KSampler's predictions of pictures 0 to 15 are recorded. From them follows what each gap of forecast
calls would have missed, and by dynamic programming the schedule of so many exact calls whose gaps
miss least. Pictures from 16 on are then sampled by mode adaptive, by the plan with no more exact
calls than that took on average ("planned"), and by this plan while the live measure may add exact
calls ("guarded"). Ideal ratios are those of two devices; only forecast steps are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from benchmarks.two_cores import command_line, one_core  # isort: skip

import torch

from benchmarks.fidelity import accuracy, fidelity, mean
from benchmarks.frontier import FIRST, PICTURES, STEPS, Picture
from benchmarks.gaps import Gaps, Plan, plans
from benchmarks.report import Row, progress, publish
from benchmarks.together import Network, Setting, together
from demo.training import judge
from demo.training.words import caption, random_labels
from hybrid_core.comfy_bridge import demo_models
from hybrid_core.config import Tuning
from hybrid_core.course import discrepancy
from hybrid_core.course.adaptive import Adaptive
from hybrid_core.course.course import Course
from hybrid_core.course.policy import EXACT, FORECAST, Kind, Reach
from hybrid_core.telling.report import kinds

CFG, LARGEST_GAP = 5.0, 12
TOLERANCES = (0.008, 0.0125, 0.02)
GUARD = 2.0  # times the tolerance: what the live measure lets a plan do
FORECAST_ONLY = frozenset((FORECAST,))
Tensor = torch.Tensor


class Planned(Adaptive):
    """Forecast calls where a plan has them, unless their gap's expected errors are too large."""

    def __init__(self, exact: Collection[int], tolerance: float, reach: Reach):
        super().__init__(tolerance, reach, LARGEST_GAP, FORECAST_ONLY)
        self._planned = frozenset(exact)

    def choose(self, call: int, features: bool) -> tuple[Kind, float | None]:
        drift = self._drift(call, FORECAST)
        if call in self._planned or drift is None or drift > self._tolerance:
            return EXACT, drift
        return FORECAST, drift


def recorded(setting: Setting, taken: list[Picture]) -> Gaps:
    """What KSampler's runs of these pictures tell."""
    runs = [lambda one=one: record(setting, *one) for one in taken]
    return Gaps(torch.stack(together(setting.network, runs)), reach_of(setting))


def record(setting: Setting, seed: int, words: tuple[str, str]) -> Tensor:
    """Products of one run's predictions, (2 * calls, 2 * calls)."""
    own: list[Tensor] = []
    apart: list[Tensor] = []
    sizes: list[Tensor] = []

    def branches(x: Tensor, sigma: Tensor) -> list[Tensor]:
        (cond, _), (uncond, _) = setting.network.exact(x, sigma, words)
        first, other = (discrepancy.prediction(x, d, sigma) for d in (cond, uncond))
        own.append(first)
        apart.append(first - other)
        sizes.append(cond.square().mean().sqrt())
        return [cond, uncond]

    setting.sample(seed, branches)
    every = torch.cat([*own, *apart]).flatten(1) / torch.stack(sizes).mean()
    return every @ every.T / every.shape[1]


def reach_of(setting: Setting) -> Reach:
    return setting.matrix().reach(setting.sigmas.tolist(), setting.network.flow, setting.cfg)


def main() -> None:
    parser = command_line("plan", __doc__)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--steps", type=int, choices=STEPS, help="only this many")
    parser.add_argument("--pictures", type=int, default=16, help="that are sampled")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with one_core():
        for kind in demo_models.KINDS:
            if arguments.model in kind:
                network = Network(kind)
                for steps in [arguments.steps] if arguments.steps else STEPS:
                    setting = Setting(network, steps, CFG, arguments.sampler)
                    rows += measure(setting, arguments.pictures)
    publish("plan", rows)


def measure(setting: Setting, count: int) -> list[Row]:
    judged = judge.load()
    labels = random_labels(PICTURES, torch.Generator().manual_seed(11))
    every = [(number, (caption(row), "")) for number, row in enumerate(labels)]
    gaps = recorded(setting, every[:FIRST])
    known = plans(gaps.missed, gaps.calls, LARGEST_GAP)
    setting.network.forget()
    reach = reach_of(setting)
    taken = every[FIRST : FIRST + count]
    plain = together(setting.network, [lambda one=one: setting.plain(*one) for one in taken])

    def live(tolerance: float) -> Course:
        return setting.course("adaptive", Tuning(tolerance=tolerance, kinds=FORECAST_ONLY))

    def planned(plan: Plan, tolerance: float) -> Course:
        policy = Planned(plan, tolerance, reach)
        return Course(policy, setting.sigmas.tolist(), setting.matrix(), cfg=setting.cfg)

    rows: list[Row] = []

    def add(arm: str, tolerance: float, course: Callable[[], Course]) -> Row:
        runs = [lambda one=one: setting.run(*one, course()) for one in taken]
        seen = [
            {
                **fidelity(latent, true), "ideal": report.ideal, "kinds": kinds(report.steps),
                "accuracy": accuracy(judged, latent, labels[number]),
            }
            for (number, _), (latent, report), true in zip(
                taken, together(setting.network, runs), plain, strict=True
            )
        ]  # fmt: skip
        found = mean(seen)
        common = {"model": f"demo {setting.network.kind}", "sampler": setting.sampler}
        row = common | {"steps": setting.steps, "cfg": setting.cfg, "arm": arm}
        rows.append(row | {"tolerance": tolerance} | found)
        progress(" ".join(f"{key}={value}" for key, value in rows[-1].items()))
        return found

    for tolerance in TOLERANCES:
        seen = add("adaptive", tolerance, lambda t=tolerance: live(t))
        plan = known[max(min(known), math.floor(seen["exact"]))]
        add("planned", tolerance, lambda p=plan: planned(p, math.inf))
        add("guarded", tolerance, lambda p=plan, t=tolerance: planned(p, GUARD * t))
    setting.network.forget()
    return rows


if __name__ == "__main__":
    main()
