"""The one worker of this ComfyUI: made on first use, ended when idle or when models are freed."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from hybrid_core.comfy_bridge import parent_process
from hybrid_core.comfy_bridge.replica import ReplicaSource
from hybrid_core.config import DEVICE_VARIABLE, Settings, WorkerDevice
from hybrid_core.errors import WorkerError, WorkerTimeout
from hybrid_core.machine import devices
from hybrid_core.stages.plan import Cut
from hybrid_core.telling.report import Report
from hybrid_core.workers.lease import Partner, Run
from hybrid_core.workers.process.host import WorkerHost

log = logging.getLogger("hybrid_ksampler")
WATCH_SECONDS = 1.0
STATUS_SECONDS = 2.0
STOP_SECONDS = 2.0  # for a run's request that is under way


class Session:
    """Keeps the partner between prompts and looks after its end."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.active_runs = 0
        self.cuts: weakref.WeakKeyDictionary[Any, dict[tuple[int, ...], Cut]] = (
            weakref.WeakKeyDictionary()
        )  # by model and latent shape: where its network is cut
        self.busy: Callable[[], bool] = lambda: False  # whether a prompt is being executed
        self.on_change: Callable[[], None] = lambda: None  # of the worker's state or last error
        self._making = threading.Lock()  # of what follows: a button and a prompt may ask at once
        self._partner: Partner | None = None
        self._unanswered = (-1, 0.0)  # the latest question about its state, and when it was asked
        self._watch: threading.Thread | None = None

    def partner(self) -> Partner:
        """The partner of this process. Raises NotPartitionable when there is no second device."""
        with self._making:
            if self._partner is None:
                host = WorkerHost(self.device(), self.settings, parent_process.describe())
                self._partner = Partner(host)
            if self._watch is None or not self._watch.is_alive():
                self._watch = threading.Thread(
                    target=self._watching, name="hybrid-watch", daemon=True
                )
                self._watch.start()
            return self._partner

    def bring_up(self, patcher: ModelPatcher, seconds: float) -> bool:
        """Start the worker and give it `patcher`'s model now. False when it was not up in time.

        Raises NotPartitionable.
        """
        partner = self.partner()
        comfy.model_management.load_models_gpu([patcher])
        source = ReplicaSource(patcher, self.model_gone)
        tick = comfy.model_management.throw_exception_if_processing_interrupted
        self.active_runs += 1
        try:
            return Run(partner, source, tick, Report()).ready(seconds)
        finally:
            self.active_runs -= 1

    def model_gone(self, base_key: str) -> None:
        """The parent let go of a model; the worker is told before its next load."""
        if self._partner is not None:
            self._partner.to_forget.append(base_key)

    def stop(self) -> None:
        """End the worker, also one that does not answer. The next run starts another one."""
        partner = self._partner
        if partner is None:
            return
        host = partner.host
        if not host.lock.acquire(timeout=STOP_SECONDS):
            host.end_process()
            return
        try:
            host.stop()
            partner.contexts.clear()
        finally:
            host.lock.release()

    def start(self) -> None:
        """Start the worker without a model. Raises NotPartitionable, WorkerFailed."""
        host = self.partner().host
        with host.lock:
            host.start()

    def keep_idle(self, seconds: float) -> None:
        """How long an unused worker is kept. Raises ConfigError."""
        self.settings = replace(self.settings, idle_seconds=seconds)

    @property
    def host(self) -> WorkerHost | None:
        return None if self._partner is None else self._partner.host

    @property
    def replica_name(self) -> str | None:
        """Class of the model that the worker holds."""
        return None if self._partner is None else self._partner.replica_name

    def state(self) -> str:
        """Of the worker: none, starting, ready or busy."""
        host = self.host
        if host is None or host.pid is None:
            return "none"
        if host.start_seconds is None and not self._came_up(host):
            return "starting"
        return "busy" if self.active_runs else "ready"

    @staticmethod
    def _came_up(host: WorkerHost) -> bool:
        with host.lock:
            try:
                return host.ready()
            except WorkerError as error:
                host.kill(str(error))
                return False

    def status(self) -> dict[str, Any]:
        """What the worker says of itself; empty while it has something else to do."""
        partner = self._partner
        if partner is None or not partner.host.lock.acquire(blocking=False):
            return {}
        try:
            return {} if self.active_runs or partner.awaits_load else self._asked(partner.host)
        except WorkerError as error:
            partner.host.kill(str(error))
            return {}
        finally:
            partner.host.lock.release()

    def _asked(self, host: WorkerHost) -> dict[str, Any]:
        if host.pid is None or not host.ready():
            return {}
        if not host.idle():
            number, since = self._unanswered
            if (
                host.under_way == number
                and time.monotonic() - since > host.settings.request_seconds
            ):
                raise WorkerTimeout("the worker does not answer")
            return {}
        used = host.last_used  # being looked at is not being used
        number = host.post("status", {})
        self._unanswered = number, time.monotonic()
        try:
            return dict(host.wait(number, "ok", STATUS_SECONDS).fields)
        except WorkerTimeout:
            return {}  # a busy machine; the answer is dropped when it comes
        finally:
            host.last_used = used

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
            now = self.state(), self.host.last_error if self.host else None
            if now != seen:
                seen = now
                self.on_change()

    def _why_stop(self) -> str | None:
        partner = self._partner
        if partner is None or partner.host.pid is None or self.active_runs or self.busy():
            return None
        if time.monotonic() - partner.host.last_used > self.settings.idle_seconds:
            return f"unused for {self.settings.idle_seconds:.0f} s"
        if partner.key is not None and not comfy.model_management.current_loaded_models:
            return "ComfyUI has freed its models"
        return None


SESSION = Session(Settings())
atexit.register(SESSION.stop)
