"""Which data plane the parent uses with its worker, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from mmap import mmap

import torch

from hybrid_core.config import AUTO, Settings, WorkerDevice
from hybrid_core.errors import PlaneUnavailable, WorkerDied, WorkerTimeout
from hybrid_core.planning.tokens import Link
from hybrid_core.transport.arenas.arena import Arena
from hybrid_core.transport.channel import Channel
from hybrid_core.transport.choice import planes
from hybrid_core.transport.choice.agreement import Agreement, Side

log = logging.getLogger("hybrid_ksampler")


class PlaneChoice:
    """Begins on shared host memory with each new worker; a choice is made when it is up."""

    def __init__(
        self, device: WorkerDevice, settings: Settings, make_side: Callable[..., Side] = Side
    ):
        """make_side: of this process, from the shared block and the worker's device."""
        self.plane = planes.HOST
        self.reason: str | None = None  # why it is not a better one, or the wanted one
        self.link: Link | None = None  # as fast as the self-test found it
        self._device, self._settings, self._make_side = device, settings, make_side
        self._wanted = settings.data_plane
        self._chosen_for: str | None = None  # what was wanted then
        self._agreement: Agreement | None = None
        self._unsound: dict[str, str] = {}  # planes that cost a worker, and how

    def want(self, plane: str) -> None:
        """A word of DATA_PLANES; auto: the settings'."""
        self._wanted = self._settings.data_plane if plane == AUTO else plane

    @property
    def missed(self) -> str | None:
        """In words, when the plane that was asked for by name is not the one in use."""
        if self._wanted in (AUTO, self.plane):
            return None
        return f"data plane {self._wanted} could not be used, {self.plane} was ({self.reason})"

    @property
    def under_way(self) -> bool:
        return self._agreement is not None

    @property
    def up_to_date(self) -> bool:
        return self._chosen_for == self._wanted

    def choose(self, channel: Channel, block: mmap, present: Arena, number: int) -> bool:
        """Begin to choose. True when there is nothing to choose."""
        self._chosen_for = self._wanted
        on_gpus = not self._device.cores and torch.cuda.is_available()
        obstacle = planes.obstacle_to_ipc(self._device)
        order, reasons = planes.to_try(self._wanted, on_gpus, obstacle)
        reasons += [f"{plane}: {why}" for plane, why in self._unsound.items() if plane in order]
        order = [plane for plane in order if plane not in self._unsound]
        self.reason = "; ".join(reasons) or None
        if self.plane == planes.HOST and order == [planes.HOST]:
            return True
        side, seconds = self._make_side(block, self._device), self._settings.plane_seconds
        self._agreement = Agreement(channel, side, order, present, number, seconds)
        return False

    def taken(self) -> tuple[Arena, int] | None:
        """The chosen arena and the number of the latest request; None while it goes on.

        Raises PlaneUnavailable when the worker must be ended and another plane be chosen with the
        next one, WorkerDied, WorkerTimeout.
        """
        agreement = self._agreement
        assert agreement is not None
        if not agreement.done():
            if agreement.overdue():
                raise WorkerTimeout("a CUDA call of the data planes' self-test does not return")
            return None
        if agreement.unsound is not None:
            plane, why = agreement.unsound
            if plane == planes.HOST:
                raise WorkerDied(f"the worker was lost while a data plane was chosen: {why}")
            self._unsound[plane] = why
            raise PlaneUnavailable(f"data plane {plane} cost the worker in its self-test: {why}")
        self._agreement, self.plane, self.link = None, agreement.plane, agreement.link
        self.reason = "; ".join([*filter(None, [self.reason]), *agreement.reasons]) or None
        log.info(
            "data plane: %s%s%s",
            self.plane,
            f", {self.link}" if self.link else "",
            f" ({self.reason})" if self.reason else "",
        )
        return agreement.arena, agreement.number

    def end(self, arena: Arena | None) -> None:
        """The worker has ended: close what it shared with this process."""
        agreement, self._agreement = self._agreement, None
        self.plane, self.reason, self._chosen_for = planes.HOST, None, None
        self.link = None
        if agreement is not None:
            agreement.abandon()
        elif arena is not None:
            arena.close()
