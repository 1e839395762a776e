"""Attaching to a MODEL: a clone with keyed wrappers, nothing else is touched."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from hybrid_core.comfy_bridge.evaluation import Evaluation
from hybrid_core.comfy_bridge.parallelism import Parallelism
from hybrid_core.comfy_bridge.partition import Announce, Partition
from hybrid_core.comfy_bridge.session import SESSION, Session
from hybrid_core.comfy_bridge.support import WRAPPER_KEY
from hybrid_core.config import Tuning, check_mode
from hybrid_core.course.policy import policy_for
from hybrid_core.course.stepper import Stepper
from hybrid_core.telling.report import Nobody, Report, Watcher

log = logging.getLogger("hybrid_ksampler")
DEFAULTS = Tuning()
NOBODY = Nobody()
USUAL_CFG = 8.0  # KSampler's default, for guiders that do not say theirs
CFG_FUNCTIONS = {"sampler_cfg_function", "sampler_post_cfg_function", "sampler_pre_cfg_function"}
HOOKED = (WrappersMP.OUTER_SAMPLE, WrappersMP.CALC_COND_BATCH)


def log_report(report: Report) -> None:
    log.info("%s", report.line())


def attach(
    model: ModelPatcher,
    mode: str,
    announce: Announce,
    session: Session = SESSION,
    on_report: Callable[[Report], None] = log_report,
    tuning: Tuning = DEFAULTS,
    watcher: Watcher = NOBODY,
) -> ModelPatcher:
    """A clone of `model` that samples in `mode`; an earlier attachment is replaced.

    announce: called at most once a run, with a sentence for the artist. on_report: called after
    each run. watcher: follows each run. Raises ConfigError.
    """
    check_mode(mode)
    if mode == "off":
        return _with_attachment(model, None)
    return _with_attachment(model, Attachment(mode, session, announce, on_report, tuning, watcher))


def watched(model: ModelPatcher, watcher: Watcher) -> ModelPatcher | None:
    """A clone of an attached `model` whose runs `watcher` follows. None: nothing is attached."""
    attachment = _attachment(model)
    if attachment is None:
        return None
    return _with_attachment(model, attachment.followed_by(watcher))


def latest_report(model: ModelPatcher) -> Report | None:
    """Of an attached model's latest run, None without one."""
    attachment = _attachment(model)
    return None if attachment is None else attachment.latest


def _attachment(model: ModelPatcher) -> Attachment | None:
    hooks = model.get_wrappers(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY)
    return hooks[0].__self__ if hooks else None


def _with_attachment(model: ModelPatcher, attachment: Attachment | None) -> ModelPatcher:
    clone = model.clone()
    for kind in HOOKED:
        clone.remove_wrappers_with_key(kind, WRAPPER_KEY)
    if attachment is not None:
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, attachment.outer_sample)
        clone.add_wrapper_with_key(
            WrappersMP.CALC_COND_BATCH, WRAPPER_KEY, attachment.calc_cond_batch
        )
    return clone


class Attachment:
    """The wrappers of one attached model and the run that is under way."""

    def __init__(
        self,
        mode: str,
        session: Session,
        announce: Announce,
        on_report: Callable[[Report], None],
        tuning: Tuning,
        watcher: Watcher,
    ):
        self._mode, self._session, self._tuning = mode, session, tuning
        self._announce, self._on_report, self._watcher = announce, on_report, watcher
        self.latest: Report | None = None
        self._partition: Partition | None = None

    def followed_by(self, watcher: Watcher) -> Attachment:
        """The same attachment for another watcher."""
        return Attachment(
            self._mode, self._session, self._announce, self._on_report, self._tuning, watcher
        )

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        outer = self._partition  # a sampler inside a sampler
        self._partition = partition = self._new_partition(executor.class_obj, *args, **kwargs)
        status = "failed"
        try:
            partition.begin(executor.class_obj.model_options)
            out = executor(*args, **kwargs)
            status = "done"
            return out
        except comfy.model_management.InterruptProcessingException:
            status = "interrupted"
            raise
        finally:
            self._partition = outer
            partition.finish(status)
            self.latest = partition.report
            self._on_report(partition.report)

    def _new_partition(
        self,
        guider: Any,
        noise: torch.Tensor,
        latent_image: Any,
        sampler: Any,
        sigmas: torch.Tensor,
        denoise_mask: torch.Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> Partition:
        """For a run of these arguments (CFGGuider.outer_sample's)."""
        alone = one_branch(guider)
        staged = self._mode == "adaptive" or (self._mode == "paper" and not alone)
        sampling = guider.model_patcher.get_model_object("model_sampling")
        flow = isinstance(sampling, comfy.model_sampling.CONST)
        schedule = [float(sigma) for sigma in sigmas.tolist()]
        cfg = 1.0 if alone else getattr(guider, "cfg", None)
        cfg = float(cfg) if isinstance(cfg, int | float) else USUAL_CFG
        policy = policy_for(self._mode if staged else "exact", self._tuning, schedule, flow, cfg)
        other_guidance = guider.model_options.keys() & CFG_FUNCTIONS
        stepper = Stepper(
            policy,
            schedule,
            mask=denoise_mask,
            look_ahead=self._tuning.look_ahead and policy.guided,
            cfg=None if other_guidance or not policy.guided else cfg,
        )
        parallelism = None
        if staged:
            cuts = self._session.cuts.setdefault(guider.model_patcher.model, {})
            parallelism = Parallelism(stepper, cuts, tuple(noise.shape))
        report = Report(
            self._mode,
            tolerance=self._tuning.tolerance if self._mode == "adaptive" else None,
            total=max(0, len(schedule) - 1),
        )
        return Partition(
            guider.model_patcher, self._session, self._announce, self._watcher, report,
            self._tuning, stepper, parallelism, alone, tuple(noise.shape),
        )  # fmt: skip

    def calc_cond_batch(
        self, executor: Any, model: Any, conds: Any, x: Any, sigma: Any, model_options: Any
    ) -> Any:
        if self._partition is None:
            return executor(model, conds, x, sigma, model_options)
        return self._partition.evaluate(Evaluation(executor, model, conds, x, sigma, model_options))


def one_branch(guider: Any) -> bool:
    """Whether the guider is known to evaluate one branch only (cfg 1)."""
    cfg = getattr(guider, "cfg", None)
    keeps_both = guider.model_options.get("disable_cfg1_optimization", False)
    return isinstance(cfg, int | float) and math.isclose(cfg, 1.0) and not keeps_both
