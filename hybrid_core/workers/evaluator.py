"""The worker's side of every verb: replicas, contexts, and parts of evaluations."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from hybrid_core.errors import NotSplittable, ProtocolError
from hybrid_core.stages.attention import Attention
from hybrid_core.stages.staging import Boundaries, Each, Forward
from hybrid_core.stages.swap import Splitter
from hybrid_core.stages.tokens import Link, Plans, TokenDivider, dividing, recording
from hybrid_core.workers.contract import Part, Pictures

Tensor = torch.Tensor
CONTEXTS_KEPT = 4  # by both processes, oldest out first


def latents_and_level(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What an evaluation is given: (B, ...), and sigma or a timestep. Raises ProtocolError."""
    if len(inputs) != 2:
        raise ProtocolError(f"{len(inputs)} tensors came, expected latents and a noise level")
    return inputs[0], inputs[1]


class Models(Protocol):
    """The models of one framework; made after the process has become like its parent."""

    device: torch.device
    attention: Attention  # where its networks call it

    def load(self, data: Any) -> Any:
        """Make the replica that `data` describes, in place of the one before; its portrait."""
        ...

    def network(self) -> nn.Module:
        """Of the replica. Raises ProtocolError when there is none."""
        ...

    def context(self, data: Any) -> Any:
        """What `evaluate` takes, from data on this device. Raises ProtocolError."""
        ...

    def context_of(self, context: Any, pictures: Pictures) -> Any:
        """What `evaluate` takes for these pictures of the batch that `context` is of."""
        ...

    def evaluate(self, context: Any, inputs: Sequence[Tensor], each: Each | None) -> list[Tensor]:
        """One output for each branch of the context; `each` runs the forward passes.

        inputs: for `latents_and_level`. Raises ProtocolError.
        """
        ...

    def forget(self, base_key: str) -> None: ...
    def status(self) -> dict[str, Any]: ...

    def interrupt(self, value: bool) -> None:
        """Make the running evaluation stop at its next operation, or let the next one run."""
        ...

    def after_failure(self) -> None:
        """Give memory back, so that a failed evaluation does not make the next one fail."""
        ...


class Evaluator:
    """Does what a worker is asked."""

    def __init__(self, models: Models):
        self.models = models
        self._contexts: OrderedDict[int, Any] = OrderedDict()
        self._split: Splitter | None = None
        self._tokens: TokenDivider | None = None

    def load(self, data: Any) -> Any:
        self._split = self._tokens = None
        return self.models.load(data)

    def hold(self, number: int, data: Any) -> None:
        self._contexts[number] = self.models.context(data)
        while len(self._contexts) > CONTEXTS_KEPT:
            self._contexts.popitem(last=False)

    def forget(self, base_key: str) -> None:
        self._contexts.clear()
        self._split = self._tokens = None
        self.models.forget(base_key)

    def evaluate(
        self, number: int, inputs: Sequence[Tensor], part: Part, link: Link | None = None
    ) -> tuple[list[Tensor], Boundaries | None]:
        """Outputs of the context's branches, and what a unit returned where that is asked for.

        link: to the others, for a part of the tokens.
        """
        if number not in self._contexts:
            raise ProtocolError(f"an evaluation asks for context {number}, which is not held")
        context = self._contexts[number]
        inputs = [tensor.to(self.models.device) for tensor in inputs]
        if part.pictures is not None:
            came = len(latents_and_level(inputs)[0])
            if came != part.pictures.count:
                raise ProtocolError(f"{came} pictures came, expected {part.pictures}")
            context = self.models.context_of(context, part.pictures)
        taken: Boundaries = {}
        if part.upto is not None:
            stop = self._stopping(part.upto, taken)
            self.models.evaluate(context, inputs, stop)
            return [], taken
        if part.keep is not None:
            keep = self._keeping(part.keep, taken)
            return self.models.evaluate(context, inputs, keep), taken
        each = None
        if part.recorded:
            each = recording(self._divider())
        elif part.tokens is not None and link is not None:
            each = dividing(self._divider(), link)
        outputs = self.models.evaluate(context, inputs, each)
        others = part.tokens is not None and part.tokens.place > 0
        return [] if others else outputs, None

    def _divider(self) -> TokenDivider:
        if self._tokens is None:
            self._tokens = TokenDivider(self.models.network(), Plans(), self.models.attention)
        return self._tokens

    def _stopping(self, last: int, taken: Boundaries) -> Each:
        splitter = self._splitter(last)

        def stop(key: str, x: Tensor, forward: Forward) -> Tensor:
            taken[key] = splitter.stage_a(forward, last)
            return x  # nobody looks at it

        return stop

    def _keeping(self, last: int, taken: Boundaries) -> Each:
        splitter = self._splitter(last)

        def capture(key: str, _: Tensor, forward: Forward) -> Any:
            result, taken[key] = splitter.capture(forward, last)
            return result

        return capture

    def _splitter(self, last: int) -> Splitter:
        if self._split is None:
            self._split = Splitter(self.models.network())
        count = len(self._split.layout.units)
        if last >= count:
            raise NotSplittable(f"there is no block {last}, the network has {count}")
        return self._split
