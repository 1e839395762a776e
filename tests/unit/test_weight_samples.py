"""Numbers of weights, as torch does not count every write."""

from __future__ import annotations

import pytest
import torch

from hybrid_core.stages.weight_samples import PLACES, WeightSampler

pytestmark = pytest.mark.usefixtures("inferring")
CPU = torch.device("cpu")


def changed(tensors, write, device=CPU):
    """What is said after `write`; None when nothing was seen."""
    sampler = WeightSampler(tensors, device)
    before = sampler.read([*tensors.values()])
    assert before == sampler.read([*tensors.values()])
    write()
    after = sampler.read([*tensors.values()])
    said = before.changed(after)
    assert (said is None) == (before == after)
    return said


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("shape", [(1,), (3,), (PLACES,), (5, 7), (4, 4, 3, 3)])
def test_any_size_and_type(shape, dtype):
    tensors = {name: torch.ones(shape, dtype=dtype) for name in "abc"}
    assert changed(tensors, lambda: tensors["b"].add_(1)) == "b"


def test_tensors_of_several_types():
    tensors = {"a": torch.ones(9), "b": torch.ones(9).half(), "c": torch.ones(9).half()}
    assert changed(tensors, lambda: tensors["c"].zero_()) == "c"


@pytest.mark.parametrize("half", [slice(0, 32), slice(32, 64)])
def test_half_of_a_weight(half):
    tensors = {"a": torch.ones(64, 16)}
    assert changed(tensors, lambda: tensors["a"][half].mul_(2)) == "a"


def test_what_cannot_be_read_in_place_is_left_out():
    tensors = {"a": torch.ones(0), "b": torch.ones(4, 4).t(), "c": torch.ones(())}
    assert changed(tensors, lambda: [tensor.zero_() for tensor in tensors.values()]) == "c"


@torch.inference_mode(False)
def test_a_write_through_data_that_torch_does_not_count():
    weight = torch.nn.Parameter(torch.ones(4))
    version = weight._version
    assert changed({"a": weight}, lambda: weight.data.zero_()) == "a"
    assert weight._version == version


def test_weights_elsewhere_are_not_read():
    tensors = {"a": torch.ones(4)}
    assert changed(tensors, lambda: tensors["a"].zero_(), torch.device("meta")) is None


@pytest.mark.parametrize("shape", [(64, 16), (320, 9, 3, 3), (3072, 768), (4, 64), (2, 7)])
def test_all_but_the_first_of_an_axis(shape):
    for axis, _ in enumerate(shape[:2]):
        tensors = {"a": torch.ones(shape)}
        rest = tensors["a"].narrow(axis, 1, shape[axis] - 1)
        assert changed(tensors, lambda rest=rest: rest.mul_(2)) == "a"
