"""Attaching to a MODEL: a clone with keyed wrappers, nothing else is touched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from hybrid_core.comfy_bridge import hooks, support
from hybrid_core.comfy_bridge.brought import Brought
from hybrid_core.comfy_bridge.call import ComfyCall, Told
from hybrid_core.comfy_bridge.graph_path import Graph, Origin
from hybrid_core.comfy_bridge.guiding import cfg_of, one_branch, starting_cfg
from hybrid_core.comfy_bridge.leftovers import take_off_others
from hybrid_core.comfy_bridge.replayed import ReplaySource, code_inside, why_not_data
from hybrid_core.comfy_bridge.replica import ReplicaSource
from hybrid_core.comfy_bridge.sampler_trace import matrix
from hybrid_core.comfy_bridge.session import SESSION, Session, own_name
from hybrid_core.comfy_bridge.support import WRAPPER_KEY
from hybrid_core.comfy_bridge.trial import Replayed
from hybrid_core.config import Tuning, check_mode
from hybrid_core.course.course import Course
from hybrid_core.driver.driver import Driver
from hybrid_core.driver.pipeline import Pipeline
from hybrid_core.driver.tokens import TokenSharing
from hybrid_core.errors import NotPartitionable, NotSplittable
from hybrid_core.telling.report import Nobody, Report, Watcher
from hybrid_core.workers.contract import Worker
from hybrid_core.workers.lease import Lease
from hybrid_core.workers.pool import allowed, on_this_computer

log = logging.getLogger("hybrid_ksampler")
Announce = Callable[[str], None]
CANCELLED = comfy.model_management.InterruptProcessingException
DEFAULTS = Tuning()
NOBODY = Nobody()
ANOTHER_MODEL = "this guider evaluates a second model too, which is evaluated here"
HOOKED = (WrappersMP.OUTER_SAMPLE, WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH)


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
    graph: Graph | None = None,
) -> ModelPatcher:
    """A clone of `model` that samples in `mode`; an earlier attachment is replaced.

    announce: called at most once a run, with a sentence for the artist. on_report: called after
    each run. watcher: follows each run. graph: where `model` is an input named so. Raises
    ConfigError.
    """
    check_mode(mode)
    if mode == "off":
        return _with_attachment(model, None)
    origin = Origin(model, graph)
    return _with_attachment(
        model, Attachment(mode, session, announce, on_report, tuning, watcher, origin)
    )


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
        clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, WRAPPER_KEY, attachment.predict_noise)
        clone.add_wrapper_with_key(
            WrappersMP.CALC_COND_BATCH, WRAPPER_KEY, attachment.calc_cond_batch
        )
    return clone


@contextmanager
def costs_no_image(what: str) -> Iterator[None]:
    """Names an error of this pack in a line; sampling goes on without what failed."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  whatever it is
        log.warning("%s: %s: %s", what, type(error).__name__, error)
        log.debug("%s", what, exc_info=error)


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
        origin: Origin,
    ):
        self._origin = origin
        self._mode, self._session, self._tuning = mode, session, tuning
        self._announce, self._on_report, self._watcher = announce, on_report, watcher
        self.latest: Report | None = None
        self._driver: Driver | None = None  # of the run that is under way
        self._told = Told()  # of that run
        self._guider: Any = None  # of that run

    def followed_by(self, watcher: Watcher) -> Attachment:
        """The same attachment for another watcher."""
        told = self._announce, self._on_report
        return Attachment(self._mode, self._session, *told, self._tuning, watcher, self._origin)

    def outer_sample(self, executor: Any, noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        outer = self._driver, self._told, self._guider  # a sampler inside a sampler
        guider = executor.class_obj
        self._driver, self._told, self._guider = None, Told(), guider
        with costs_no_image("the run could not be prepared"):
            self._driver = driver = self._new_driver(guider, noise, *args, **kwargs)
            driver.prepare(len(noise), support.obstacle_to(guider.model_options))
        self._session.active_runs += 1
        status = "failed"
        try:
            out = executor(noise, *args, **kwargs)
            status = "done"
            return out
        except CANCELLED:
            status = "interrupted"
            raise
        finally:
            self._session.active_runs -= 1
            ended, (self._driver, self._told, self._guider) = self._driver, outer
            if ended is not None:
                with costs_no_image("the run's report could not be made"):
                    ended.finish(status)
                    self.latest = ended.report
                    self._on_report(ended.report)

    def _new_driver(
        self,
        guider: Any,
        noise: torch.Tensor,
        latent_image: Any,
        sampler: Any,
        sigmas: torch.Tensor,
        denoise_mask: torch.Tensor | None = None,
        *_: Any,
        **__: Any,
    ) -> Driver:
        """For a run of these arguments (CFGGuider.outer_sample's)."""
        patcher, tuning, shape = guider.model_patcher, self._tuning, tuple(noise.shape)
        told = self._told
        take_off_others(patcher)
        alone = one_branch(guider)
        shortened = self._mode == "adaptive" or (self._mode == "paper" and not alone)
        shortened = shortened and "context_handler" not in guider.model_options  # several a step
        inside = code_inside(patcher, guider.model_options)
        obstacle = inside or why_not_data(patcher, guider.model_options)
        # code inside a forward pass may mix tokens at one noise level and not at another
        tokens = tokens_of(patcher.model.diffusion_model) if inside is None else None
        by_nodes = obstacle is not None and (not alone or shape[0] > 1 or tokens is not None)
        divided = alone and (tokens is not None or shape[0] > 1)
        sampling = patcher.get_model_object("model_sampling")
        flow = isinstance(sampling, comfy.model_sampling.CONST)
        schedule = [float(sigma) for sigma in sigmas.tolist()]
        course = Course.of(
            self._mode if shortened else "exact",
            tuning,
            schedule,
            flow,
            lambda: matrix(sampler, guider, sigmas),
            denoise_mask,
            starting_cfg(guider),
        )
        pipeline = None
        if shortened and not divided and not by_nodes and not hooks.any_in(guider.conds):
            cuts = self._session.cuts.setdefault(patcher.model, {})
            pipeline = Pipeline(course, cuts, shape)
        report = Report(
            self._mode,
            tolerance=tuning.tolerance if self._mode == "adaptive" else None,
            total=max(0, len(schedule) - 1),
        )

        def rent() -> list[Lease]:
            every = allowed(self._session.every(), tuning)
            if obstacle is not None and not by_nodes:
                raise NotPartitionable(str(obstacle))
            told.brought = brought = Brought(guider.conds, patcher, self._origin.graph, shape)
            if by_nodes or brought.loads or (alone and shape[0] == 1):
                every = on_this_computer(every)
            if by_nodes:
                every = every[:1]  # a replayed model is tried on one worker
            source, told.replayed = self._source(patcher, obstacle, every[0].worker, shape, brought)
            tick = comfy.model_management.throw_exception_if_processing_interrupted
            report.devices = [own_name()]
            leases = []
            for holdings in every:
                device = holdings.worker.device
                support.check_place(patcher, device)
                report.devices.append(device.label)
                theirs = self._session.source_for(device, source)
                leases.append(Lease(holdings, theirs, tick, report, tuning))
            if told.replayed is not None:
                told.replayed.on_change = leases[0].likeness.doubt
            return leases

        return Driver(
            course, pipeline, rent, report, self._watcher, self._announce, alone, CANCELLED,
            tokens=tokens,
        )  # fmt: skip

    def _source(
        self,
        patcher: ModelPatcher,
        obstacle: NotPartitionable | None,
        worker: Worker,
        shape: tuple[int, ...],
        brought: Brought,
    ) -> tuple[ReplicaSource | ReplaySource, Replayed | None]:
        """How the worker is to get the model, and the trial of one made by nodes.

        Raises NotPartitionable.

        obstacle: why it cannot be described as data.
        """
        session, attached = self._session, self._origin.model
        if obstacle is None:
            return ReplicaSource(patcher, session.model_gone, shape, brought, attached), None
        if brought.hooks.patches:
            raise NotPartitionable(f"hooks on the conditioning, and {obstacle}")
        try:
            path = self._origin.path()
            session.replays.check(path, worker)
        except NotPartitionable as error:
            raise NotPartitionable(f"{obstacle}; {error}") from error
        gone, replays = session.model_gone, session.replays
        source = ReplaySource(patcher, gone, path, replays, shape, brought, attached)
        trial = session.replays.trial(source.key, shape, path)
        return source, Replayed(trial, patcher, attached)

    def predict_noise(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        denoised = executor(*args, **kwargs)
        if self._driver is not None:
            self._driver.guided(denoised)
        return denoised

    def calc_cond_batch(
        self, executor: Any, model: Any, conds: Any, x: Any, sigma: Any, model_options: Any
    ) -> Any:
        if self._driver is None:
            return executor(model, conds, x, sigma, model_options)
        if model is not self._guider.model_patcher.model:
            self._driver.leave(ANOTHER_MODEL)
            return executor(model, conds, x, sigma, model_options)
        hooks.advance(model.current_patcher, conds, sigma, model_options)
        cfg = cfg_of(self._guider)  # which CFGOverride sets for an evaluation
        call = ComfyCall(executor, model, conds, x, sigma, model_options, self._told, cfg)
        return call.result(self._driver.evaluate(call))


def tokens_of(network: torch.nn.Module) -> TokenSharing | None:
    """None where no tokens go from block to block."""
    try:
        return TokenSharing(network)
    except NotSplittable:
        return None
