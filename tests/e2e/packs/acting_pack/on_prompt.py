"""Nodes that change a prompt."""

from __future__ import annotations

import torch

from nodes import GLIGENTextBoxApply


class Encoder:
    """A text encoder for GLIGEN: of every text the same numbers."""

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, tokens, return_pooled):
        return None, torch.linspace(-1, 1, 64)[None]  # (1, 64)


class BoxPrompt:
    """ComfyUI's own node for GLIGEN, without a text encoder's file."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "gligen": ("GLIGEN",)}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "run", "tests"

    def run(self, conditioning, gligen):
        return GLIGENTextBoxApply().append(conditioning, Encoder(), gligen, "", 32, 64, 16, 0)


NODES = (BoxPrompt,)
