"""What a guider says of how it joins the branches."""

from __future__ import annotations

import math
from typing import Any

USUAL_CFG = 8.0  # KSampler's default, for guiders that do not say theirs


def one_branch(guider: Any) -> bool:
    """Whether the guider is known to evaluate one branch only (cfg 1)."""
    cfg = cfg_of(guider)
    keeps_both = guider.model_options.get("disable_cfg1_optimization", False)
    return cfg is not None and math.isclose(cfg, 1.0) and not keeps_both


def cfg_of(guider: Any) -> float | None:
    """The guidance scale as it is now; None where the guider does not say it."""
    cfg = getattr(guider, "cfg", None)
    return float(cfg) if isinstance(cfg, int | float) else None


def starting_cfg(guider: Any) -> float:
    """What a run is begun with."""
    cfg = 1.0 if one_branch(guider) else cfg_of(guider)
    return USUAL_CFG if cfg is None else cfg
