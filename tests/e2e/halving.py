"""The one node of those packs whose import is what matters; furnish puts this file beside each."""


class Halving:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"

    def run(self, model):
        clone = model.clone()
        clone.set_model_attn1_patch(lambda q, k, v, options: (q * 0.5, k, v))
        return (clone,)
