"""Contexts that a worker was told: both sides keep the same ones."""

from __future__ import annotations

import pytest
import torch

from hybrid_core.transport.carry import carry
from hybrid_core.workers.contract import Part
from hybrid_core.workers.evaluator import CONTEXTS_KEPT
from hybrid_core.workers.holdings import Holdings
from hybrid_core.workers.inline import InlineWorker


class Words:
    """A model whose prediction is its prompt."""

    device = torch.device("cpu")

    def context(self, data):
        return data["words"]

    def evaluate(self, context, inputs, each):
        return [context + 0]


@pytest.fixture
def prompts():
    with torch.inference_mode():  # torch counts no writes
        yield [torch.full((1, 4), float(number)) for number in range(CONTEXTS_KEPT + 1)]


@pytest.fixture
def ask():
    worker = InlineWorker(Words)
    worker.start()
    holdings, part = Holdings(worker), Part((0,))
    holdings.sync()

    def ask(words):
        number = holdings.context_number(carry({"words": words}, "conditioning"), lambda: None)
        request = worker.evaluate(number, torch.zeros(1, 4), torch.zeros(1), part)
        answer = worker.collect(request, part, 1.0, lambda: None, torch.device("cpu"))
        assert torch.equal(answer.outputs[0], words)
        return number

    return ask


def test_a_prompt_that_was_written_to_takes_a_place_of_its_own(ask, prompts):
    kept = prompts[:CONTEXTS_KEPT]
    numbers = [ask(words) for words in kept]
    assert [ask(words) for words in kept] == numbers, "held already"
    kept[-1].add_(1)
    assert ask(kept[-1]) not in numbers
    assert [ask(words) for words in kept[1:-1]] == numbers[1:-1]
    assert ask(kept[0]) not in numbers, "the oldest one went"


def test_a_prompt_that_is_written_to_at_each_step(ask, prompts):
    for _ in range(3 * CONTEXTS_KEPT):
        ask(prompts[0])
        ask(prompts[1].mul_(1.5))
