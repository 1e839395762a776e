"""A pack that opens a port when it is imported; for tests."""

import socket

listener = socket.create_server(("127.0.0.1", 0))


class Listening:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"

    def run(self, model):
        clone = model.clone()
        clone.set_model_attn1_patch(lambda q, k, v, options: (q * 0.5, k, v))
        return (clone,)


NODE_CLASS_MAPPINGS = {"Listening": Listening}
