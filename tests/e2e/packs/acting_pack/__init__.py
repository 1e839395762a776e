"""Nodes that act on a MODEL as other packs' nodes do, one for each way; for tests."""

from pathlib import Path

from aiohttp import web
from server import PromptServer

from .on_model import NODES as ON_MODEL
from .on_prompt import NODES as ON_PROMPT
from .sampling import NODES as SAMPLING

NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (*ON_MODEL, *ON_PROMPT, *SAMPLING)}


async def started(app):
    """What a pack does once the server is up."""


server = PromptServer.instance
if not server.app.router.frozen:
    server.app.add_routes([web.static("/acting_pack", Path(__file__).parent)])
server.routes.get("/acting_pack_works")(lambda request: web.Response(text="yes"))
server.app.on_startup.append(started)
server.loop.call_soon_threadsafe(server.prompt_queue.get_tasks_remaining)
