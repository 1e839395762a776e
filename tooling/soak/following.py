"""A server's web socket, listened to while prompts run: what has just happened, without asking."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from demo.server import Server
from hybrid_core.telling.kinds import is_both

CLIENT = "soak"
RUN = "hybrid_ksampler.run"
ENDS = ("execution_success", "execution_error", "execution_interrupted")


class Following:
    """What the server says to one client, taken in by a thread of its own."""

    def __init__(self, server: Server):
        self._server = server
        self._said = threading.Condition()
        self._runs: dict[str, dict[str, Any]] = {}  # the latest message, by prompt
        self._ended: set[str] = set()

    def begin(self) -> None:
        """To listen, until the server ends."""
        threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True).start()

    async def _listen(self) -> None:
        address = f"{self._server.address}/ws?clientId={CLIENT}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    self.hear(json.loads(message.data))

    def hear(self, message: dict[str, Any]) -> None:
        """Take in one message."""
        with self._said:
            data = message["data"]
            if message["type"] == RUN:
                self._runs[data["prompt_id"]] = data
            elif message["type"] in ENDS:
                self._ended.add(data["prompt_id"])
            self._said.notify_all()

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queue a prompt whose messages come here; its id."""
        told = self._server.post("/prompt", {"prompt": prompt, "client_id": CLIENT})
        return str(told["prompt_id"])

    def ended(self, prompt_id: str) -> bool:
        return prompt_id in self._ended

    def runs(self, prompt_id: str) -> bool:
        """Whether the prompt samples at this moment."""
        return self._runs.get(prompt_id, {}).get("status") == "running"

    def shared(self, prompt_id: str) -> bool:
        """Whether it does, and its latest step was made by both devices."""
        rows = self._runs.get(prompt_id, {}).get("rows") or [{"kind": "local"}]
        return self.runs(prompt_id) and is_both(rows[-1]["kind"])

    def until(self, condition: Callable[[str], bool], prompt_id: str, seconds: float) -> bool:
        """Wait until a condition of this object holds; False when the prompt ends before."""
        deadline = time.monotonic() + seconds
        with self._said:
            while not condition(prompt_id):
                left = deadline - time.monotonic()
                if left <= 0 or self.ended(prompt_id):
                    return False
                self._said.wait(left)
        return True
