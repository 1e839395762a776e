"""Attaching to a pipeline: its network's forward is replaced for a while, nothing else."""

from __future__ import annotations

import atexit
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from hybrid_core.config import DEVICE_VARIABLE, Settings, Tuning, WorkerDevice, check_mode
from hybrid_core.course.course import Course
from hybrid_core.diffusers_bridge import worker_side
from hybrid_core.diffusers_bridge.call import PipelineCall
from hybrid_core.diffusers_bridge.replica import ReplicaSource, check_network, output
from hybrid_core.diffusers_bridge.scheduler_trace import matrix
from hybrid_core.diffusers_bridge.space import Elsewhere, Schedule, Space
from hybrid_core.driver.driver import Driver
from hybrid_core.driver.pipeline import Pipeline
from hybrid_core.driver.tokens import TokenSharing
from hybrid_core.errors import NotPartitionable, NotSplittable
from hybrid_core.machine import devices
from hybrid_core.stages.staging import Cuts
from hybrid_core.telling.report import Nobody, Report
from hybrid_core.workers.lease import Lease
from hybrid_core.workers.pool import Pool, allowed
from hybrid_core.workers.process.worker import ProcessWorker

log = logging.getLogger("hybrid_ksampler")
DEFAULTS = Tuning()
NOBODY = Nobody()
ONE_PICTURE = "this call is without guidance and of one picture, so there is nothing to divide"
_cuts = Cuts()
_pools: dict[str, Pool] = {}  # by the workers' devices


def log_report(report: Report) -> None:
    log.info("%s", report.line())


def pool_on(*devices: WorkerDevice, settings: Settings | None = None) -> Pool:
    """A worker of its own on each device, started on first use, ended with the program."""
    made = Pool(
        settings or Settings(),
        lambda chosen: [ProcessWorker(one, chosen, worker_side.models, {}) for one in devices],
    )
    atexit.register(made.stop)
    return made


def default_pool(own: torch.device) -> Pool:
    """The program's workers on GPUs other than `own`, or where DEVICE_VARIABLE says.

    Raises NotPartitionable when there is no second device.
    """
    chosen = devices.for_workers(own, os.environ.get(DEVICE_VARIABLE), "torch").chosen
    name = "; ".join(device.label for device in chosen)
    if name not in _pools:
        _pools[name] = pool_on(*chosen)
    return _pools[name]


@contextmanager
def hybrid(
    pipe: Any,
    mode: str = "adaptive",
    tuning: Tuning = DEFAULTS,
    pool: Pool | None = None,
    on_report: Callable[[Report], None] = log_report,
    wait_seconds: float = 0.0,
) -> Iterator[list[Report]]:
    """Calls of a diffusers pipeline in here evaluate one branch of guidance in a second process.

    Yields the list of the calls' reports; on_report gets each when its call is over, the last one
    on leaving. pool: the worker, the program's own by default. wait_seconds: how long a call may
    wait for the worker; it starts without it otherwise and shares its steps from the moment the
    worker is up. A pipeline that cannot be shared runs as it is, and its report says why. Raises
    ConfigError for a mode that is not known.
    """
    check_mode(mode)
    if mode == "off":
        yield []
        return
    attachment = Attachment(pipe, mode, tuning, pool, on_report, wait_seconds)
    with attachment.attached():
        yield attachment.reports


class Attachment:
    """The replaced forward of one pipeline's network, and the pipeline call that is under way."""

    def __init__(
        self,
        pipe: Any,
        mode: str,
        tuning: Tuning,
        pool: Pool | None,
        on_report: Callable[[Report], None],
        wait_seconds: float,
    ):
        self._network: Any = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
        self._pipe, self._mode, self._tuning, self._pool = pipe, mode, tuning, pool
        self._on_report, self._wait_seconds = on_report, wait_seconds
        self._timesteps: Any = None  # of the call under way: each call has a tensor of its own
        self._rows = 0  # of its first joint batch
        self._space: Space = Elsewhere()
        self._driver: Driver | None = None
        self.reports: list[Report] = []

    def _obstacle(self) -> str | None:
        """Why the network's forward cannot be replaced."""
        try:
            check_network(self._network)
        except NotPartitionable as error:
            return str(error)
        if "forward" in vars(self._network) and not hasattr(self._network, "_hf_hook"):
            return "another tool has replaced the forward pass of the network"
        return None

    @contextmanager
    def attached(self) -> Iterator[None]:
        obstacle = self._obstacle()
        if obstacle is not None:
            self.reports.append(Report(self._mode, status="done", reasons=[obstacle]))
            yield
            self._on_report(self.reports[0])
            return
        own = vars(self._network)
        before = own.get("forward")  # an offloading hook's
        self._original = self._network.forward
        self._signature = inspect.signature(self._original)
        own["forward"] = self._forward
        status = "failed"
        try:
            yield
            status = "done"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            if before is None:
                del own["forward"]
            else:
                own["forward"] = before
            self._finish(status)

    def _forward(self, *args: Any, **keywords: Any) -> Any:
        arguments = self._signature.bind(*args, **keywords).arguments
        x: torch.Tensor = next(iter(arguments.values()))
        driver = self._current(x)
        rest = self._space, self._guided, self._rows
        call = PipelineCall(self._network, self._original, arguments, *rest)
        sample = call.result(driver.evaluate(call))
        return output(self._network, sample, arguments.get("return_dict", True))

    @property
    def _guided(self) -> bool:
        """A pipeline that was not called yet, while another one uses its network, cannot say."""
        return bool(getattr(self._pipe, "do_classifier_free_guidance", False))

    def _current(self, x: torch.Tensor) -> Driver:
        """The driver of the pipeline call under way; the first evaluation makes it."""
        timesteps = self._pipe.scheduler.timesteps
        if self._driver is None or self._timesteps is not timesteps:
            self._finish("done")
            self._timesteps, self._rows = timesteps, len(x)
            self._driver = self._new_driver(x)
        return self._driver

    def _new_driver(self, x: torch.Tensor) -> Driver:
        pipe, tuning = self._pipe, self._tuning
        guided, mode, flow = self._guided, self._mode, False
        report = Report(mode, tolerance=tuning.tolerance if mode == "adaptive" else None)
        self.reports.append(report)
        schedule: list[float] = []
        try:
            self._space = known = Schedule(pipe.scheduler, x.device)
            schedule, flow = known.sigmas, known.flow
        except NotPartitionable as error:
            self._space = Elsewhere()
            if guided and mode != "exact":
                report.unshortened = str(error)
        report.total = max(0, len(schedule) - 1)
        cfg = float(pipe.guidance_scale) if guided else 1.0
        staged = guided and mode != "exact" and bool(schedule)
        course = Course.of(
            mode if staged else "exact",
            tuning,
            schedule,
            flow,
            lambda: matrix(pipe.scheduler, Schedule(pipe.scheduler, x.device)),
            cfg=cfg,
            joined=not getattr(pipe, "guidance_rescale", 0.0) > 0.0,
            rounding=torch.finfo(x.dtype).eps,
        )
        pipeline, tokens = None, None
        if not guided:
            with suppress(NotSplittable):
                tokens = TokenSharing(self._network)
        if staged:
            pipeline = Pipeline(course, _cuts.setdefault(self._network, {}), x.shape)

        def rent() -> list[Lease]:
            pool = self._pool or default_pool(pipe._execution_device)
            source = ReplicaSource(self._network)
            return [
                Lease(holdings, source, lambda: None, report, tuning)
                for holdings in allowed(pool.every(), tuning)
            ]

        driver = Driver(
            course, pipeline, rent, report, NOBODY, log.debug, not guided, KeyboardInterrupt,
            self._wait_seconds, tokens,
        )  # fmt: skip
        nothing_to_share = not guided and len(x) == 1 and tokens is None
        driver.prepare(len(x), ONE_PICTURE if nothing_to_share else None)
        return driver

    def _finish(self, status: str) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.finish(status)
            self._on_report(driver.report)
