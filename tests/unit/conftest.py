"""Tests without ComfyUI: hybrid_core by its own name, the pack's folder last on the path."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
for folder in (ROOT, str(Path(__file__).parent)):
    if folder not in sys.path:
        sys.path.append(folder)
