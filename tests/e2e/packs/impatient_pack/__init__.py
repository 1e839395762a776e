"""A pack that shortens the limit of imports in the second process; for tests."""

import multiprocessing

if multiprocessing.parent_process() is not None:
    from hybrid_core.comfy_bridge import replaying

    replaying.IMPORT_SECONDS = 0.5


class Impatient:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"

    def run(self, model):
        return (model,)


NODE_CLASS_MAPPINGS = {"Impatient": Impatient}
