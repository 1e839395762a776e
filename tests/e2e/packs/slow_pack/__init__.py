"""A pack whose import never ends in the second process; for tests."""

import multiprocessing
import time

while multiprocessing.parent_process() is not None:
    time.sleep(1)


class Slow:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"

    def run(self, model):
        clone = model.clone()
        clone.set_model_attn1_patch(lambda q, k, v, options: (q * 0.5, k, v))
        return (clone,)


NODE_CLASS_MAPPINGS = {"Slow": Slow}
