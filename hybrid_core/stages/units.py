"""The units of a network: which of its modules are blocks, and where it may be cut."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

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
    "GeneralDIT": ("blocks",),
}
MIRRORED = {"HunYuanDiT", "HunYuanDiTPlain"}
LEAST_UNITS = 2


@dataclass
class Unit:
    """One block, and the place that its network takes it from."""

    holder: nn.Module
    key: str
    name: str

    def __post_init__(self) -> None:
        self.module = self.current()

    def current(self) -> nn.Module:
        """What the network has in this place now."""
        module = self.holder._modules[self.key]
        assert module is not None
        return module


@dataclass
class Layout:
    """A network's units and the cuts it allows."""

    units: list[Unit]
    cuts: list[plan.Cut]


def layout(network: nn.Module) -> Layout:
    """Units and cuts of `network`. Raises NotSplittable."""
    if hasattr(network, "_orig_mod") or getattr(network, "_compiled_call_impl", None):
        raise NotSplittable("the whole network is compiled by torch.compile")
    if hasattr(network, "output_blocks"):
        made = _unet(network)
    elif hasattr(network, "up_blocks") and hasattr(network, "mid_block"):
        made = _coarse_unet(network)
    else:
        made = _chain(network)
    if len(made.units) < LEAST_UNITS or not made.cuts:
        raise NotSplittable(f"no blocks were found in a {type(network).__name__}")
    return made


def blocks(network: nn.Module) -> list[Unit]:
    """Modules of every list that a transformer has, not in their order. Raises NotSplittable."""
    layout(network)
    if hasattr(network, "output_blocks") or hasattr(network, "up_blocks"):
        raise NotSplittable("a U-Net's layers need their neighbours: tokens cannot be divided")
    return [
        unit
        for name, child in network.named_children()
        if isinstance(child, nn.ModuleList | nn.ModuleDict) and len(child) >= LEAST_UNITS
        for unit in _units(child, name)
    ]


def _units(holder: nn.Module, name: str) -> list[Unit]:
    return [Unit(holder, key, f"{name}.{key}") for key in holder._modules]


def _unet(network: nn.Module) -> Layout:
    """ComfyUI's U-Nets: their blocks are lists of layers, the layers are the units."""
    down, up = _blocks(network, "input_blocks"), _blocks(network, "output_blocks")
    middle = network._modules.get("middle_block")
    inner = _units(middle, "middle_block") if middle is not None else []  # KOALA has none
    units = [*chain(*down), *inner, *chain(*up)]
    return Layout(units, plan.u_shaped([*map(len, down)], len(inner), [*map(len, up)]))


def _blocks(network: nn.Module, name: str) -> list[list[Unit]]:
    holder = network._modules[name]
    assert holder is not None
    return [_units(block, f"{name}.{key}") for key, block in holder.named_children()]


def _coarse_unet(network: nn.Module) -> Layout:
    """diffusers' U-Nets: a level is a unit."""
    down, up = network._modules["down_blocks"], network._modules["up_blocks"]
    assert down is not None and up is not None
    middle = [Unit(network, "mid_block", "mid_block")] if network.mid_block is not None else []
    units = [*_units(down, "down_blocks"), *middle, *_units(up, "up_blocks")]
    ones = [1] * len(down._modules)
    return Layout(units, plan.u_shaped(ones, len(middle), [1] * len(up._modules)))


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


def _largest_list(network: nn.Module) -> tuple[str, ...]:
    sizes = {
        name: sum(p.numel() for p in child.parameters())
        for name, child in network.named_children()
        if isinstance(child, nn.ModuleList | nn.ModuleDict) and len(child) >= LEAST_UNITS
    }
    return (max(sizes, key=lambda name: sizes[name]),) if sizes else ()
