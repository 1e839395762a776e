"""Attaching to a pipeline: its network's forward is replaced for a while, nothing else."""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hybrid_core.config import Tuning, check_mode
from hybrid_core.course.policy import policy_for
from hybrid_core.course.stepper import Stepper
from hybrid_core.diffusers_bridge.branches import divided
from hybrid_core.diffusers_bridge.parallelism import Parallelism
from hybrid_core.diffusers_bridge.partition import Partition
from hybrid_core.diffusers_bridge.partner import default_partner
from hybrid_core.diffusers_bridge.replica import ReplicaSource, check_network, output
from hybrid_core.diffusers_bridge.space import Schedule
from hybrid_core.diffusers_bridge.staging import Staging
from hybrid_core.errors import NotPartitionable, NotSplittable
from hybrid_core.stages.plan import Cut
from hybrid_core.telling.report import Report
from hybrid_core.workers.lease import Partner, Run

log = logging.getLogger("hybrid_ksampler")
DEFAULTS = Tuning()
# by network and latent shape: where earlier calls have cut it
_cuts: weakref.WeakKeyDictionary[nn.Module, dict[torch.Size, Cut]] = weakref.WeakKeyDictionary()


def log_report(report: Report) -> None:
    log.info("%s", report.line())


@contextmanager
def hybrid(
    pipe: Any,
    mode: str = "adaptive",
    tuning: Tuning = DEFAULTS,
    partner: Partner | None = None,
    on_report: Callable[[Report], None] = log_report,
    wait_seconds: float = 0.0,
) -> Iterator[list[Report]]:
    """Calls of a diffusers pipeline in here evaluate one branch of guidance in a second process.

    Yields the list of the calls' reports; on_report gets each when its call is over, the last one
    on leaving. partner: the worker, the program's own by default. wait_seconds: how long a call may
    wait for the worker; it starts without it otherwise and shares its steps from the moment the
    worker is up. A pipeline that cannot be shared runs as it is, and its report says why. Raises
    ConfigError for a mode that is not known.
    """
    check_mode(mode)
    if mode == "off":
        yield []
        return
    attachment, report = None, Report(mode)
    try:
        attachment = Attachment(pipe, mode, tuning, partner, on_report, wait_seconds)
    except NotPartitionable as error:
        report.reasons.append(f"runs as it is, on one device: {error}")
    if attachment is None:
        yield [report]
        on_report(report)
        return
    with attachment.attached():
        yield attachment.reports


class Attachment:
    """The replaced forward of one pipeline's network, and the pipeline call that is under way."""

    def __init__(
        self,
        pipe: Any,
        mode: str,
        tuning: Tuning,
        partner: Partner | None,
        on_report: Callable[[Report], None],
        wait_seconds: float,
    ):
        """Raises NotPartitionable."""
        network: Any = pipe.unet if hasattr(pipe, "unet") else getattr(pipe, "transformer", None)
        check_network(network)
        self._network = network
        if "forward" in vars(self._network) and not hasattr(self._network, "_hf_hook"):
            raise NotPartitionable("another tool has replaced the forward pass of the network")
        self._partner = partner or default_partner(pipe._execution_device)
        self._pipe, self._mode, self._tuning = pipe, mode, tuning
        self._on_report, self._wait_seconds = on_report, wait_seconds
        self._original = self._network.forward
        self._signature = inspect.signature(self._original)
        self._timesteps: Any = None  # of the call under way: each call has a tensor of its own
        self._partition: Partition | None = None
        self.reports: list[Report] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        own = vars(self._network)
        before = own.get("forward")  # an offloading hook's
        own["forward"] = self._forward
        try:
            yield
        finally:
            if before is None:
                del own["forward"]
            else:
                own["forward"] = before
            self._finish()

    def _forward(self, *args: Any, **keywords: Any) -> Any:
        arguments = self._signature.bind(*args, **keywords).arguments
        x = next(iter(arguments.values()))
        partition = self._current(x)

        def whole() -> torch.Tensor:
            return self._original(**{**arguments, "return_dict": False})[0]  # type: ignore[no-any-return]

        if not self._pipe.do_classifier_free_guidance:
            sample = partition.single(whole)
        else:
            try:
                uncond, cond = divided(arguments)
            except NotPartitionable as error:
                partition.note(str(error))
                sample = partition.alone(whole)
            else:
                sample = partition.evaluate(uncond, cond, whole)
        return output(self._network, sample, arguments.get("return_dict", True))

    def _current(self, x: torch.Tensor) -> Partition:
        """The partition of the pipeline call under way; the first evaluation makes it."""
        timesteps = self._pipe.scheduler.timesteps
        if self._partition is None or self._timesteps is not timesteps:
            self._finish()
            self._timesteps = timesteps
            report = Report(self._mode)
            self.reports.append(report)
            self._partition = self._begin(x, report)
        return self._partition

    def _begin(self, x: torch.Tensor, report: Report) -> Partition:
        run = parallelism = None
        try:
            if not self._pipe.do_classifier_free_guidance:
                raise NotPartitionable("this call is without guidance, so it has one branch only")
            source = ReplicaSource(self._network)
            run = Run(self._partner, source, lambda: None, report, self._tuning)
            parallelism = self._parallelism(x)
        except NotPartitionable as error:
            report.reasons.append(f"runs as it is, on one device: {error}")
        except NotSplittable as error:
            report.reasons.append(f"both branches in full at every step: {error}")
        return Partition(self._original, run, parallelism, report, self._wait_seconds)

    def _parallelism(self, x: torch.Tensor) -> Parallelism | None:
        """Raises NotSplittable where this call can have no Parallelism stage."""
        if self._mode == "exact":
            return None
        try:
            schedule = Schedule(self._pipe.scheduler, x.device)
        except NotPartitionable as error:
            raise NotSplittable(str(error)) from error
        cfg = float(self._pipe.guidance_scale)
        policy = policy_for(self._mode, self._tuning, schedule.sigmas, schedule.flow, cfg)
        look_ahead = self._tuning.look_ahead and policy.guided
        rescaled = getattr(self._pipe, "guidance_rescale", 0.0) > 0.0
        repays = policy.guided and not rescaled
        stepper = Stepper(
            policy, schedule.sigmas, look_ahead=look_ahead, cfg=cfg if repays else None
        )
        cuts = _cuts.setdefault(self._network, {})
        return Parallelism(stepper, schedule, Staging(self._network, cuts, x.shape))

    def _finish(self) -> None:
        partition, self._partition = self._partition, None
        if partition is None:
            return
        partition.finish()
        self._on_report(partition.report)
