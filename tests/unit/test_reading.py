"""How often a run's decisions read a number back from its device: each is a wait for it."""

from __future__ import annotations

import pytest
import torch
from samplers import adams_bashforth, euler
from test_course import SIGMAS, STEPS, Run, course
from torch.overrides import TorchFunctionMode

READ = {
    "item", "tolist", "numpy", "cpu", "nonzero", "equal", "allclose",
    "__bool__", "__float__", "__int__", "__index__", "__contains__",
}  # fmt: skip


class Reads(TorchFunctionMode):
    """Counts what would wait for a device: the latents are in fp32, the sampler's matrix is not."""

    def __init__(self):
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        reads = getattr(function, "__name__", "") in READ
        self.count += reads and args[0].dtype == torch.float32
        return function(*args, **(kwargs or {}))


class Counted(Run):
    """`reads`: of each call, the decision, its arithmetic and what it learns."""

    def __init__(self, course, sampler):
        self.reads = []
        super().__init__(course, sampler)

    def predict(self, x, sigma):
        with Reads() as reads:
            out = super().predict(x, sigma)
        self.reads.append(reads.count)
        return out


@pytest.mark.parametrize("sampler", [euler, adams_bashforth])
@pytest.mark.parametrize("kinds", [("forecast",), ("pipelined",), ("forecast", "pipelined")])
def test_a_call_of_any_kind_reads_once(sampler, kinds):
    run = Counted(course(sampler, tolerance=1e9, kinds=frozenset(kinds), largest_gap=2), sampler)
    assert len(run.kinds) == STEPS == len(SIGMAS) - 1
    assert run.kinds.count("E") < STEPS
    # one by the decision, one by the test's own model: float(sigma)
    assert run.reads == [2] * STEPS


def test_reading_is_seen():
    with Reads() as reads:
        one = torch.ones(2)
        bool(one[0]), float(one[0]), one.tolist(), one[0].item(), int(one[0])
    assert reads.count == 5
