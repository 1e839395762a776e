"""What to expect of 1 to 8 devices, equal and unequal: computed by the planner, nothing is run.

One step without shortening. A card's pace follows from the operations of a forward pass and the
card's sustained speed; links are what such links reach in practice, or what `--link` says: the log
tells what the self-test of a second GPU has measured ("data plane: ..."). Each row says `computed`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.report import Row, publish
from hybrid_core.planning.step import Load, alone, quickest
from hybrid_core.planning.tokens import Gather, Link, Member
from hybrid_core.planning.whole import Pace

CARD = 100e12  # operations a second of the first card: a large consumer card at 16 bits
SIDES = (1024, 2048, 2560)  # pixels
LINKS = {
    "NVLink": Link(latency=20e-6, rate=200e9),
    "PCIe 4 through host memory": Link(latency=60e-6, rate=12e9),
    "10 GbE": Link(latency=200e-6, rate=1.1e9),
}
CARDS = {  # speeds beside the first one's
    **{f"{count} equal": (1.0,) * count for count in range(1, 9)},
    "1 and 0.38": (1.0, 0.38),  # such as a 4090 beside a 3060, by their sustained speed
    "1 and 0.5": (1.0, 0.5),
    "1, 0.7 and 0.4": (1.0, 0.7, 0.4),
    "2 of 1 and 2 of 0.5": (1.0, 1.0, 0.5, 0.5),
    "1, 0.8, 0.6, 0.4 and 0.2": (1.0, 0.8, 0.6, 0.4, 0.2),
}
# The published method with its shortened steps, SDXL on two H200: arXiv 2602.21760
PUBLISHED = {("SDXL", 2048): 1.54, ("SDXL", 2560): 1.62}


@dataclass(frozen=True)
class Network:
    """A transformer's forward pass, or a U-Net's, of one picture."""

    weights: float  # that each token goes through
    width: int
    blocks: int
    text: int  # tokens beside the picture's
    frames: int = 1  # of the latent
    pixel_operations: float | None = None  # of a U-Net, whose tokens are not divided
    channels: int = 16  # of the latent

    def tokens(self, side: int) -> int:
        return self.frames * (side // 16) ** 2 + self.text

    def operations(self, side: int) -> float:
        if self.pixel_operations is not None:
            return self.pixel_operations * side**2
        count = self.tokens(side)
        attention = 4.0 * count**2 * self.width * self.blocks
        return 2.0 * self.weights * count + attention

    def gather(self, side: int) -> Gather | None:
        if self.pixel_operations is not None:
            return None
        count = self.tokens(side)
        size = 2.0 * 2 * count * self.width * self.blocks  # keys and values in 16 bits
        return Gather(size, self.blocks, count)

    def latent_bytes(self, side: int) -> float:
        return 2.0 * self.channels * self.frames * (side // 8) ** 2


NETWORKS = {
    "SDXL": Network(2.6e9, 1280, 70, 77, pixel_operations=6.0e12 / 1024**2, channels=4),
    "Flux": Network(12e9, 3072, 57, 512),
    "Qwen-Image": Network(20e9, 3072, 60, 256),
    "Wan 14B, 81 frames": Network(14e9, 5120, 40, 512, frames=21),
}


def members(speeds: tuple[float, ...], network: Network, side: int, link: Link) -> list[Member]:
    """The first device evaluates where the sampler runs: it sends nothing of its own parts."""
    forward = network.operations(side) / CARD
    there = 2 * network.latent_bytes(side) / link.rate
    paces = [Pace(forward / speeds[0])]
    paces += [Pace(forward / speed + there, 2 * link.latency) for speed in speeds[1:]]
    return [Member(pace, link) for pace in paces]


def rows(only: str, links: dict[str, Link]) -> Iterator[Row]:
    for name, network in NETWORKS.items():
        if only.lower() not in name.lower():
            continue
        for side in SIDES:
            for branches in (1, 2):
                for wire, link in links.items():
                    for cards, speeds in CARDS.items():
                        yield row(name, network, side, branches, wire, link, cards, speeds)


def row(
    name: str,
    network: Network,
    side: int,
    branches: int,
    wire: str,
    link: Link,
    cards: str,
    speeds: tuple[float, ...],
) -> Row:
    load = Load(branches, 1, network.gather(side))
    taking = members(speeds, network, side, link)
    found, one = quickest(taking, load), alone(taking[0], load)
    made: Row = {
        "model": name,
        "arm": "exact",
        "how": "computed",
        "side": side,
        "cfg": "1" if branches == 1 else "above 1",
        "link": wire,
        "devices": cards,
        "kind": found.kind,
        "ratio": round(one / found.seconds, 2),
        "ideal": round(sum(speeds) / speeds[0], 2),
        "shares": [round(share, 3) for share in found.shares],
        "step_s": round(found.seconds, 4),
    }
    published = PUBLISHED.get((name, side))
    if published is not None and branches == 2 and cards == "2 equal":
        made["published_hybrid"] = published
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="", help="only models with this word in their name")
    parser.add_argument(
        "--link",
        nargs=2,
        type=float,
        metavar=("MICROSECONDS", "GB_S"),
        help="latency and rate of your link, in place of the three",
    )
    arguments = parser.parse_args()
    links = LINKS
    if arguments.link is not None:
        latency, rate = arguments.link
        links = {"measured": Link(latency * 1e-6, rate * 1e9)}
    found = list(rows(arguments.model, links))
    if arguments.json:
        publish("plan-devices", found)
    else:
        for line in table(found):
            print(line)  # noqa: T201  a command-line tool


def table(found: list[Row]) -> Iterator[str]:
    """Expected ratios to the first card alone; a line for each network, size, cfg and link."""
    head = ("computed, one step in full", *CARDS)
    by_line: dict[str, dict[str, float]] = {}
    for row in found:
        line = f"{row['model']}, {row['side']} px, cfg {row['cfg']}, {row['link']}"
        by_line.setdefault(line, {})[row["devices"]] = row["ratio"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for line, ratios in by_line.items():
        yield f"| {line} | " + " | ".join(f"{ratios[cards]:.2f}" for cards in CARDS) + " |"


if __name__ == "__main__":
    main()
