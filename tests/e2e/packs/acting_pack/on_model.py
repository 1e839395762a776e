"""Nodes that take a MODEL, or make one, and give it changed."""

from __future__ import annotations

import time

import comfy.model_patcher
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.torch_helpers import torch_compile


class OnModel:
    """A node on the MODEL's way; `act` changes a clone."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"model": ("MODEL",)},
            "optional": {"strength": ("FLOAT", {"default": 0.5}), "image": ("IMAGE",)},
        }

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"

    def run(self, model, strength=0.5, image=None):
        clone = model.clone()
        self.act(clone, strength, image)
        return (clone,)


class OwnPatcher(comfy.model_patcher.ModelPatcher):
    """As a GGUF loader has one."""


class PackedLinear(torch.nn.Module):
    """Weights in eight bits that are unpacked at use, as slowly as is wanted."""

    def __init__(self, linear, seconds):
        """seconds: that each token takes more."""
        super().__init__()
        self.seconds = seconds
        scale = linear.weight.detach().abs().amax() / 127
        self.register_buffer("packed", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x):
        time.sleep(self.seconds * x.shape[-2])
        return torch.nn.functional.linear(x, self.packed.to(x.dtype) * self.scale, self.bias)


class PackedLoader:
    """Loads a network with layers of its own."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"name": ("STRING", {"default": "unet"})},
            "optional": {"seconds": ("FLOAT", {"default": 0.0, "step": 0.0001})},
        }

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"

    def run(self, name, seconds=0.0):
        from hybrid_core.comfy_bridge import demo_models  # not there before that pack is

        loaded = demo_models.load_model(name, disable_dynamic=True)
        for block in loaded.model.diffusion_model.modules():
            for child, layer in list(block.named_children()):
                if isinstance(layer, torch.nn.Linear) and child.startswith(("to_", "qkv")):
                    setattr(block, child, PackedLinear(layer, seconds))
        return (OwnPatcher(loaded.model, loaded.load_device, loaded.offload_device),)


class Compiled(OnModel):
    """What ComfyUI's and other packs' nodes for torch.compile call, for a part of the network."""

    def act(self, model, strength, image):
        part = "diffusion_model.out"
        torch_compile.set_torch_compile_wrapper(model, backend="eager", keys=[part])


class AttentionOverride(OnModel):
    def act(self, model, strength, image):
        def override(attention, q, k, v, *args, **keywords):
            return attention(q * strength, k, v, *args, **keywords)

        model.model_options["transformer_options"]["optimized_attention_override"] = override


class FunctionWrapper(OnModel):
    """Wraps the model function and remembers nothing."""

    def act(self, model, strength, image):
        def wrapper(apply, args):
            return apply(args["input"], args["timestep"], **args["c"]) * (1 + 0.1 * strength)

        model.set_model_unet_function_wrapper(wrapper)


class CachingWrapper(OnModel):
    """Gives every other prediction once more, as caching nodes do; a new run begins anew."""

    def act(self, model, strength, image):
        state = {"level": 0.0, "calls": 0, "before": None}

        def wrapper(apply, args):
            level = float(args["timestep"][0])
            if level > state["level"]:
                state["calls"] = 0
            state["level"] = level
            state["calls"] += 1
            if state["calls"] % 2:
                state["before"] = apply(args["input"], args["timestep"], **args["c"])
            return state["before"]

        model.set_model_unet_function_wrapper(wrapper)


class ImageAttention:
    """A callable that adds what an image says, to the positive prompt only."""

    def __init__(self, image, strength):
        self.image, self.strength = image.mean(dim=(1, 2)), strength  # (B, 3)

    def __call__(self, q, k, v, options):
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        per_prompt = len(q) // len(options["cond_or_uncond"])
        shift = self.strength * float(self.image.mean())
        added = [
            torch.full_like(out[:per_prompt], 0.0 if which else shift)
            for which in options["cond_or_uncond"]
        ]
        return out + torch.cat(added)


class ImagePrompt(OnModel):
    """As IP-Adapter: attention in place of the network's, with an image."""

    def act(self, model, strength, image):
        act = ImageAttention(image, strength)
        for block in range(12):
            model.set_model_attn2_replace(act, "input", block)
        model.set_model_attn2_replace(act, "middle", 0)


class OutputBlock(OnModel):
    """As FreeU."""

    def act(self, model, strength, image):
        model.set_model_output_block_patch(lambda h, skip, options: (h * (1 + strength), skip))


class AttentionInput(OnModel):
    """As Deep Shrink and HyperTile, without their random numbers."""

    def act(self, model, strength, image):
        model.set_model_attn1_patch(lambda q, k, v, options: (q * strength, k, v))


class AttentionOutput(OnModel):
    """As the core's NAG."""

    def act(self, model, strength, image):
        model.set_model_attn1_output_patch(lambda out, options: out * (1 + strength))


class LoadCallback(OnModel):
    """As block swap: code that runs when the model is loaded."""

    def act(self, model, strength, image):
        model.add_callback_with_key(CallbacksMP.ON_LOAD, "swap", lambda patcher, *_: patcher.model)


class ForwardWrapper(OnModel):
    def act(self, model, strength, image):
        def wrapper(executor, x, *args, **keywords):
            return executor(x * (1 + 0.1 * strength), *args, **keywords)

        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "pack", wrapper)


class Twice(torch.nn.Module):
    def __init__(self, layer, strength):
        super().__init__()
        self.layer, self.strength = layer, strength

    def forward(self, *args):
        return self.layer(*args) * (1 + self.strength)


class ObjectPatch(OnModel):
    def act(self, model, strength, image):
        layer = model.get_model_object("diffusion_model.out")
        model.add_object_patch("diffusion_model.out", Twice(layer, strength))


class ForwardOverride(OnModel):
    """Another forward on a block of the network itself."""

    def act(self, model, strength, image):
        block = model.get_model_object("diffusion_model.middle_block.0")
        forward = type(block).forward

        def changed(*args, **keywords):
            return forward(block, *args, **keywords) * (1 + strength)

        model.add_object_patch("diffusion_model.middle_block.0.forward", changed)


class Dial:
    def __init__(self, value):
        self.value = value


class Dialled(OnModel):
    """Code that goes by a number beside it in the options, and by an object's."""

    def act(self, model, strength, image):
        def act(q, k, v, options):
            dials = options["acting_pack"]
            return q * dials["number"] * dials["object"].value, k, v

        dials = {"act": act, "number": strength, "object": Dial(1.0)}
        model.model_options["transformer_options"]["acting_pack"] = dials
        model.set_model_attn1_patch(act)


class RandomForward(OnModel):
    """Draws random numbers while the network runs."""

    def act(self, model, strength, image):
        model.set_model_attn1_patch(lambda q, k, v, o: (q + 0.1 * torch.randn_like(q), k, v))


class BothPrompts(OnModel):
    """Looks at both prompts of a batch at once."""

    def act(self, model, strength, image):
        model.set_model_attn1_patch(
            lambda q, k, v, o: (q + q.mean(dim=0, keepdim=True) * strength, k, v)
        )


class RandomWeights(OnModel):
    """Gives another model each time, without saying so."""

    def act(self, model, strength, image):
        state = model.model.diffusion_model.state_dict()
        names = [name for name in state if name.endswith("to_q.weight")]
        noise = {f"diffusion_model.{n}": (torch.randn_like(state[n]),) for n in names}
        scale = 0.02
        model.add_patches(noise, scale)
        model.set_model_attn1_patch(lambda q, k, v, o: (q, k, v))


class Changing(OnModel):
    """Says that it gives something else each time."""

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")

    def act(self, model, strength, image):
        model.set_model_attn1_patch(lambda q, k, v, o: (q * strength, k, v))


class FromLatent:
    """Takes what a sampler upstream has made."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "latent": ("LATENT",)}}

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"

    def run(self, model, latent):
        clone, scale = model.clone(), float(latent["samples"].abs().mean())
        clone.set_model_attn1_patch(lambda q, k, v, o: (q * (1 + scale), k, v))
        return (clone,)


NODES = (
    PackedLoader, Compiled, AttentionOverride, FunctionWrapper, CachingWrapper, ImagePrompt,
    OutputBlock, AttentionInput, AttentionOutput, LoadCallback, ForwardWrapper, ObjectPatch,
    ForwardOverride, Dialled, RandomForward, BothPrompts, RandomWeights, Changing, FromLatent,
)  # fmt: skip
