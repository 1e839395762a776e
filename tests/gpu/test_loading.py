"""ComfyUI's own loaders, and models sent by their weights, on a GPU."""

from __future__ import annotations

import pytest
from test_loaders import (  # noqa: F401
    files,
    test_model_without_a_factory_is_sent_by_its_weights,
    test_unet_loader,
    test_weights_are_sent_unpatched_while_a_lora_is_in,
)

pytestmark = pytest.mark.slow
