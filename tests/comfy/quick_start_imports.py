"""What a worker imports, in the order in which it does."""

from comfy.cli_args import args

args.cpu = True

import folder_paths  # noqa: E402, F401

import hybrid_core.comfy_bridge.models  # noqa: E402, F401
import hybrid_core.workers.process.entry  # noqa: E402
import hybrid_core.workers.process.loop  # noqa: E402, F401
