"""Both stages of every family of networks give what the whole network gives, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from stage_families import FAMILIES, Family, noise, runner
from torch import nn

from hybrid_core.errors import NotSplittable
from hybrid_core.stages.plan import Cut
from hybrid_core.stages.swap import Splitter, alike, copied, placeholder, tensors


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@dataclass
class Case:
    """A network, a call of it and what the call gives, and a call with another latent."""

    family: Family
    network: nn.Module
    forward: Callable[[], torch.Tensor]
    plain: torch.Tensor
    other: Callable[[], torch.Tensor]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    family = FAMILIES[request.param]
    network = family.network()
    forward, other = runner(network, family), runner(network, family, seed=9)
    with torch.inference_mode():
        return Case(family, network, forward, forward(), other)


def same(a: Any, b: Any) -> bool:
    return alike(a, b) and all(map(torch.equal, tensors(a), tensors(b)))


def check_every_cut(network: nn.Module, forward: Callable[[], Any], plain: Any) -> Splitter:
    """Record once; then both stages at each cut give `plain`."""
    splitter = Splitter(network)
    result, _ = splitter.record(forward)
    assert same(result, plain)
    assert splitter.layout.cuts
    for cut in splitter.layout.cuts:
        result, boundary = splitter.capture(forward, cut.last)
        assert same(result, plain), cut
        assert same(splitter.stage_a(forward, cut.last), boundary), cut
        assert splitter.fits(cut, boundary), cut
        sent = copied(boundary)
        assert same(splitter.stage_b(forward, cut, boundary), plain), cut
        assert same(boundary, sent), cut
    return splitter


def modules(network: nn.Module) -> dict[str, int]:
    return {name: id(module) for name, module in network.named_modules()}


# every family


def test_recording_shows_each_block_and_changes_nothing(case):
    splitter = Splitter(case.network)
    result, recording = splitter.record(case.forward)
    assert torch.equal(result, case.plain)
    assert result.isfinite().all()
    assert result.std() > 0.1
    units = splitter.layout.units
    assert {unit.name.partition(".")[0] for unit in units} == set(case.family.blocks)
    assert recording.order == list(range(len(units)))
    assert len(recording.seconds()) == len(units)
    assert all(recording.positions[index] > 0 for index in range(len(units)))
    assert any(splitter.weights(index) for index in range(len(units)))


def test_every_cut_gives_the_result_of_the_whole_network(case):
    check_every_cut(case.network, case.forward, case.plain)


def test_another_boundary_gives_another_result(case):
    splitter = Splitter(case.network)
    splitter.record(case.forward)
    for cut in splitter.layout.cuts:
        boundary = splitter.stage_a(case.other, cut.last)
        assert splitter.fits(cut, boundary)
        result = splitter.stage_b(case.forward, cut, boundary)
        assert result.isfinite().all(), cut
        assert (result - case.plain).abs().max() > 1e-3, cut


def test_a_stage_runs_its_own_blocks_and_no_others(case):
    splitter = Splitter(case.network)
    splitter.record(case.forward)
    units = splitter.layout.units
    ran: list[int] = []
    hooks = [
        unit.module.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
        for index, unit in enumerate(units)
    ]
    try:
        for cut in splitter.layout.cuts:
            boundary = splitter.stage_a(case.forward, cut.last)
            assert ran == list(range(cut.last + 1))
            ran.clear()
            splitter.stage_b(case.forward, cut, boundary)
            assert ran == [*range(cut.first), *range(cut.last + 1, len(units))]
            ran.clear()
    finally:
        for hook in hooks:
            hook.remove()


def test_network_is_as_before_after_an_error_too(case):
    before, keys = modules(case.network), list(case.network.state_dict())
    splitter = Splitter(case.network)
    cut = splitter.layout.cuts[0]
    splitter.record(case.forward)
    _, boundary = splitter.capture(case.forward, cut.last)
    splitter.stage_b(case.forward, cut, boundary)
    assert modules(case.network) == before

    def fail(*_: Any) -> None:
        assert modules(case.network) != before
        raise ArithmeticError

    hook = splitter.layout.units[-1].module.register_forward_pre_hook(fail)
    try:
        for run in (
            lambda: splitter.capture(case.forward, cut.last),
            lambda: splitter.stage_b(case.forward, cut, boundary),
            lambda: splitter.record(case.forward),
        ):
            with pytest.raises(ArithmeticError):
                run()
    finally:
        hook.remove()
    assert modules(case.network) == before
    assert list(case.network.state_dict()) == keys
    assert torch.equal(case.forward(), case.plain)


# what else may change a forward


def scaled(attention: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
    """Another change in each transformer, as an attention patch sees them."""
    return attention * (1 + 0.1 * extra["transformer_index"]) + 0.01 * extra["block"][1]


def shifted(x: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
    return x + 0.1 * extra["transformer_index"]


def test_every_cut_gives_the_same_with_attention_patches():
    family = FAMILIES["sd15"]
    network = family.network()
    patches = {"attn2_output_patch": [scaled], "middle_patch": [shifted]}
    forward = runner(network, family, transformer_options={"patches": patches})
    plain = forward()
    assert not torch.equal(plain, runner(network, family)())
    check_every_cut(network, forward, plain)


def unet_control(network: nn.Module, family: Family) -> dict[str, list[torch.Tensor]]:
    """Residuals of a ControlNet and an adapter; a U-Net takes each list from its end."""
    shapes: list[torch.Size] = []
    spy = {"input_block_patch": [lambda h, _: shapes.append(h.shape) or h]}
    runner(network, family, transformer_options={"patches": spy})()
    skips = [noise(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    return {"output": skips, "middle": [noise(*shapes[-1])], "input": skips[::-1]}


def flux_control(network: nn.Module, family: Family) -> dict[str, list[torch.Tensor]]:
    tokens = (1, 16, 32)
    return {"input": [noise(*tokens, seed=1)] * 2, "output": [noise(*tokens, seed=2)] * 3}


@pytest.mark.parametrize(("name", "residuals"), [("sd15", unet_control), ("flux", flux_control)])
def test_every_cut_gives_the_same_with_controlnet_residuals(name, residuals, caplog):
    family = FAMILIES[name]
    network = family.network()
    forward = runner(network, family, control=residuals(network, family))
    plain = forward()
    assert not torch.equal(plain, runner(network, family)())
    check_every_cut(network, forward, plain)
    assert not caplog.records  # ComfyUI's warning that a residual did not fit


@pytest.mark.parametrize("in_place", [False, True])
def test_every_cut_gives_the_same_with_compiled_blocks(in_place):
    torch._dynamo.reset()
    family = FAMILIES["flux"]
    network = family.network()
    plain = runner(network, family)()
    for blocks in (network.double_blocks, network.single_blocks):
        if in_place:
            blocks[1].compile(backend="eager")
        else:
            blocks[1] = torch.compile(blocks[1], backend="eager")
    check_every_cut(network, runner(network, family), plain)


def test_a_block_put_in_place_of_another_is_used_and_kept():
    family = FAMILIES["flux"]
    network, donor = family.network(), family.network()
    nn.init.normal_(donor.single_blocks[1].linear2.weight, std=0.2)
    splitter = Splitter(network)
    network.single_blocks[1] = donor.single_blocks[1]
    forward = runner(network, family)
    plain = forward()
    for cut in (splitter.layout.cuts[0], splitter.layout.cuts[-1]):
        assert torch.equal(splitter.record(forward)[0], plain)
        boundary = splitter.stage_a(forward, cut.last)
        assert torch.equal(splitter.stage_b(forward, cut, boundary), plain)
    assert network.single_blocks[1] is donor.single_blocks[1]


def test_every_cut_of_a_unet_of_diffusers_gives_the_result_of_the_whole():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
    ).eval()

    def forward():
        return network(noise(1, 4, 8, 8), 500, noise(1, 5, 16), return_dict=False)[0]

    splitter = check_every_cut(network, forward, forward())
    assert splitter.layout.cuts == [Cut(1, 5), Cut(2, 4)]


# what cannot be cut


class Toy(nn.Module):
    """Runs its blocks in a given order; `late` also takes what the first block gave."""

    def __init__(self, order: list[int], late: int | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.order, self.late = order, late

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        early = None
        for index in self.order:
            x = self.blocks[index](x + early if index == self.late else x)
            early = x if early is None else early
        return x


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([0, 1, 1, 2, 3], "5 of 4 blocks ran"),
        ([0, 1, 3], "3 of 4 blocks ran"),
        ([1, 0, 2, 3], "another order"),
    ],
)
def test_blocks_that_do_not_run_once_and_in_order_are_not_splittable(order, said):
    network = Toy(order)
    before = modules(network)
    with pytest.raises(NotSplittable, match=said):
        Splitter(network).record(lambda: network(noise(1, 4)))
    assert modules(network) == before


@pytest.mark.parametrize(("order", "said"), [([0, 1, 1, 2, 3], "2 times"), ([0, 2, 3], "0 times")])
def test_a_last_block_that_does_not_run_once_has_no_boundary(order, said):
    network = Toy(order)
    with pytest.raises(NotSplittable, match=said):
        Splitter(network).capture(lambda: network(noise(1, 4)), 1)


def test_stage_a_without_its_last_block_is_not_splittable():
    network = Toy([0, 2, 3])
    with pytest.raises(NotSplittable, match=r"blocks\.1 did not run"):
        Splitter(network).stage_a(lambda: network(noise(1, 4)), 1)


def test_a_skip_over_the_cut_shows_as_nan():
    network = Toy([0, 1, 2, 3], late=3)
    splitter = Splitter(network)
    result, _ = splitter.record(lambda: network(noise(1, 4)))
    assert result.isfinite().all()
    boundary = splitter.stage_a(lambda: network(noise(1, 4)), 2)
    assert splitter.stage_b(lambda: network(noise(1, 4)), Cut(0, 2), boundary).isnan().all()


class Nested(nn.Module):
    """Levels of blocks, of which only the blocks are called: Stable Cascade."""

    def __init__(self) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(nn.ModuleList([nn.Linear(4, 4)]) for _ in range(2))
        self.up_blocks = nn.ModuleList(nn.ModuleList([nn.Linear(4, 4)]) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for level in (*self.down_blocks, *self.up_blocks):
            for block in level:
                x = block(x)
        return x


def test_levels_that_are_never_called_are_not_splittable():
    network = Nested()
    with pytest.raises(NotSplittable, match="0 of 2 blocks ran"):
        Splitter(network).record(lambda: network(noise(1, 4)))


@pytest.mark.parametrize("network", [nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))])
def test_a_network_without_known_blocks_is_not_splittable(network):
    with pytest.raises(NotSplittable, match=f"in a {type(network).__name__}"):
        Splitter(network)


def test_a_known_family_without_its_blocks_is_not_splittable():
    network = FAMILIES["flux"].network()
    del network.single_blocks
    with pytest.raises(NotSplittable, match="a Flux without 'single_blocks'"):
        Splitter(network)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_is_not_splittable(in_place):
    network = Toy([0, 1, 2, 3])
    if in_place:
        network.compile(backend="eager")
    else:
        network = torch.compile(network, backend="eager")
    with pytest.raises(NotSplittable, match="compiled"):
        Splitter(network)


# sizes


def test_a_boundary_fits_only_the_sizes_that_were_recorded():
    family = FAMILIES["flux"]
    network = family.network()
    splitter, forward = Splitter(network), runner(network, family)
    for cut in splitter.layout.cuts:
        boundary = splitter.stage_a(forward, cut.last)
        assert not Splitter(network).fits(cut, boundary)
        splitter.record(forward)
        assert splitter.fits(cut, boundary)
        larger = torch.cat([*tensors(boundary)[:1]] * 2, dim=1)
        halves = [tensor.half() for tensor in tensors(boundary)]
        for other in (larger, [larger, larger], (larger, larger), halves[0], tuple(halves), None):
            assert not splitter.fits(cut, other)


def test_a_recording_that_fails_leaves_no_sizes_behind():
    network = Toy([0, 1, 2, 3])
    splitter = Splitter(network)
    splitter.record(lambda: network(noise(1, 4)))
    with pytest.raises(RuntimeError):
        splitter.record(lambda: network(noise(1, 5)))
    assert not splitter.fits(Cut(0, 2), noise(1, 4))


def test_a_network_that_another_thread_uses_is_left_as_it_is():
    network = Toy([0, 1, 2, 3])
    blocks, (one, other) = list(network.blocks), (Splitter(network) for _ in range(2))

    def meanwhile():
        with pytest.raises(NotSplittable, match="another thread"):
            other.record(lambda: network(noise(1, 4)))
        return network(noise(1, 4))

    one.record(meanwhile)
    assert list(network.blocks) == blocks


def test_placeholders_of_one_size_are_one_tensor():
    places: dict[Any, torch.Tensor] = {}
    first = placeholder((noise(2, 3), {"a": noise(3, 2)}), places)
    again = placeholder((noise(2, 3), {"a": torch.zeros(3, 2, dtype=torch.int)}), places)
    assert first[0] is again[0]
    assert first[0].isnan().all()
    assert again[1]["a"].dtype == torch.int
    assert len(places) == 3
