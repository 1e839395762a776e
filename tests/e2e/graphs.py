"""Prompts in API format for the demo models."""

from __future__ import annotations


def graph(sampler="Hybrid_KSampler", model="mmdit", steps=4, seed=1, **inputs):
    """API prompt: a demo model, a sampler, the latents saved."""
    prompt = {
        "model": {"class_type": "Hybrid_DemoModel", "inputs": {"name": model}},
        "positive": {
            "class_type": "Hybrid_DemoPrompt",
            "inputs": {"model": ["model", 0], "text": "red heart"},
        },
        "negative": {
            "class_type": "Hybrid_DemoPrompt",
            "inputs": {"model": ["model", 0], "text": ""},
        },
        "empty": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1},
        },
        "sampler": {
            "class_type": sampler,
            "inputs": {
                "model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0],
                "latent_image": ["empty", 0], "steps": steps, "cfg": 5.0, "seed": seed,
                "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, **inputs,
            },
        },
        "save": {
            "class_type": "SaveLatent",
            "inputs": {"samples": ["sampler", 0], "filename_prefix": "latents/test"},
        },
    }  # fmt: skip
    return prompt


def advanced(prompt, sampler):
    node = prompt["sampler"]
    node["class_type"] = sampler
    node["inputs"]["noise_seed"] = node["inputs"].pop("seed")
    node["inputs"].pop("denoise")
    node["inputs"] |= {
        "add_noise": "enable", "start_at_step": 1, "end_at_step": 3,
        "return_with_leftover_noise": "enable",
    }  # fmt: skip
    return prompt


def custom(model, mode="exact", seed=5):
    """SamplerCustomAdvanced on the model of node `model`: "model", "attach" or one added later."""
    prompt = graph()
    prompt["attach"] = {
        "class_type": "Hybrid_AttachModel",
        "inputs": {"model": ["model", 0], "mode": mode},
    }
    prompt["noise"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": seed}}
    prompt["guider"] = {
        "class_type": "CFGGuider",
        "inputs": {
            "model": [model, 0], "positive": ["positive", 0], "negative": ["negative", 0],
            "cfg": 4.0,
        },
    }  # fmt: skip
    prompt["algorithm"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}}
    prompt["sigmas"] = {
        "class_type": "BasicScheduler",
        "inputs": {"model": ["model", 0], "scheduler": "simple", "steps": 5, "denoise": 1.0},
    }
    prompt["sampler"] = {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["algorithm", 0],
            "sigmas": ["sigmas", 0], "latent_image": ["empty", 0],
        },
    }  # fmt: skip
    return prompt
