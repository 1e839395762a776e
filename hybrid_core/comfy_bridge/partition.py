"""One run in ComfyUI: its two branches, one here, one in the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import conds as conds_data
from hybrid_core.comfy_bridge import support
from hybrid_core.comfy_bridge.replica import ReplicaSource
from hybrid_core.comfy_bridge.session import Session
from hybrid_core.errors import NotPartitionable
from hybrid_core.run import Report, Run

Conds = list[list[dict[str, Any]] | None]
Announce = Callable[[str], None]


class Partition:
    """Shares the evaluations of one sampling call, or says once why it does not."""

    def __init__(self, patcher: ModelPatcher, session: Session, announce: Announce):
        self._patcher, self._session, self._announce = patcher, session, announce
        self.report = Report()
        self._run: Run | None = None
        self._local = False
        self._announced = False
        session.active_runs += 1

    def begin(self, model_options: dict[str, Any], one_branch: bool) -> None:
        """Start what takes time: the worker's process and its replica."""
        if support.replaces_evaluation(model_options):
            self._stay_local("another node evaluates the branches itself")
        elif not one_branch:
            run = self._ensure_run()
            if run is not None:
                run.prepare()

    def evaluate(
        self,
        executor: Any,
        model: Any,
        conds: Conds,
        x: torch.Tensor,
        sigma: torch.Tensor,
        options: dict[str, Any],
    ) -> list[torch.Tensor]:
        """What ComfyUI's calc_cond_batch returns: denoised latents, one of x's shape a branch."""
        branches = [index for index, cond in enumerate(conds) if cond is not None]
        if len(branches) < 2:
            self.report.single += 1
            return executor(model, conds, x, sigma, options)  # type: ignore[no-any-return]
        theirs = branches[1::2]
        parents = [None if i in theirs else cond for i, cond in enumerate(conds)]
        workers = [cond if i in theirs else None for i, cond in enumerate(conds)]
        run, number, began = self._ensure_run(), None, time.monotonic()
        if run is not None:
            try:
                support.check_conds(conds)
                support.check_options(options)
                if run.ready():
                    number = run.post(conds_data.context(workers, options), x, sigma)
            except NotPartitionable as error:
                self._stay_local(str(error))
                run = None
        if run is None or (number is None and not run.apart):
            self.report.local += 1
            return executor(model, conds, x, sigma, options)  # type: ignore[no-any-return]
        results = None
        try:
            since = time.monotonic()
            out: list[torch.Tensor] = executor(model, parents, x, sigma, options)
            if number is not None:
                results = run.collect(number, x, len(theirs), began, time.monotonic() - since)
        except BaseException:
            if number is not None:  # a replica that is still being loaded is wanted by the next run
                run.cancel()
            raise
        if results is None:
            self.report.local += 1
            others = executor(model, workers, x, sigma, options)
            results = [others[index] for index in theirs]
        for index, result in zip(theirs, results, strict=True):
            out[index] = result
        return out

    def finish(self) -> None:
        """After the run, however it ended."""
        self._session.active_runs -= 1
        if self.report.reasons:
            self._say(self.report.line())

    def _ensure_run(self) -> Run | None:
        if self._local:
            return None
        if self._run is None:
            try:
                partner = self._session.partner()
                source = ReplicaSource(self._patcher, self._session.model_gone)
            except NotPartitionable as error:
                self._stay_local(str(error))
                return None
            tick = comfy.model_management.throw_exception_if_processing_interrupted
            self._run = Run(partner, source, tick, self.report)
        return self._run

    def _stay_local(self, reason: str) -> None:
        self._local, self._run = True, None
        self.report.reasons.append(reason)
        self._say(f"runs as KSampler, on one device: {reason}")

    def _say(self, text: str) -> None:
        if not self._announced:
            self._announced = True
            self._announce(text)
