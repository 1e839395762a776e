"""The units of a network: which of its modules are blocks, and where it may be cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from hybrid_core.errors import NotSplittable
from hybrid_core.stages import plan

# Containers of the blocks that one state runs through, in their order. A network that is not here
# is taken to have its blocks in the largest list that it holds.
CHAINS: dict[str, tuple[str, ...]] = {
    "Flux": ("double_blocks", "single_blocks"),
    "Chroma": ("double_blocks", "single_blocks"),
    "HunyuanVideo": ("double_blocks", "single_blocks"),
    "NextDiT": ("noise_refiner", "layers"),
    "MMDiT": ("double_layers", "single_layers"),
    "HiDreamImageTransformer2DModel": ("double_stream_blocks", "single_stream_blocks"),
    "OmniGen2Transformer2DModel": ("noise_refiner", "layers"),
}
MIRRORED = {"HunYuanDiT"}
LEAST_UNITS = 2


@dataclass
class Unit:
    """One block, and the place that its network takes it from."""

    holder: nn.Module
    key: str
    name: str

    def __post_init__(self) -> None:
        module = self.holder._modules[self.key]
        assert module is not None
        self.module = module


@dataclass
class Layout:
    """A network's units and the cuts it allows."""

    units: list[Unit]
    cuts: list[plan.Cut]


def layout(network: nn.Module) -> Layout:
    """Units and cuts of `network`. Raises NotSplittable."""
    if hasattr(network, "_orig_mod"):
        raise NotSplittable("the whole network is compiled by torch.compile")
    if hasattr(network, "output_blocks"):
        made = _unet(network, network.input_blocks, network.middle_block, network.output_blocks)
    elif hasattr(network, "up_blocks"):
        made = _coarse_unet(network)
    else:
        made = _chain(network)
    if len(made.units) < LEAST_UNITS or not made.cuts:
        raise NotSplittable(f"no blocks were found in a {type(network).__name__}")
    return made


def _units(holder: nn.Module, name: str) -> list[Unit]:
    return [Unit(holder, key, f"{name}.{key}") for key in holder._modules]


def _unet(network: nn.Module, down: nn.Module, middle: nn.Module, up: nn.Module) -> Layout:
    """ComfyUI's U-Nets: their blocks are lists of layers, the layers are the units."""
    blocks = [
        *_blocks(down, "input_blocks"),
        ("middle_block", middle),
        *_blocks(up, "output_blocks"),
    ]
    units = [unit for name, block in blocks for unit in _units(block, name)]
    sizes = [len(block._modules) for _, block in blocks]
    n = len(down._modules)
    return Layout(units, plan.u_shaped(sizes[:n], sizes[n], sizes[n + 1 :]))


def _coarse_unet(network: nn.Module) -> Layout:
    """diffusers' U-Nets: a level is a unit."""
    down, up = network._modules["down_blocks"], network._modules["up_blocks"]
    assert down is not None and up is not None
    middle = [Unit(network, "mid_block", "mid_block")]
    units = [*_units(down, "down_blocks"), *middle, *_units(up, "up_blocks")]
    ones = [1] * len(down._modules)
    return Layout(units, plan.u_shaped(ones, 1, [1] * len(up._modules)))


def _chain(network: nn.Module) -> Layout:
    family = type(network).__name__
    names = CHAINS.get(family) or _largest_list(network)
    units: list[Unit] = []
    for name in names:
        holder = network._modules.get(name)
        if holder is None:
            raise NotSplittable(f"a {family} without '{name}' is not known here")
        units += _units(holder, name)
    cuts = plan.mirrored if family in MIRRORED else plan.chain
    return Layout(units, cuts(len(units)))


def _blocks(holder: nn.Module, name: str) -> Iterable[tuple[str, nn.Module]]:
    return [(f"{name}.{key}", block) for key, block in holder._modules.items() if block is not None]


def _largest_list(network: nn.Module) -> tuple[str, ...]:
    sizes = {
        name: sum(p.numel() for p in child.parameters())
        for name, child in network.named_children()
        if isinstance(child, nn.ModuleList) and len(child) >= LEAST_UNITS
    }
    return (max(sizes, key=lambda name: sizes[name]),) if sizes else ()
