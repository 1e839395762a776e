"""A pack whose import never ends in the second process; for tests."""

import multiprocessing
import time

while multiprocessing.parent_process() is not None:
    time.sleep(1)

from .halving import Halving  # noqa: E402

NODE_CLASS_MAPPINGS = {"Slow": Halving}
