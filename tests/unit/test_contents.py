"""Writes under inference mode are noticed though torch does not count them."""

from __future__ import annotations

import pytest
import torch

from hybrid_core.machine.contents import Contents


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def changed_by(tensor, change):
    contents = Contents([torch.zeros(3), tensor])
    contents.ask()
    assert not contents.changed()
    change(tensor)
    contents.ask()
    return contents.changed()


CHANGES = {
    "scaled": lambda t: t.mul_(1.5),
    "negated": lambda t: t.neg_(),
    "one number": lambda t: t.reshape(-1)[5:6].add_(1),
    "the last number": lambda t: t.reshape(-1)[-1:].add_(1),
    "tokens rolled": lambda t: t.copy_(t.roll(1, 1)),
    "a token copied over another": lambda t: t[:, 2].copy_(t[:, 7]),
    "filled": lambda t: t.zero_(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_kind_of_write_is_noticed(dtype, change):
    assert changed_by(torch.randn(1, 77, 64).to(dtype), change)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 7, 3), (2, 5)])
def test_small_and_odd_sizes(shape):
    assert changed_by(torch.randn(shape).half(), lambda t: t.add_(1))
    assert not changed_by(torch.randn(shape).half(), lambda t: None)


def test_a_view_with_gaps():
    whole = torch.randn(4, 77, 64)
    assert changed_by(whole[:, ::2], lambda t: t[0, 1].add_(1))
    assert not changed_by(whole[:, ::2], lambda t: whole[0, 1].add_(1)), "not a part of it"


def test_no_numbers_and_no_tensors():
    contents = Contents([torch.zeros(0, 4)])
    contents.ask()
    assert not contents.changed()


def test_what_torch_counts_is_left_to_torch():
    with torch.inference_mode(False):
        tensor = torch.zeros(8)
    contents = Contents([tensor])
    version = tensor._version
    with torch.inference_mode(False):
        tensor.add_(1)
    contents.ask()
    assert not contents.changed()
    assert tensor._version > version
