"""The user's Ray cluster: a place on another of its computers. The only file that imports Ray.

What crosses the network are bytes and numbers in calls of the actor's methods; Ray's own envelope
around them is Ray's, as is the trust that its computers have in each other.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from hybrid_core.errors import WorkerDied, WorkerFailed
from hybrid_core.transport import wire
from hybrid_core.workers.evaluator import Models
from hybrid_core.workers.ray.actor import Actor
from hybrid_core.workers.ray.frame import unpacked

RESOURCE = "hybrid_ksampler"  # a computer without a GPU that is to take part names it
HELP = "see docs/two_computers.md"
ANSWER_SECONDS = 5.0  # of the address; Ray itself would go on trying for minutes


def place(
    address: str, number: int, root: str, make_models: Callable[[Mapping[str, Any]], Models],
    told: Mapping[str, Any],
) -> RayPlace:  # fmt: skip
    """The cluster's place of this number, begun. Raises WorkerFailed.

    root: ComfyUI's folder, which Ray puts on the path over there too. make_models: called there
    with `told`.
    """
    try:
        import ray
    except ImportError as error:
        raise WorkerFailed(f"Ray is not installed here (pip install ray): {error}") from error
    os.chdir(root)
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        node, needs = places(ray)[number]
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise WorkerFailed(f"the Ray cluster at {address} is not to be reached: {error}") from error
    except IndexError:
        raise WorkerFailed(
            f"the Ray cluster at {address} has {len(places(ray))} places for workers on other "
            f"computers, number {number + 1} is asked for; {HELP}"
        ) from None
    made = RayPlace(ray, node, needs, make_models)
    made.begin(told)
    return made


def _knock(address: str) -> None:
    """Raises OSError where nobody answers."""
    host, _, port = address.rpartition(":")
    if not host:  # "auto": Ray finds a cluster of this computer, or says at once that there is none
        return
    socket.create_connection((host, int(port)), ANSWER_SECONDS).close()


def places(ray: Any) -> list[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Other computers with what a worker takes of each, one for each of their GPUs."""
    own = ray.get_runtime_context().get_node_id()
    found: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
    for node in sorted(ray.nodes(), key=lambda node: str(node["NodeID"])):
        if not node["Alive"] or node["NodeID"] == own:
            continue
        has = node["Resources"]
        found += [(node, {"num_gpus": 1})] * int(has.get("GPU", 0))
        if not has.get("GPU"):
            named: dict[str, Any] = {"resources": {RESOURCE: 1}}
            found += [(node, named)] * int(has.get(RESOURCE, 0))
    return found


class RayPlace:
    """An actor on one computer of the cluster; it ends with this process."""

    def __init__(
        self,
        ray: Any,
        node: Mapping[str, Any],
        needs: dict[str, Any],
        make_models: Callable[[Mapping[str, Any]], Models],
    ):
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._name = ray, f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        there = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        remote = ray.remote(Actor).options(
            scheduling_strategy=there, num_cpus=0, max_concurrency=2, **needs
        )
        self._actor = remote.remote(make_models)

    def begin(self, told: Mapping[str, Any]) -> None:
        """Raises WorkerFailed with the other computer's reason."""
        data = self._got(self._actor.begin.remote(json.dumps(told).encode()))
        reply, _ = unpacked(data, wire.REPLIES)
        if reply["op"] != "ok":
            raise WorkerFailed(f"{self._name}: {wire.text(reply, 'error')}")

    def ask(self, frame: bytes) -> Any:
        return self._got(self._actor.ask.remote(frame))

    def cancel(self, number: int) -> None:
        self._actor.cancel.remote(number)

    def _got(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            why = next((line for line in reversed(lines) if "No module named" in line), lines[0])
            raise WorkerDied(f"{self._name} is lost: {why[:300]}; {HELP}") from error
