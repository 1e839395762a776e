"""The worker's verbs, said to a process."""

from __future__ import annotations

from typing import Any

import torch

from hybrid_core.errors import ProtocolError
from hybrid_core.planning.tokens import Link
from hybrid_core.transport import wire
from hybrid_core.transport.carry import Carried, unflatten
from hybrid_core.transport.exchange import MOST_TURNS
from hybrid_core.workers.contract import Answer, Part, Tick, Tokens
from hybrid_core.workers.process.gathering import ProcessLink, parents_side
from hybrid_core.workers.process.host import Host
from hybrid_core.workers.process.parts import fields_of

Tensor = torch.Tensor


class ProcessWorker(Host):
    """A `Worker` that is a process of its own."""

    _link: ProcessLink | None = None  # of the latest request by tokens

    def prefer(self, data_plane: str) -> None:
        self.planes.want(data_plane)

    @property
    def data_plane_missed(self) -> str | None:
        return self.planes.missed

    @property
    def measured_link(self) -> Link | None:
        return self.planes.link

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
        named = fields_of(part)
        if part.tokens is not None:
            named["patience"] = int(self.settings.load_seconds * 1000)
        number = self.post("evaluate", {"context": context, **named}, [x, sigma])
        if part.tokens is not None:
            self.keep_free(MOST_TURNS)
        return number

    def link(
        self, number: int, tokens: Tokens, seconds: float, tick: Tick, device: torch.device
    ) -> ProcessLink:
        channel, arena = self._require_channel(), self._require_arena()
        self._link = parents_side(
            channel, arena, number, tokens, seconds, tick, device, self.take_as_answered
        )
        return self._link

    def answered(self, number: int) -> bool:
        return self.replied(number)

    def collect(
        self, number: int, part: Part, seconds: float, tick: Tick, device: torch.device
    ) -> Answer:
        exchanged = self._link if part.tokens is not None else None
        after = None if exchanged is None else exchanged.number + 1
        reply = self.wait(number, "result", seconds, tick, device, after)
        boundaries = unflatten(reply.fields.get("boundaries"), reply.tensors)
        if not isinstance(boundaries, dict | None):
            raise ProtocolError(f"features at the cut are {str(boundaries)[:80]}, expected by name")
        theirs = wire.whole_number(reply.fields, "micros") / 1e6
        gathered = 0.0
        if part.tokens is not None:
            gathered = wire.whole_number(reply.fields, "gathered") / 1e6
        return Answer(reply.tensors[: part.gives], boundaries, theirs, gathered=gathered)
