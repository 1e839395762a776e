"""The workers of this ComfyUI: ended when idle or when models are freed."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import parent_process, worker_side
from hybrid_core.comfy_bridge.replayed import Replays
from hybrid_core.comfy_bridge.replica import ReplicaSource
from hybrid_core.config import DEVICE_VARIABLE, Settings, WorkerDevice
from hybrid_core.machine import devices
from hybrid_core.stages.staging import Cuts
from hybrid_core.telling.report import Report
from hybrid_core.workers.holdings import Holdings
from hybrid_core.workers.lease import Lease
from hybrid_core.workers.pool import Pool
from hybrid_core.workers.process.worker import ProcessWorker

log = logging.getLogger("hybrid_ksampler")
WATCH_SECONDS = 1.0


class Session(Pool):
    """Keeps the worker between prompts and looks after its end."""

    def __init__(self, settings: Settings):
        super().__init__(settings, self._process)
        self.cuts = Cuts()
        self.replays = Replays()
        self.busy: Callable[[], bool] = lambda: False  # whether a prompt is being executed
        self.on_change: Callable[[], None] = lambda: None  # of the worker's state or last error
        self._watch: threading.Thread | None = None

    def _process(self, settings: Settings) -> ProcessWorker:
        return ProcessWorker(self.device(), settings, worker_side.models, parent_process.describe())

    def holdings(self) -> Holdings:
        found = super().holdings()
        with self._making:
            if self._watch is None or not self._watch.is_alive():
                self._watch = threading.Thread(
                    target=self._watching, name="hybrid-watch", daemon=True
                )
                self._watch.start()
        return found

    def bring_up(self, patcher: ModelPatcher, seconds: float) -> bool:
        """Start the worker and give it `patcher`'s model now. False when it was not up in time.

        Raises NotPartitionable.
        """
        holdings = self.holdings()
        comfy.model_management.load_models_gpu([patcher])
        source = ReplicaSource(patcher, self.model_gone)
        tick = comfy.model_management.throw_exception_if_processing_interrupted
        self.active_runs += 1
        try:
            return Lease(holdings, source, tick, Report()).ready(seconds)
        finally:
            self.active_runs -= 1

    def keep_idle(self, seconds: float) -> None:
        """How long an unused worker is kept. Raises ConfigError."""
        self.settings = replace(self.settings, idle_seconds=seconds)

    @staticmethod
    def device() -> WorkerDevice:
        """The worker's. Raises NotPartitionable when there is none."""
        own = comfy.model_management.get_torch_device()
        return devices.for_worker(own, os.environ.get(DEVICE_VARIABLE))

    def _watching(self) -> None:
        seen: Any = None
        while True:
            time.sleep(WATCH_SECONDS)
            why = self._why_stop()
            if why is not None:
                log.info("worker stopped: %s", why)
                self.stop()
            now = self.state(), self.worker.last_error if self.worker else None
            if now != seen:
                seen = now
                self.on_change()

    def _why_stop(self) -> str | None:
        unused = self.unused_seconds()
        if unused is None or self.busy():
            return None
        if unused > self.settings.idle_seconds:
            return f"unused for {self.settings.idle_seconds:.0f} s"
        if self.holdings().holds_model and not comfy.model_management.current_loaded_models:
            return "ComfyUI has freed its models"
        return None


SESSION = Session(Settings())
atexit.register(SESSION.stop)
