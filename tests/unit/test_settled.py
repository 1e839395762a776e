"""Times of work on a GPU are taken when it is done."""

from __future__ import annotations

import time

import torch

from hybrid_core.machine.settled import settled


class Stream:
    """A stream that is done after a while."""

    def __init__(self, device):
        self.device = device

    def synchronize(self):
        time.sleep(0.05)


def test_a_gpus_stream_is_waited_for_and_nothing_else(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda d: asked.append(d) or Stream(d))
    monkeypatch.setattr(torch.cuda, "synchronize", None)  # device-wide: an error when called
    before = time.monotonic()
    assert settled(torch.device("cuda", 1)) - before >= 0.05
    assert asked == [torch.device("cuda", 1)]


def test_a_processor_is_done_when_the_call_returns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", None)
    assert settled(torch.device("cpu")) <= time.monotonic()
