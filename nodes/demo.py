"""The demo models as nodes: everything else in their graphs is ComfyUI's own."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from hybrid_core.comfy_bridge import demo_models, demo_words

from .schema import schema

CATEGORY = "loaders/hybrid demo"
COLOURS, BACKGROUNDS = (", ".join(demo_words.ATTRIBUTES[name]) for name in ("colour", "background"))
WORDS = (
    "A subject, such as cat, rocket, pizza or rose (this node's help lists all "
    f"{len(demo_words.ATTRIBUTES['subject'])}). If you like, its style: noto, twemoji; a colour in "
    f"place of its own: {COLOURS.removeprefix('natural, ')}; the background: {BACKGROUNDS}."
)


class HybridDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_DemoModel",
            display_name="Hybrid Demo Model",
            category=CATEGORY,
            description="A small diffusion model that comes with this pack: 64x64 pictures of one "
            "emoji on a background. For trying Hybrid KSampler without a download.",
            inputs=[
                io.Combo.Input(
                    "name",
                    options=list(demo_models.KINDS),
                    tooltip="mmdit: SD3's architecture. unet: SD1's architecture.",
                )
            ],
            outputs=[io.Model.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        return io.NodeOutput(demo_models.load_model(name), demo_models.load_vae())


class HybridDemoPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="Hybrid_DemoPrompt",
            display_name="Hybrid Demo Prompt",
            category=CATEGORY,
            description="Words for the demo models. Leave it empty for the negative prompt.",
            inputs=[
                io.Model.Input("model", tooltip="The model of Hybrid Demo Model."),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="fox, noto, navy background",
                    tooltip=WORDS,
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, model: Any, text: str) -> io.NodeOutput:
        kind = demo_models.kind_of(model)
        return io.NodeOutput(demo_models.conditioning(kind, text))
