"""Keys and values of one transformer block between two processes, as a division by tokens needs."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass

import torch

from benchmarks.echo import echoing, exchange
from benchmarks.report import Row, progress
from hybrid_core.comfy_bridge.session import Session

REPEATS = 50
HOW = "there and back one after the other, so an upper bound of an exchange in both directions"


@dataclass(frozen=True)
class Block:
    """Of a network at one size, in fp16."""

    tokens: int
    width: int
    blocks: int

    @property
    def bytes_each_way(self) -> int:
        """Half of the keys and of the values."""
        return 2 * (self.tokens // 2) * self.width * 2


BLOCKS = {
    "Flux, 1024x1024": Block(4096 + 512, 3072, 57),
    "Qwen-Image, 1024x1024": Block(4096 + 64, 3072, 60),
    "Wan 14B, 832x480, 81 frames": Block(32760, 5120, 40),
    "SD3-medium, 1024x1024": Block(4096 + 154, 1536, 24),
}


def rows(plane: str, device: torch.device, blocks: dict[str, Block] = BLOCKS) -> list[Row]:
    """One for each block. What is larger than a slot goes in as many exchanges as it needs."""
    made: list[Row] = []
    with echoing(Session.device(), plane) as host:
        slot = host.settings.slot_bytes
        for name, block in blocks.items():
            turns = math.ceil(block.bytes_each_way / slot)
            size = block.bytes_each_way // turns // 2 * 2
            sent = torch.zeros(size // 2, dtype=torch.float16, device=device)
            taken = exchange(host, [sent], size, REPEATS)
            gather = statistics.median(taken) * turns
            made.append(
                {
                    "model": name, "row": "gather", "wanted": plane, "plane": host.data_plane,
                    "why": host.data_plane_reason, "one_gpu": torch.cuda.device_count() == 1,
                    "bytes_each_way": block.bytes_each_way, "turns": turns,
                    "block_ms": round(gather, 4), "forward_ms": round(gather * block.blocks, 2),
                    "how": HOW,
                }
            )  # fmt: skip
            progress(json.dumps(made[-1]))
    return made


def expected(branch_ms: float, gathers_ms: float) -> float:
    """How many times as fast one branch is by tokens on two such devices, nothing overlapping."""
    return branch_ms / (branch_ms / 2 + gathers_ms)
