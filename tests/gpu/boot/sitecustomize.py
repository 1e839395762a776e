"""Run by every Python process that works with the kit, the worker too: see tests/gpu/kit.py."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import types

STAND_INS = {"av", "scipy", "transformers", "tokenizers", "sentencepiece", "torchvision"}
STAND_INS |= {"torchaudio", "spandrel", "kornia"}


class Absent(types.ModuleType):
    """A module of which nothing is ever used: any name in it is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {})
        setattr(self, name, made)
        return made


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last of the finders: asked for what no other one found."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in STAND_INS:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


sys.path.append(os.environ["HYBRID_KIT_LAST"])
sys.meta_path.append(Finder())
