"""Routes on ComfyUI's own server: the runs, the processes, and three buttons for each worker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from hybrid_core.comfy_bridge import elsewhere
from hybrid_core.comfy_bridge.overview import overview
from hybrid_core.comfy_bridge.session import SESSION
from hybrid_core.errors import HybridError
from hybrid_core.telling.kinds import LOOKS
from hybrid_core.transport.wire import shown

from . import monitor

PREFIX = "/hybrid_ksampler"
MOST_SECONDS = 1e9


def tell_of_worker() -> None:
    monitor.tell_of_worker(overview(SESSION))


def add_routes() -> None:
    """To the running server, if there is one."""
    table = monitor.routes()
    if table is None:
        return

    @table.get(f"{PREFIX}/runs")
    async def runs(request: web.Request) -> web.Response:
        return web.json_response(
            {"runs": monitor.LIVE.snapshots(request.query.get("workflow_id") or None)}
        )

    @table.get(f"{PREFIX}/pack")
    async def pack(_: web.Request) -> web.Response:
        return web.json_response({"version": elsewhere.pack_version(), "looks": LOOKS})

    @table.get(f"{PREFIX}/worker")
    async def worker(_: web.Request) -> web.Response:
        return await _after(lambda: None)

    @table.post(f"{PREFIX}/worker/start")
    async def start(request: web.Request) -> web.Response:
        return await _ordered(request, lambda number: [lambda: SESSION.start(number or 0)])

    @table.post(f"{PREFIX}/worker/free")
    async def free(request: web.Request) -> web.Response:
        return await _ordered(request, lambda number: [lambda: SESSION.stop(number)])

    @table.post(f"{PREFIX}/worker/restart")
    async def restart(request: web.Request) -> web.Response:
        return await _ordered(
            request,
            lambda number: [lambda: SESSION.stop(number), lambda: SESSION.start(number or 0)],
        )

    @table.post(f"{PREFIX}/settings")
    async def settings(request: web.Request) -> web.Response:
        try:
            told = await request.json()
        except (ValueError, RecursionError, LookupError):  # also a charset that nobody knows
            return _refused("the body is not JSON, or nested too deep, or in an unknown charset")
        if isinstance(told, dict) and "ray" in told:
            if request.content_type != "application/json":  # what another site's page can send
                return _refused("an address of other computers is taken from this page alone")
            return await _after(lambda: SESSION.look_elsewhere(elsewhere.by_settings(told["ray"])))
        seconds = told.get("idle_seconds") if isinstance(told, dict) else None
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not -MOST_SECONDS <= seconds <= MOST_SECONDS:
            return _refused(f"expected {{'idle_seconds': a number}}, the body is {shown(told)}")
        return await _after(lambda: SESSION.keep_idle(float(seconds)))


async def _ordered(
    request: web.Request, actions: Callable[[int | None], list[Callable[[], Any]]]
) -> web.Response:
    """Actions on the worker that the address names by `number`; None: it names none."""
    named = request.query.get("number")
    if named is not None and not re.fullmatch(r"[0-9]{1,3}", named):
        return _refused(f"number is {shown(named)}, expected a worker's, from 0")
    return await _after(*actions(None if named is None else int(named)))


async def _after(*actions: Callable[[], Any]) -> web.Response:
    """Both processes once the actions are done, off the server's own thread."""

    def act() -> dict[str, Any]:
        for action in actions:
            action()
        return overview(SESSION)

    try:
        return web.json_response(await asyncio.to_thread(act))
    except HybridError as error:
        return _refused(str(error))


def _refused(why: str) -> web.Response:
    return web.json_response({"error": why}, status=400)
