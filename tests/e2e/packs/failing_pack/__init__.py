"""A pack that can be imported in ComfyUI's own process only; for tests."""

import multiprocessing

if multiprocessing.parent_process() is not None:
    raise ImportError("this pack wants to be alone")


class Failing:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"

    def run(self, model):
        clone = model.clone()
        clone.set_model_attn1_patch(lambda q, k, v, options: (q * 0.5, k, v))
        return (clone,)


NODE_CLASS_MAPPINGS = {"Failing": Failing}
