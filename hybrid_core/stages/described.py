"""What a network is made of, as values that can be compared later without keeping it alive."""

from __future__ import annotations

import dis
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

SCALARS = (
    type(None), bool, int, float, complex, str, bytes,
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip
OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
BEFORE_FORWARD = ("__init__", "_init", "init", "build", "load", "_load", "reset", "register")
DEEPEST = 4  # levels of lists, dicts and plain objects


class Held:
    """An object compared by identity; not kept alive where the system can do without."""

    __slots__ = ("found", "name")

    def __init__(self, value: Any):
        self.name = str(getattr(value, "__qualname__", None) or type(value).__name__)
        self.found: Callable[[], Any]  # the object, None when it is gone
        try:
            self.found = weakref.ref(value)
        except TypeError:
            self.found = lambda: value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Held):
            return False
        mine, theirs = self.found(), other.found()
        if isinstance(mine, MethodType) and isinstance(theirs, MethodType):
            return mine.__func__ is theirs.__func__ and mine.__self__ is theirs.__self__
        return mine is not None and mine is theirs

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name


class Mark:
    """Where a tensor is and, where torch counts that, how often it was written to."""

    __slots__ = ("place", "version", "form")

    def __init__(self, tensor: torch.Tensor):
        self.place = place(tensor)
        self.version = version(tensor)
        self.form = (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mark) and (
            (self.place, self.version, self.form) == (other.place, other.version, other.form)
        )

    def __hash__(self) -> int:
        return hash(self.form)

    def __repr__(self) -> str:
        return f"a tensor {list(self.form[0])}"


def place(tensor: torch.Tensor) -> Any:
    """Address of its first element; the object itself where there is none to ask for."""
    try:
        return tensor.data_ptr()
    except (RuntimeError, NotImplementedError):
        return Held(tensor)


def version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def describe(value: Any, depth: int = 0) -> Any:
    """Equal for values that a forward pass cannot tell apart."""
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, torch.Tensor):
        return Mark(value)
    if depth < DEEPEST:
        if isinstance(value, list | tuple):
            return (type(value).__name__, [describe(v, depth + 1) for v in value])
        if isinstance(value, set | frozenset):
            return (type(value).__name__, {describe(v, DEEPEST) for v in value})
        if isinstance(value, Mapping):
            items = {describe(k, DEEPEST): describe(v, depth + 1) for k, v in value.items()}
            return (type(value).__name__, items)
        if is_plain_object(value):
            inner = {k: describe(v, depth + 1) for k, v in vars(value).items()}
            return (type(value).__name__, Held(type(value)), inner)
    return Held(value)


def is_plain_object(value: Any) -> bool:
    """Whether its attributes say what it is."""
    fixed = (nn.Module, type, ModuleType, FunctionType, MethodType)
    return hasattr(value, "__dict__") and not isinstance(value, fixed)


def lasts(value: Any) -> bool:
    """Whether `value` is fixed, and keeping it keeps nothing alive that might be wanted to go."""
    if isinstance(value, FunctionType):
        return value.__closure__ is None
    if type(value) in (tuple, torch.Size):
        return all(map(lasts, value))
    return isinstance(value, (*SCALARS, type, BuiltinFunctionType, ModuleType))


def is_own(module: Any, name: str, value: Any) -> bool:
    """Whether an instance attribute is the class's own method, put back where it always was."""
    if not isinstance(value, MethodType) or value.__self__ is not module:
        return False
    cls = type(module)
    if not hasattr(cls, name):  # nobody reads it: somebody's note of what to put back
        return any(value.__func__ is vars(c).get(value.__func__.__name__) for c in cls.__mro__)
    return getattr(cls, name) is value.__func__


def modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module by its path, those too that are attributes without being registered."""
    waiting, seen = [("", network)], {id(network)}
    while waiting:
        path, module = waiting.pop()
        yield path, module
        found = [(name, child) for name, child in module._modules.items() if child is not None]
        for name, value in vars(module).items():
            if name not in OF_EVERY_MODULE and not isinstance(value, SCALARS):
                found += [(f"{name}{at}", child) for at, child in _inside(value)]
        for name, child in reversed(found):
            if id(child) not in seen:
                seen.add(id(child))
                waiting.append((f"{path}.{name}" if path else name, child))


def _inside(value: Any, depth: int = 0) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield "", value
    elif isinstance(value, list | tuple) and depth < DEEPEST:
        for index, item in enumerate(value):
            yield from ((f"[{index}]{at}", child) for at, child in _inside(item, depth + 1))
    elif isinstance(value, dict) and depth < DEEPEST:
        for key, item in value.items():
            yield from ((f"[{key!r}]{at}", child) for at, child in _inside(item, depth + 1))


_written: weakref.WeakKeyDictionary[type, frozenset[str]] = weakref.WeakKeyDictionary()


def written_in_forward(cls: type) -> frozenset[str]:
    """Attributes that the class's own code sets while it runs: caches, which are its own affair."""
    if cls not in _written:
        names: set[str] = set()
        for base in cls.__mro__[: -2 if issubclass(cls, nn.Module) else -1]:
            for name, value in vars(base).items():
                if isinstance(value, FunctionType) and not name.startswith(BEFORE_FORWARD):
                    names |= {
                        str(step.argval)
                        for step in dis.get_instructions(value)
                        if step.opname == "STORE_ATTR"
                    }
        _written[cls] = frozenset(names)
    return _written[cls]
