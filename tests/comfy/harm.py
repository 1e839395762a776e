"""For tests that harm the worker: an undisturbed run, and the runs that must work afterwards."""

from __future__ import annotations

import os

import pytest
import torch
from helpers import Watched, bring_up, sample

KIND = "mmdit"


@pytest.fixture
def model(demo):
    return demo[KIND]


@pytest.fixture
def reference(demo):
    return sample(demo[KIND], KIND)


@pytest.fixture(scope="module")
def partitioned(demo, session):
    """What an undisturbed shared run gives: a disturbed one must give the same bits."""
    bring_up(session, demo[KIND])
    return sample(Watched(demo[KIND], session).model, KIND)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def next_run_works(session, model, partitioned):
    """After whatever happened: two more prompts, shared again."""
    for _ in range(2):
        bring_up(session, model)
        watched = Watched(model, session)
        assert torch.equal(sample(watched.model, KIND), partitioned)
        assert watched.reports[0].local == 0
