"""Workers on other computers, by the user's own Ray cluster: light to import, as worker_side is.

this process      ReplicaSource as RemoteSource: model files by name
worker's process  `relay`: passes everything on
other computer    `models_there`: a ComfyUI of its own
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_core.config import RAY_VARIABLE, RAY_WEIGHTS_VARIABLE, VISIBLE, WorkerDevice
from hybrid_core.errors import ConfigError, WorkerFailed

ADDRESS = re.compile(r"(auto|[A-Za-z0-9._\-]{1,253}:[0-9]{1,5})(?:\*([1-9][0-9]?))?")


@dataclass(frozen=True)
class Elsewhere:
    """Where other computers are found, and what may go there."""

    address: str = ""  # of the cluster; empty: no other computer
    places: int = 1  # GPUs there that get a worker
    send_weights: bool = False  # of models, in place of their files' names

    @property
    def wish(self) -> str:
        """As `chosen` takes it."""
        return self.address + (f"*{self.places}" if self.places > 1 else "")

    def devices(self) -> list[WorkerDevice]:
        return [
            WorkerDevice(
                f"Ray {self.address}" + (f" number {place + 1}" if self.places > 1 else ""),
                {VISIBLE: ""},
                differs="another computer",
                remote=True,
            )
            for place in range(self.places if self.address else 0)
        ]


NOWHERE = Elsewhere()


def chosen(wish: str, send_weights: bool = False) -> Elsewhere:
    """From "192.168.1.5:6379", or with "*2" behind it for two GPUs. Raises ConfigError."""
    if not wish.strip():
        return NOWHERE
    match = ADDRESS.fullmatch(wish.strip())
    if match is None:
        raise ConfigError(
            f"the Ray address is '{wish[:80]}', expected a computer and a port, as in "
            f"'192.168.1.5:6379', and for several GPUs '*' and their number ({RAY_VARIABLE})"
        )
    return Elsewhere(match[1], int(match[2] or 1), send_weights)


def by_environment() -> Elsewhere:
    """Raises ConfigError."""
    return chosen(os.environ.get(RAY_VARIABLE, ""), os.environ.get(RAY_WEIGHTS_VARIABLE) == "1")


def by_settings(told: Any) -> Elsewhere:
    """From {"address": text, "weights": whether they are sent}; without an address as the
    environment says. Raises ConfigError.
    """
    match told:
        case {"address": str(address), "weights": bool(weights)}:
            return chosen(address, weights) if address.strip() else by_environment()
    raise ConfigError(
        f"the other computers are {str(told)[:80]}, expected an 'address' and whether 'weights' "
        "are sent"
    )


def pack_version() -> str:
    """Of this pack, as the registry knows it."""
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)
    return found[1] if found else ""


def versions() -> dict[str, str]:
    """What must be equal on both computers. torch's build for a card (+cu128) may differ."""
    import comfyui_version
    import torch

    return {
        "ComfyUI": comfyui_version.__version__,
        "torch": torch.__version__.partition("+")[0],
        "Hybrid KSampler": pack_version(),
    }


def boot(elsewhere: Elsewhere, place: int, described: Mapping[str, Any]) -> dict[str, Any]:
    """What `relay` is told. described: parent_process.describe()."""
    import comfy

    return {
        "address": elsewhere.address,
        "place": place,
        "root": str(Path(next(iter(comfy.__path__))).resolve().parent),
        "versions": versions(),
        # a text is a path or an address of this computer
        "args": {k: v for k, v in described["args"].items() if not isinstance(v, str | list)},
    }


def relay(told: Mapping[str, Any]) -> Any:
    """In the worker's process. Raises WorkerFailed."""
    from hybrid_core.workers.ray import cluster
    from hybrid_core.workers.ray.relay import Relay

    there = {name: told[name] for name in ("versions", "args")}
    return Relay(cluster.place(told["address"], told["place"], told["root"], models_there, there))


def models_there(told: Mapping[str, Any]) -> Any:
    """On the other computer. Raises WorkerFailed where its ComfyUI cannot stand for this one."""
    ours = versions()
    differing = [name for name in ours if told["versions"].get(name) != ours[name]]
    if differing:
        seen = "; ".join(f"{n} {ours[n]} there, {told['versions'].get(n)} here" for n in differing)
        raise WorkerFailed(f"the two computers differ ({seen}): install the same on both")
    from hybrid_core.comfy_bridge import parent_process

    parent_process.compute_alike(told["args"])
    from hybrid_core.comfy_bridge.models import ComfyModels

    return ComfyModels(by_name=True)
