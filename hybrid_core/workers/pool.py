"""From devices to workers: made on first use, kept between runs, those of most use first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hybrid_core.config import Settings, Tuning
from hybrid_core.errors import NotPartitionable, WorkerError, WorkerTimeout
from hybrid_core.workers.contract import Worker, settle
from hybrid_core.workers.holdings import Holdings

STATUS_SECONDS = 2.0
STOP_SECONDS = 2.0  # for a run's request that is under way


def allowed(every: Sequence[Holdings], tuning: Tuning) -> Sequence[Holdings]:
    """Of the workers that a run may have. Raises NotPartitionable when it may have none."""
    if tuning.most_devices == 1:
        raise NotPartitionable("Hybrid Options allows one GPU")
    return every[: tuning.most_devices - 1] if tuning.most_devices else every


def on_this_computer(every: Sequence[Holdings]) -> Sequence[Holdings]:
    """Raises NotPartitionable when there are none."""
    here = [holdings for holdings in every if not holdings.worker.device.remote]
    if not here:
        raise NotPartitionable(
            "another computer takes whole prompts and pictures of plain models; ControlNets, other "
            "nodes' code and one prompt's tokens (cfg 1) need a second GPU in this computer"
        )
    return here


class Pool:
    """Makes workers, starts and ends them, and says how they are. Workers are told by number."""

    def __init__(self, settings: Settings, make: Callable[[Settings], Sequence[Worker]]):
        """make: one or more workers; raises NotPartitionable when there is no device for any."""
        self.settings = settings
        self.active_runs = 0
        self._make = make
        self._making = threading.Lock()  # a button and a prompt may ask at once
        self._every: list[Holdings] = []

    def every(self) -> list[Holdings]:
        """Of all workers. Raises NotPartitionable when there is no second device."""
        with self._making:
            if not self._every:
                self._every = [Holdings(worker) for worker in self._make(self.settings)]
            return self._every

    def holdings(self, number: int = 0) -> Holdings:
        """Raises NotPartitionable when there is no such device."""
        every = self.every()
        if not 0 <= number < len(every):
            raise NotPartitionable(f"there is no worker {number}, expected 0 to {len(every) - 1}")
        return every[number]

    @property
    def made(self) -> list[Holdings]:
        """Of the workers that were made so far; none is made for this."""
        return self._every

    @property
    def worker(self) -> Worker | None:
        """The first one."""
        return self._worker(0)

    def _worker(self, number: int) -> Worker | None:
        every = self._every  # which another thread may replace
        return every[number].worker if number < len(every) else None

    def model_gone(self, base_key: str) -> None:
        """The parent let go of a model; the workers are told before their next load."""
        for holdings in self._every:
            holdings.to_forget.append(base_key)

    def start(self, number: int = 0) -> None:
        """Start a worker without a model. Raises NotPartitionable, WorkerFailed."""
        worker = self.holdings(number).worker
        with worker.lock:
            worker.start()

    def stop(self, number: int | None = None) -> None:
        """End a worker or all, also one that does not answer. The next run starts another one."""
        every = self._every if number is None else self._every[number : number + 1]
        for holdings in every:
            self._stop(holdings)

    def disband(self) -> None:
        """End all workers and make others for the next run."""
        with self._making:
            every, self._every = self._every, []
        for holdings in every:
            self._stop(holdings)

    @staticmethod
    def _stop(holdings: Holdings) -> None:
        worker = holdings.worker
        if not worker.lock.acquire(timeout=STOP_SECONDS):
            worker.abandon()
            return
        try:
            worker.stop()
            holdings.contexts.clear()
        finally:
            worker.lock.release()

    def state(self, number: int = 0) -> str:
        """Of a worker: none, starting, ready or busy."""
        worker = self._worker(number)
        if worker is None or not worker.alive:
            return "none"
        if worker.start_seconds is None and not self._came_up(worker):
            return "starting"
        return "busy" if self.active_runs else "ready"

    @staticmethod
    def _came_up(worker: Worker) -> bool:
        with worker.lock:
            try:
                return worker.ready()
            except WorkerError as error:
                settle(worker, error)
                return False

    def status(self, number: int = 0) -> dict[str, Any]:
        """What a worker says of itself; empty while it has something else to do."""
        every = self._every
        if number >= len(every):
            return {}
        holdings = every[number]
        worker = holdings.worker
        if not worker.lock.acquire(blocking=False):
            return {}
        used = worker.last_used  # being looked at is not being used
        try:
            busy = self.active_runs or holdings.awaits_load or not worker.alive
            if busy or not worker.ready() or not worker.idle():
                return {}
            with suppress(WorkerTimeout):  # a busy machine; the answer is dropped when it comes
                return worker.status(STATUS_SECONDS)
            return {}
        except WorkerError as error:
            settle(worker, error)
            return {}
        finally:
            worker.last_used = used
            worker.lock.release()

    def unused_seconds(self, number: int = 0) -> float | None:
        """Since a worker was asked something; None while it works or there is none."""
        worker = self._worker(number)
        if worker is None or not worker.alive or self.active_runs:
            return None
        return time.monotonic() - worker.last_used
