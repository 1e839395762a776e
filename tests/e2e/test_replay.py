"""Nodes of other packs before this pack's: shared by replaying them, or local with the reason."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from demo.server import serving

from .graphs import custom, graph
from .runs import last_count, latents

PACKS = Path(__file__).parent / "packs"
SECONDS = 150


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    furnish(folder)
    with serving(folder) as running:
        yield running


def furnish(folder):
    """Other packs and model files for a server on `folder`."""
    for pack in PACKS.iterdir():
        shutil.copytree(pack, folder / "custom_nodes" / pack.name)
        shutil.copy(PACKS.parent / "halving.py", folder / "custom_nodes" / pack.name)
    script = str(Path(__file__).parent / "controlnet_files.py")
    subprocess.run([sys.executable, script, str(folder / "models")], check=True)


def with_node(kind, sampler="Hybrid_KSampler", model="unet", **inputs):
    own = {"cfg": inputs.pop("cfg")} if "cfg" in inputs else {}
    prompt = graph(sampler, model, seed=inputs.pop("seed", 3), mode="exact", **own)
    if not sampler.startswith("Hybrid"):
        del prompt["sampler"]["inputs"]["mode"]
    return put_before(prompt, kind, **inputs)


def put_before(prompt, kind, source="model", taker="sampler", **inputs):
    """A node of this kind between a MODEL and the node that takes it."""
    prompt["other"] = {"class_type": kind, "inputs": {"model": [source, 0], **inputs}}
    if kind == "PackedLoader":
        prompt["other"]["inputs"] = {"name": "unet"}
    if kind == "ImagePrompt":
        prompt["image"] = {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0x996633},
        }
        prompt["other"]["inputs"]["image"] = ["image", 0]
    prompt[taker]["inputs"]["model"] = ["other", 0]
    return prompt


def until_shared(server, make, steps=4):
    """The first run of `make(seed)` whose last steps are shared; its latents and seed."""
    deadline, seed = time.monotonic() + SECONDS, 100
    while time.monotonic() < deadline:
        seed += 1
        seen = latents(server, make(seed))
        if last_count(server) == (steps, steps):
            return seen, seed
        time.sleep(0.2)
    raise AssertionError(f"the second process took no part:\n{server.log[-3000:]}")


def relative(seen, expected):
    return float((seen - expected).norm() / expected.norm())


SHARED = (
    "PackedLoader", "Compiled", "AttentionOverride", "FunctionWrapper", "ImagePrompt",
    "OutputBlock", "AttentionInput", "AttentionOutput", "LoadCallback", "ForwardWrapper",
    "ObjectPatch", "ForwardOverride",
)  # fmt: skip


@pytest.mark.parametrize("kind", SHARED)
def test_a_node_of_another_pack_is_shared(server, kind):
    seen, seed = until_shared(server, lambda seed: with_node(kind, seed=seed))
    expected = latents(server, with_node(kind, "KSampler", seed=seed))
    assert relative(seen, expected) < 1e-4
    if kind not in ("Compiled", "LoadCallback"):
        plain = latents(server, graph("KSampler", "unet", seed=seed))
        assert relative(plain, expected) > 1e-3, "the node does something"


def test_tokens_are_divided_where_only_the_weights_are_another_packs(server):
    """At cfg 1, as with GGUF files."""

    def packed(seed, sampler="Hybrid_KSampler"):
        prompt = with_node("PackedLoader", sampler, "mmdit", seed=seed, cfg=1.0)
        slow = 0.0005  # by the token: on a busy machine, too, dividing them pays
        prompt["other"]["inputs"] = {"name": "mmdit", "seconds": slow}
        return prompt

    seen, seed = until_shared(server, packed)
    assert "4 with the picture's tokens divided" in server.log
    expected = latents(server, packed(seed, "KSampler"))
    assert relative(seen, expected) < 1e-4
    assert relative(latents(server, graph("KSampler", seed=seed, cfg=1.0)), expected) > 1e-3


def test_a_node_before_attach_is_shared(server):
    def with_attach(seed, source="attach"):
        prompt = custom(source, seed=seed)
        prompt["model"]["inputs"]["name"] = "unet"
        return put_before(prompt, "AttentionInput", taker="attach")

    seen, seed = until_shared(server, with_attach, steps=5)
    expected = latents(server, with_attach(seed, source="other"))
    assert relative(seen, expected) < 1e-4


def test_a_sampler_that_shows_the_model_another_noise_level_is_shared(server):
    def detailed(seed, source="attach"):
        prompt = custom(source, seed=seed)
        prompt["algorithm"] = {"class_type": "OtherSigma", "inputs": {"amount": 0.1}}
        return prompt

    seen, seed = until_shared(server, detailed, steps=5)
    assert relative(seen, latents(server, detailed(seed, source="model"))) < 1e-4


def turned(dial, steps):
    """A graph in which a sampler turns what a node's code goes by, before these steps."""

    def make(seed, source="attach"):
        prompt = custom(source, seed=seed)
        prompt["model"]["inputs"]["name"] = "unet"
        put_before(prompt, "Dialled", taker="attach")
        if source == "model":
            prompt["guider"]["inputs"]["model"] = ["other", 0]
        prompt["algorithm"] = {"class_type": "Turning", "inputs": {"dial": dial, "steps": steps}}
        return prompt

    return make


@pytest.mark.parametrize("dial", ["number", "object"])
@pytest.mark.parametrize("steps", ["2", "1 2 3"])
def test_what_a_sampler_changes_of_a_nodes_code_is_followed(server, dial, steps):
    until_shared(server, turned(dial, ""), steps=5)
    make = turned(dial, steps)
    seen, expected = (latents(server, make(77, source=one)) for one in ("attach", "model"))
    assert relative(seen, expected) < 1e-4
    plain = latents(server, turned(dial, "")(77, source="model"))
    assert relative(plain, expected) > 1e-3, "it changes something"


def tiled(seed, source="attach"):
    prompt = custom(source, seed=seed)
    prompt["model"]["inputs"]["name"] = "unet"
    put_before(prompt, "FunctionWrapper", taker="attach")
    prompt["sampler"] = {
        "class_type": "Tiles",
        "inputs": {
            "model": [source, 0], "positive": ["positive", 0], "negative": ["negative", 0],
            "latent_image": ["empty", 0], "tiles": 5, "seed": seed,
        },
    }  # fmt: skip
    return prompt


def test_short_runs_in_a_row_are_shared_from_the_first_step(server):
    seen, seed = until_shared(server, tiled, steps=6)
    counts = re.findall(r"(\d+) of (\d+) steps shared", server.log)[-5:]
    assert counts[1:] == [("6", "6")] * 4
    assert relative(seen, latents(server, tiled(seed, source="other"))) < 1e-4


def check_local(server, make, plain, words):
    """Runs until the log says these words; from then on the image is KSampler's, bit for bit."""
    before, deadline, seed = len(server.log), time.monotonic() + SECONDS, 200
    while words not in server.log[before:]:
        assert time.monotonic() < deadline, server.log[before:][-3000:]
        seed += 1
        latents(server, make(seed))
    seen = latents(server, make(99))
    assert last_count(server)[0] == 0
    assert torch.equal(seen, latents(server, plain(99)))


LOCAL = {
    "CachingWrapper": "the node 'CachingWrapper' remembers something from step to step",
    "RandomForward": "draws random numbers",
    "BothPrompts": "makes one prompt's evaluation depend on the other's",
    "Changing": "the node 'Changing' before this one may give something else each time",
    "Failing": "the nodes of failing_pack could not be imported a second time",
    "Listening": "importing the nodes of listening_pack opened a port",
}


@pytest.mark.parametrize("kind", LOCAL)
def test_a_node_that_cannot_be_repeated_is_local_and_named(server, kind):
    make, plain = (
        (lambda seed, sampler=sampler: with_node(kind, sampler, seed=seed))
        for sampler in ("Hybrid_KSampler", "KSampler")
    )
    until_shared(server, lambda seed: graph(model="unet", seed=seed))
    check_local(server, make, plain, LOCAL[kind])


def test_an_import_that_takes_too_long_is_local_and_not_tried_again(server):
    def slow(seed, sampler="Hybrid_KSampler"):
        prompt = with_node("Slow", sampler, seed=seed)
        prompt["first"] = {"class_type": "Impatient", "inputs": {"model": ["model", 0]}}
        prompt["other"]["inputs"]["model"] = ["first", 0]
        return prompt

    words = "importing a node before this one again takes too long (not tried again)"
    check_local(server, slow, lambda seed: slow(seed, "KSampler"), words)


def after_a_sampler(seed, sampler="Hybrid_KSampler"):
    prompt = graph(sampler, "unet", seed=seed)
    prompt["first"] = graph("KSampler", "unet", seed=1, steps=2)["sampler"]
    prompt["other"] = {
        "class_type": "FromLatent",
        "inputs": {"model": ["model", 0], "latent": ["first", 0]},
        "_meta": {"title": "My latent node"},
    }
    prompt["sampler"]["inputs"]["model"] = ["other", 0]
    return prompt


def test_a_sampler_before_the_model_is_local_and_named(server):
    words = "'My latent node' before this one takes latents, as samplers and decoders do"
    check_local(server, after_a_sampler, lambda seed: after_a_sampler(seed, "KSampler"), words)


def test_a_node_after_attach_is_local_and_told_where_attach_belongs(server):
    def behind(seed, source="attach"):
        prompt = custom("attach", seed=seed)
        prompt["model"]["inputs"]["name"] = "unet"
        return put_before(prompt, "AttentionInput", source=source, taker="guider")

    words = "put Hybrid Attach Model behind it"
    check_local(server, behind, lambda seed: behind(seed, source="model"), words)


def test_weights_that_are_other_each_time_are_local_and_their_nodes_named(server):
    def noisy(seed):
        return with_node("RandomWeights", seed=seed)

    until_shared(server, lambda seed: graph(model="unet", seed=seed))
    words = "gives another prediction than this process's"
    nodes = "nodes before this one: Hybrid Demo Model, RandomWeights"
    deadline = time.monotonic() + SECONDS
    while nodes not in server.log and time.monotonic() < deadline:
        latents(server, noisy(time.monotonic_ns()))
    assert any(words in line and nodes in line for line in server.log.splitlines())


def with_control(seed, sampler="Hybrid_KSampler", chained=False, **range_of):
    prompt = graph(sampler, "unet", seed=seed)
    prompt["hint"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0x4488CC},
    }
    before = "positive", "negative"
    slots = 0, 0
    for name in ("one", "two") if chained else ("one",):
        prompt[f"net {name}"] = {
            "class_type": "ControlNetLoader",
            "inputs": {"control_net_name": f"{name}.safetensors"},
        }
        prompt[name] = {
            "class_type": "ControlNetApplyAdvanced",
            "inputs": {
                "positive": [before[0], slots[0]], "negative": [before[1], slots[1]],
                "control_net": [f"net {name}", 0], "image": ["hint", 0],
                "strength": 0.8, "start_percent": 0.0, "end_percent": 1.0, **range_of,
            },
        }  # fmt: skip
        before, slots = (name, name), (0, 1)
    prompt["sampler"]["inputs"] |= {"positive": [before[0], 0], "negative": [before[1], 1]}
    if sampler.startswith("Hybrid"):
        prompt["sampler"]["inputs"]["mode"] = "exact"
    return prompt


@pytest.mark.parametrize(
    "how", [{}, {"chained": True}, {"end_percent": 0.5}], ids=["one", "chained", "range"]
)
def test_a_controlnet_is_shared(server, how):
    seen, seed = until_shared(server, lambda seed: with_control(seed, **how))
    expected = latents(server, with_control(seed, "KSampler", **how))
    assert relative(seen, expected) < 1e-4
    assert relative(latents(server, graph("KSampler", "unet", seed=seed)), expected) > 1e-3


def with_gligen(seed, sampler="Hybrid_KSampler"):
    prompt = with_control(seed, sampler)
    prompt["net one"] = {
        "class_type": "GLIGENLoader", "inputs": {"gligen_name": "boxes.safetensors"},
    }  # fmt: skip
    prompt["one"] = {
        "class_type": "BoxPrompt",
        "inputs": {"conditioning": ["positive", 0], "gligen": ["net one", 0]},
    }
    prompt["sampler"]["inputs"]["negative"] = ["negative", 0]
    return prompt


def with_hooks(seed, sampler="Hybrid_KSampler"):
    """A LoRA that begins in the middle of the run, bound to the negative prompt."""
    prompt = with_control(seed, sampler)
    kinds = {
        "early": ("CreateHookKeyframe", {"strength_mult": 0.2, "start_percent": 0.0}),
        "late": (
            "CreateHookKeyframe",
            {"strength_mult": 1.0, "start_percent": 0.4, "prev_hook_kf": ["early", 0]},
        ),
        "lora": (
            "CreateHookLoraModelOnly",
            {"lora_name": "some.safetensors", "strength_model": 0.8},
        ),
        "scheduled": ("SetHookKeyframes", {"hooks": ["lora", 0], "hook_kf": ["late", 0]}),
        "one": (
            "ConditioningSetProperties",
            {
                "cond_NEW": ["negative", 0], "strength": 1.0, "set_cond_area": "default",
                "hooks": ["scheduled", 0],
            },
        ),
    }  # fmt: skip
    prompt |= {
        name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in kinds.items()
    }
    prompt["sampler"]["inputs"] |= {"positive": ["positive", 0], "negative": ["one", 0]}
    return prompt


@pytest.mark.parametrize("make", [with_gligen, with_hooks])
def test_what_comes_with_a_prompt_is_shared(server, make):
    seen, seed = until_shared(server, make)
    expected = latents(server, make(seed, "KSampler"))
    assert relative(seen, expected) < 1e-4
    assert relative(latents(server, graph("KSampler", "unet", seed=seed)), expected) > 1e-3


def test_a_changed_lora_behind_a_replayed_path_loads_nothing_again(server):
    def with_lora(seed, strength=0.5):
        prompt = with_node("AttentionInput", seed=seed)
        prompt["lora"] = {
            "class_type": "LoraLoaderModelOnly",
            "inputs": {
                "model": ["model", 0], "lora_name": "some.safetensors", "strength_model": strength,
            },
        }  # fmt: skip
        prompt["other"]["inputs"]["model"] = ["lora", 0]
        return prompt

    until_shared(server, with_lora)
    loaded = server.log.count("model weight dtype")
    seen, seed = until_shared(server, lambda seed: with_lora(seed, 0.25))
    expected = with_lora(seed, 0.25)
    expected["sampler"] = graph("KSampler", "unet", seed=seed)["sampler"]
    expected["sampler"]["inputs"]["model"] = ["other", 0]
    assert relative(seen, latents(server, expected)) < 1e-4
    assert server.log.count("model weight dtype") == loaded
