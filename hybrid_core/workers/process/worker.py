"""The worker's verbs, said to a process."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import torch

from hybrid_core.errors import ProtocolError
from hybrid_core.transport import wire
from hybrid_core.transport.carry import Carried, unflatten
from hybrid_core.workers.contract import Answer, Part, Tick
from hybrid_core.workers.process.host import Host

Tensor = torch.Tensor


class ProcessWorker(Host):
    """A `Worker` that is a process of its own."""

    def prefer(self, data_plane: str) -> None:
        self.planes.want(data_plane)

    @property
    def data_plane_missed(self) -> str | None:
        return self.planes.missed

    def load(self, replica: Carried, tick: Tick) -> int:
        return self.post_any_size("load", {"data": replica.tree}, replica.tensors, tick)

    def loaded(self, number: int, seconds: float) -> Any | None:
        if seconds > 0 and not self.replied(number):
            return None
        portrait = self.wait(number, "ok", 0.0).fields.get("portrait")
        if portrait is None:
            raise ProtocolError("the worker loaded a model and did not describe it")
        return portrait

    def hold(self, number: int, context: Carried, tick: Tick) -> None:
        fields = {"data": context.tree, "context": number}
        asked = self.post_any_size("conds", fields, context.tensors, tick)
        self.wait(asked, "ok", self.settings.request_seconds, tick)

    def forget(self, base_key: str, tick: Tick) -> None:
        number = self.post("forget", {"base_key": base_key}, (), tick)
        self.wait(number, "ok", self.settings.request_seconds, tick)

    def status(self, seconds: float, tick: Tick | None = None) -> dict[str, Any]:
        return self.wait(self.post("status", {}, (), tick), "ok", seconds, tick).fields

    def evaluate(self, context: int, x: Tensor, sigma: Tensor, part: Part) -> int:
        units = {"upto": part.upto, "keep": part.keep}
        named: dict[str, Any] = {name: at for name, at in units.items() if at is not None}
        if part.pictures is not None:
            named["pictures"] = list(astuple(part.pictures))
        return self.post("evaluate", {"context": context, **named}, [x, sigma])

    def collect(
        self, number: int, part: Part, seconds: float, tick: Tick, device: torch.device
    ) -> Answer:
        reply = self.wait(number, "result", seconds, tick, device)
        count = 0 if part.upto is not None else len(part.branches)
        boundaries = unflatten(reply.fields.get("boundaries"), reply.tensors)
        if not isinstance(boundaries, dict | None):
            raise ProtocolError(f"features at the cut are {str(boundaries)[:80]}, expected by name")
        theirs = wire.whole_number(reply.fields, "micros") / 1e6
        return Answer(reply.tensors[:count], boundaries, theirs)
