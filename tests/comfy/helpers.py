"""Sampling calls for the tests, with ComfyUI's own functions."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for scripts that are no test

import quick_start
import torch
from comfy.cli_args import args
from comfy.model_management import load_models_gpu
from comfy.samplers import CFGGuider
from processes import wait_until as wait_until
from tensors import relative as relative

from hybrid_core.comfy_bridge import demo_models
from hybrid_core.comfy_bridge.attach import attach
from hybrid_core.comfy_bridge.replica import ReplicaSource
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.config import Settings, Tuning
from hybrid_core.telling.report import Report
from hybrid_core.workers.holdings import Holdings
from hybrid_core.workers.lease import Lease
from hybrid_core.workers.process.worker import ProcessWorker
from nodes import common_ksampler

POSITIVE = "cat, noto, sky background"
NEGATIVE = "blue, sand"
# fixed schedules of mode adaptive
FREE = {"tolerance": 1e9, "largest_gap": 2, "kinds": frozenset(("pipelined",))}
FORESEEN = {"tolerance": 1e9, "largest_gap": 2, "kinds": frozenset(("forecast",))}


def quiet(text: str) -> None:
    """An announce function that nobody hears."""


@contextmanager
def loading_in(dtype: str) -> Iterator[None]:
    """Meanwhile ComfyUI, and a worker described meanwhile, loads networks in fp32, fp16 or bf16."""
    names = [f"{name}_unet" for name in ("fp32", "fp16", "bf16")]
    before = {name: getattr(args, name) for name in names}
    for name in names:
        setattr(args, name, name == f"{dtype}_unet")
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(args, name, value)


def empty_latent(batch: int = 1) -> dict[str, Any]:
    return {"samples": torch.zeros(batch, 4, 8, 8), "downscale_ratio_spacial": 8}


def sample(
    model: Any,
    kind: str,
    *,
    sampler: str = "euler",
    scheduler: str = "normal",
    steps: int = 4,
    cfg: float = 5.0,
    seed: int = 1,
    latent: dict[str, Any] | None = None,
    positive: Any = None,
    negative: Any = None,
    **more: Any,
) -> torch.Tensor:
    """Final latents of common_ksampler, (B, 48, 16, 16)."""
    with torch.inference_mode():
        (out,) = common_ksampler(
            model,
            seed,
            steps,
            cfg,
            sampler,
            scheduler,
            positive or demo_models.conditioning(kind, POSITIVE),
            negative or demo_models.conditioning(kind, NEGATIVE),
            dict(latent or empty_latent()),
            **more,
        )
    return out["samples"]


def unmeasured(every: list[Holdings]) -> list[Holdings]:
    """Workers that count as fast as this process, however busy the machine is with other tests."""
    for holdings in every:
        holdings.paces = deque(maxlen=0)
    return every


def started_quickly(worker: ProcessWorker) -> ProcessWorker:
    worker._means = replace(worker._means, start=quick_start.start)
    return worker


class EvenSession(Session):
    def _processes(self, settings: Settings) -> list[ProcessWorker]:
        return [started_quickly(worker) for worker in super()._processes(settings)]

    def every(self) -> list[Holdings]:
        return unmeasured(super().every())


class Watched:
    """An attached model that keeps what was announced and the reports of its runs."""

    def __init__(self, model: Any, session: Session, mode: str = "exact", **tuning: Any):
        self.announced: list[str] = []
        self.reports: list[Any] = []
        self.model = attach(
            model, mode, self.announced.append, session, self.reports.append, Tuning(**tuning)
        )


def bring_up(session: Session, model: Any) -> None:
    with torch.inference_mode():
        assert session.bring_up(model, 120), "the worker did not come up"


def ask_for(session: Session, model: Any) -> None:
    """A load of `model` that no run takes in."""
    source = ReplicaSource(model, session.model_gone)
    with torch.inference_mode():
        load_models_gpu([model])
        Lease(session.holdings(), source, lambda: None, Report()).prepare()


def guider(model: Any, kind: str, cfg: float = 5.0) -> CFGGuider:
    made = CFGGuider(model)
    made.set_conds(
        demo_models.conditioning(kind, POSITIVE), demo_models.conditioning(kind, NEGATIVE)
    )
    made.set_cfg(cfg)
    return made
