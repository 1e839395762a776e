"""Workflow files as the server's API takes them."""

from __future__ import annotations

from typing import Any

NOT_EXECUTED = {"Note", "MarkdownNote"}


def api_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The API prompt of a workflow file without subgraphs.

    object_info: the server's /object_info, which knows each node's inputs in order.
    """
    origin = {link[0]: (str(link[1]), link[2]) for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOT_EXECUTED:
            continue
        linked = {
            slot["name"]: list(origin[slot["link"]])
            for slot in node.get("inputs", [])
            if slot.get("link") is not None
        }
        prompt[str(node["id"])] = {
            "class_type": node["type"],
            "inputs": {**_widgets(node, object_info[node["type"]]), **linked},
        }
    return prompt


def _widgets(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    values, at, named = node.get("widgets_values", []), 0, {}
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            if not (
                isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
            ):
                continue
            settings = options[0] if options else {}
            if settings.get("forceInput"):
                continue
            if at < len(values):
                named[name] = values[at]
            at += 2 if settings.get("control_after_generate") or settings.get("image_upload") else 1
    return named
