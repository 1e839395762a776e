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
import torch
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import elsewhere, parent_process, support, worker_side
from hybrid_core.comfy_bridge.elsewhere import NOWHERE, Elsewhere
from hybrid_core.comfy_bridge.replayed import Replays
from hybrid_core.comfy_bridge.replica import RemoteSource, ReplicaSource
from hybrid_core.config import DEVICE_VARIABLE, Settings, WorkerDevice
from hybrid_core.errors import ConfigError, NotPartitionable
from hybrid_core.machine import devices
from hybrid_core.machine.devices import Choice
from hybrid_core.stages.staging import Cuts
from hybrid_core.telling.report import Report
from hybrid_core.workers.holdings import Holdings
from hybrid_core.workers.lease import Lease
from hybrid_core.workers.likeness import Source
from hybrid_core.workers.pool import Pool
from hybrid_core.workers.process.worker import ProcessWorker

log = logging.getLogger("hybrid_ksampler")
WATCH_SECONDS = 1.0


class Session(Pool):
    """Keeps the workers between prompts and looks after their end."""

    def __init__(self, settings: Settings):
        super().__init__(settings, self._processes)
        self.elsewhere = NOWHERE
        self.cuts = Cuts()
        self.replays = Replays()
        self.busy: Callable[[], bool] = lambda: False  # whether a prompt is being executed
        self.on_change: Callable[[], None] = lambda: None  # of the worker's state or last error
        self._watch: threading.Thread | None = None
        self._without_models: set[int] = set()  # workers, at the last look

    def _processes(self, settings: Settings) -> list[ProcessWorker]:
        """Local ones first: they can do more."""
        boot, remote = parent_process.describe(), self.elsewhere.devices()
        try:
            local = self.devices().chosen
        except NotPartitionable:
            if not remote:
                raise
            local = ()
        made = [ProcessWorker(device, settings, worker_side.models, boot) for device in local]
        for place, device in enumerate(remote):
            told = elsewhere.boot(self.elsewhere, place, boot)
            made.append(ProcessWorker(device, settings, elsewhere.relay, told))
        return made

    def source_for(self, device: WorkerDevice, source: Source) -> Source:
        """How the worker on `device` gets the model of `source`."""
        if device.remote and isinstance(source, ReplicaSource):
            return RemoteSource(source, self.elsewhere.send_weights)
        return source

    def look_elsewhere(self, found: Elsewhere) -> None:
        """Other computers from now on; every worker is ended where that changes something."""
        if found != self.elsewhere:
            self.elsewhere = found
            self.disband()

    def every(self) -> list[Holdings]:
        found = super().every()
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
        support.check_model(patcher)
        source = self.source_for(holdings.worker.device, ReplicaSource(patcher, self.model_gone))
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
    def devices() -> Choice:
        """The workers'. Raises NotPartitionable when there is none."""
        own = comfy.model_management.get_torch_device()
        return devices.for_workers(own, os.environ.get(DEVICE_VARIABLE))

    def _watching(self) -> None:
        seen: Any = None
        while True:
            time.sleep(WATCH_SECONDS)
            try:
                seen = self._look_after(seen)
            except Exception:  # whatever the host's functions raise, workers are looked after
                log.debug("a look after the workers failed", exc_info=True)

    def _look_after(self, seen: Any) -> Any:
        """End the workers that nobody needs. `seen`: what came of the last look."""
        for number, holdings in enumerate(self.made):
            why = self._why_stop(number, holdings)
            if why is not None:
                log.info("worker stopped: %s", why)
                self.stop(number)
        now = [
            (self.state(number), holdings.worker.last_error)
            for number, holdings in enumerate(self.made)
        ]
        if now != seen:
            self.on_change()
        return now

    def _why_stop(self, number: int, holdings: Holdings) -> str | None:
        seen_before = number in self._without_models
        self._without_models.discard(number)
        unused = self.unused_seconds(number)
        if unused is None or self.busy():
            return None
        if unused > self.settings.idle_seconds:
            return f"unused for {self.settings.idle_seconds:.0f} s"
        # an entry without a patcher is a model that ComfyUI let go of and other code still holds,
        # or, for a moment after a prompt, one whose patcher gives way to the one it is a clone of
        entries = comfy.model_management.current_loaded_models
        if holdings.holds_model and not any(entry.model is not None for entry in entries):
            if seen_before:
                return "ComfyUI has freed its models"
            self._without_models.add(number)
        return None


def own_name() -> str:
    """Of the device that this process computes on."""
    device = comfy.model_management.get_torch_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


SESSION = Session(Settings())
try:
    SESSION.look_elsewhere(elsewhere.by_environment())
except ConfigError as error:
    log.warning("%s", error)
atexit.register(SESSION.stop)
