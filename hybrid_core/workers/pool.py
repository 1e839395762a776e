"""From devices to workers: one worker today, made on first use and kept between runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hybrid_core.config import Settings
from hybrid_core.errors import WorkerError, WorkerTimeout
from hybrid_core.workers.contract import Worker, settle
from hybrid_core.workers.holdings import Holdings

STATUS_SECONDS = 2.0
STOP_SECONDS = 2.0  # for a run's request that is under way


class Pool:
    """Makes workers, starts and ends them, and says how they are."""

    def __init__(self, settings: Settings, make: Callable[[Settings], Worker]):
        """make: raises NotPartitionable when there is no device for a worker."""
        self.settings = settings
        self.active_runs = 0
        self._make = make
        self._making = threading.Lock()  # a button and a prompt may ask at once
        self._holdings: Holdings | None = None

    def holdings(self) -> Holdings:
        """Of the worker. Raises NotPartitionable when there is no second device."""
        with self._making:
            if self._holdings is None:
                self._holdings = Holdings(self._make(self.settings))
            return self._holdings

    @property
    def worker(self) -> Worker | None:
        return None if self._holdings is None else self._holdings.worker

    @property
    def replica_name(self) -> str | None:
        """Class of the model that the worker holds."""
        return None if self._holdings is None else self._holdings.replica_name

    def model_gone(self, base_key: str) -> None:
        """The parent let go of a model; the worker is told before its next load."""
        if self._holdings is not None:
            self._holdings.to_forget.append(base_key)

    def start(self) -> None:
        """Start the worker without a model. Raises NotPartitionable, WorkerFailed."""
        worker = self.holdings().worker
        with worker.lock:
            worker.start()

    def stop(self) -> None:
        """End the worker, also one that does not answer. The next run starts another one."""
        holdings = self._holdings
        if holdings is None:
            return
        worker = holdings.worker
        if not worker.lock.acquire(timeout=STOP_SECONDS):
            worker.abandon()
            return
        try:
            worker.stop()
            holdings.contexts.clear()
        finally:
            worker.lock.release()

    def state(self) -> str:
        """Of the worker: none, starting, ready or busy."""
        worker = self.worker
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

    def status(self) -> dict[str, Any]:
        """What the worker says of itself; empty while it has something else to do."""
        holdings, worker = self._holdings, self.worker
        if holdings is None or worker is None or not worker.lock.acquire(blocking=False):
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

    def unused_seconds(self) -> float | None:
        """Since the worker was asked something; None while it works or there is none."""
        worker = self.worker
        if worker is None or not worker.alive or self.active_runs:
            return None
        return time.monotonic() - worker.last_used
