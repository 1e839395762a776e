"""Whether a network is what it was: its modules, their weights, attributes and code.

Looking again at one that is unchanged takes no more than comparing references: what a look found is
kept as flat lists, which the interpreter compares by identity. Only where they differ is the whole
network described anew, and only a description says whether anything has changed. Nothing that is
kept between two looks keeps a module, a weight or another pack's object alive.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, filterfalse
from typing import Any

import torch
from torch import nn

from hybrid_core.stages import described
from hybrid_core.stages.described import HOOKS, OF_EVERY_MODULE, Held, Mark
from hybrid_core.stages.weight_samples import Samples, WeightSampler

NOT_CODE = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__slots__"}
)
# what torch.compile puts beside the functions that it has compiled
COMPILERS = ("__compiled_fn", "__resume_at", "__import_", "__builtins_dict")
Space = Mapping[str, Any]  # attributes of a module, of a class, or of a Python module
Ignore = Callable[[str], bool]  # an attribute's name

CONTENTS = tuple(map(operator.itemgetter, ("_modules", "_parameters", "_buffers")))
_hooks, _pre_hooks = map(operator.itemgetter, HOOKS)
_attributes, _version = operator.attrgetter("__dict__"), operator.attrgetter("_version")


@dataclass
class ModuleState:
    """One module."""

    cls: Held
    attributes: dict[str, Any]
    tensors: dict[str, Mark]


@dataclass
class NetworkState:
    """A network, and the namespaces with its code."""

    modules: dict[str, ModuleState]
    code: dict[str, dict[str, Any]]  # by namespace
    samples: Samples | None = None

    def __hash__(self) -> int:
        return hash(tuple(self.modules))


def difference(before: NetworkState, after: NetworkState) -> str | None:
    """What changed first, in words; None when nothing did."""
    if before is after:
        return None
    for path in before.modules.keys() | after.modules.keys():
        if path not in before.modules or path not in after.modules:
            return f"{path} is {'gone' if path in before.modules else 'new'}"
    for path, old in before.modules.items():
        change = _change(old, after.modules[path])
        if change is not None:
            return f"{path or 'the network'}: {change}"
    for name, space in before.code.items():
        change = _first(space, after.code.get(name, {}))
        if change is not None:
            return f"{name}.{change} was replaced"
    if before.samples is None or after.samples is None:
        return None
    written = before.samples.changed(after.samples)
    return None if written is None else f"{written} was written to"


def _change(old: ModuleState, new: ModuleState) -> str | None:
    if old.cls != new.cls:
        return f"is a {new.cls.name} now, was a {old.cls.name}"
    tensor = _first(old.tensors, new.tensors)
    if tensor is not None:
        both = old.tensors.get(tensor), new.tensors.get(tensor)
        written = all(both) and both[0].place == both[1].place  # type: ignore[union-attr]
        return f"{tensor} was written to" if written else f"{tensor} is another tensor"
    name = _first(old.attributes, new.attributes)
    if name is None:
        return None
    values = [space.get(name, "not there") for space in (new.attributes, old.attributes)]
    if not all(isinstance(value, (*described.SCALARS, Held)) for value in values):
        return f"{name} changed"
    return "{} is {}, was {}".format(name, *(str(value)[:60] for value in values))


def _first(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    missing = object()
    for name in [*old, *(new.keys() - old.keys())]:
        if old.get(name, missing) != new.get(name, missing):
            return name
    return None


def _taker(names: list[str]) -> Callable[[Space], Any]:
    """What takes these values of a space; of one without any, nothing that changes."""
    return operator.itemgetter(*names) if names else lambda space: None


class _Glance:
    """What a look found, as flat lists to compare with."""

    def __init__(self) -> None:
        self._modules: list[weakref.ref[nn.Module]] = []
        self._of_spaces: list[Callable[[Any], Any]] = []  # what takes of each what is compared
        self._code: list[Space] = []  # of classes and Python modules, which are not gone
        self._held: list[tuple[int, str, Callable[[], Any]]] = []  # of which space, name, object
        self._boxes: list[tuple[int, str]] = []  # of which space, name of what is described
        self._known: Any = None
        self._parameters: list[str] = []  # names, in the order in which they are seen
        self._buffers: list[str] = []
        self._sampler: WeightSampler | None = None
        self.samples: Samples | None = None  # of weights, as torch does not count every write

    def add_module(self, path: str, module: nn.Module, found: Mapping[str, Any]) -> None:
        """Watch a module, and of its attributes those that are described in `found`."""
        for names, held in (
            (self._parameters, module._parameters),
            (self._buffers, module._buffers),
        ):
            names += [f"{path}: {name}" for name, tensor in held.items() if tensor is not None]
        plain = self._plain(len(self._modules), module.__dict__, found)
        self._modules.append(weakref.ref(module))
        self._of_spaces.append(_taker(plain))

    def add_code(self, space: Space, found: Mapping[str, Any]) -> None:
        """The same of a class or a Python module, once all modules are added."""
        plain = self._plain(len(self._modules) + len(self._code), space, found)
        self._code.append(space)
        self._of_spaces.append(_taker(plain))

    def _plain(self, index: int, space: Space, found: Mapping[str, Any]) -> list[str]:
        """What can be compared as it is; the rest is watched in other ways."""
        plain = []
        for name, description in found.items():
            if described.lasts(space[name]):
                plain.append(name)
            elif isinstance(description, Held):
                self._held.append((index, name, description.found))
            else:
                self._boxes.append((index, name))
        return plain

    def remember(self, device: torch.device) -> None:
        """Once everything is added. device: where weights are sampled."""
        self._known, tensors = self._seen()
        named = dict(zip([*self._parameters, *self._buffers], tensors, strict=True))
        self._sampler = WeightSampler(named, device)
        self.samples = self._sampler.read(tensors)

    def same(self, sampled: bool) -> bool:
        """Whether everything is found where it was; sampled: in weights too."""
        try:
            seen, tensors = self._seen()
            if seen != self._known or self._sampler is None:
                return False
            return not sampled or self._sampler.read(tensors) == self.samples
        except (KeyError, RuntimeError, ValueError, AttributeError):  # gone, or not comparable
            return False

    def _seen(self) -> tuple[Any, list[torch.Tensor]]:
        """What is compared, and the tensors that were found."""
        modules: list[Any] = [module() for module in self._modules]
        spaces: list[Any] = [*map(_attributes, modules), *self._code]
        own = spaces[: len(modules)]
        below, parameters, buffers = (
            chain.from_iterable(map(dict.values, filter(None, map(contents, own))))
            for contents in CONTENTS
        )
        tensors = [tensor for tensor in chain(parameters, buffers) if tensor is not None]
        seen = (
            any(map(_hooks, own)) or any(map(_pre_hooks, own)),
            [take(space) for take, space in zip(self._of_spaces, spaces, strict=True)],
            list(map(type, modules)),
            list(map(len, spaces)),
            list(map(id, below)),
            list(map(torch.Tensor.data_ptr, tensors)),
            list(map(_version, filterfalse(torch.Tensor.is_inference, tensors))),
            all(spaces[index][name] is found() for index, name, found in self._held),
            [described.describe(spaces[index][name]) for index, name in self._boxes],
        )
        return seen, tensors


class NetworkWatch:
    """Looks at one network, which it does not keep alive."""

    def __init__(
        self, network: nn.Module, code: Mapping[str, Space], ignore: Ignore, device: torch.device
    ):
        """device: that computes with it. Weights that wait elsewhere are not read.

        code: namespaces by name whose functions the network calls, beside its own classes.

        ignore: attributes of modules that say nothing about what a forward pass computes.
        """
        self._network, self._code, self._ignore = weakref.ref(network), code, ignore
        self._device = device
        self._state: NetworkState | None = None
        self._glance: _Glance | None = None

    def look(self, sampled: bool = True) -> NetworkState:
        """The network as it is now; the object of the last look when nothing has changed.

        sampled: also a few numbers of each weight, as torch does not count every write.
        """
        if self._state is not None and self._glance is not None and self._glance.same(sampled):
            return self._state
        state, self._glance = self._described()
        if self._state is None or state != self._state:
            self._state = state
        return self._state

    def _described(self) -> tuple[NetworkState, _Glance | None]:
        network = self._network()
        assert network is not None
        glance, state = _Glance(), NetworkState({}, {})
        classes: dict[type, None] = {}
        for path, module in described.modules(network):
            state.modules[path] = found = self._module(module)
            glance.add_module(path, module, found.attributes)
            classes |= dict.fromkeys(type(module).__mro__[:-1])
        for cls in classes:
            inner = {k: described.describe(v) for k, v in vars(cls).items() if k not in NOT_CODE}
            glance.add_code(vars(cls), inner)
            state.code[f"{cls.__module__}.{cls.__qualname__}"] = inner
        for name, space in self._code.items():
            inner = {
                key: Held(value)
                for key, value in space.items()
                if callable(value) and not key.startswith(COMPILERS)
            }
            glance.add_code(space, inner)
            state.code[name] = inner
        try:
            glance.remember(self._device)
        except (RuntimeError, NotImplementedError):  # tensors without an address
            return state, None
        state.samples = glance.samples
        return state, glance

    def _module(self, module: nn.Module) -> ModuleState:
        own = module.__dict__
        skipped = OF_EVERY_MODULE | described.written_in_forward(type(module))
        attributes = {
            name: described.describe(value)
            for name, value in own.items()
            if name not in skipped
            and not self._ignore(name)
            and not described.is_own(module, name, value)
        }
        attributes |= {name: described.describe(own[name]) for name in HOOKS if own[name]}
        held = {**module._parameters, **module._buffers}
        tensors = {name: Mark(tensor) for name, tensor in held.items() if tensor is not None}
        return ModuleState(Held(type(module)), attributes, tensors)
