"""What another clone of a MODEL left on the network that both share."""

from __future__ import annotations

import comfy.model_management
from comfy.model_patcher import ModelPatcher


def take_off_others(patcher: ModelPatcher) -> None:
    """Take injected layers and object patches of other clones off, so that `patcher` is judged by
    itself; ComfyUI does the same a moment later, when it loads `patcher`.
    """
    for loaded in comfy.model_management.current_loaded_models:
        other = loaded.model
        if other is not None and other is not patcher and patcher.is_clone(other):
            other.unpatch_model(unpatch_weights=False)
