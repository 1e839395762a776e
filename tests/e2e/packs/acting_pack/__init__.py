"""Nodes that act on a MODEL as other packs' nodes do, one for each way; for tests."""

from .on_model import NODES as ON_MODEL
from .on_prompt import NODES as ON_PROMPT
from .sampling import NODES as SAMPLING

NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (*ON_MODEL, *ON_PROMPT, *SAMPLING)}
