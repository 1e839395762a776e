"""Which devices the workers get: other GPUs than the parent's, those most like it first."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from hybrid_core.config import DEVICE_VARIABLE, VISIBLE, WorkerDevice, processor_cores
from hybrid_core.errors import ConfigError, NotPartitionable, NvmlError, WorkerFailed
from hybrid_core.machine import nvml
from hybrid_core.machine.nvml import Gpu

NONE = "none"
BETWEEN = ";"  # two devices that are wished for


@dataclass(frozen=True)
class Choice:
    """Devices for workers, and why others of the machine are none."""

    chosen: tuple[WorkerDevice, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def for_workers(own: torch.device, wish: str | None, program: str = "ComfyUI") -> Choice:
    """Every device that can stand beside `own`, most like it first.

    wish: DEVICE_VARIABLE's value, several devices with BETWEEN between them; each as `for_worker`
    takes it. Raises NotPartitionable with the reason when there is none.
    """
    if wish:
        names = list(dict.fromkeys(name.strip() for name in wish.split(BETWEEN) if name.strip()))
        return Choice(tuple(for_worker(own, name, program) for name in names or [wish]))
    first = for_worker(own, None, program)
    gpus, _ = _listed(own, program)
    mine = next(gpu for gpu in gpus if gpu.uuid == own_gpu(own).uuid)
    others = [gpu for gpu in gpus if gpu.uuid not in (mine.uuid, first.uuid)]
    whole = sorted((gpu for gpu in others if not gpu.divided), key=_likeness(mine), reverse=True)
    divided = {str(gpu): "it is divided (MIG)" for gpu in others if gpu.divided}
    return Choice((first, *(_device(own, mine, gpu) for gpu in whole)), divided)


def for_worker(own: torch.device, wish: str | None, program: str = "ComfyUI") -> WorkerDevice:
    """The worker's device beside `own`, on which the parent computes.

    wish: DEVICE_VARIABLE's value: "cpu:1" or "cpu:2,3" (processor cores), "cuda:1" (NVML's number)
    or a GPU's UUID, the parent's own too, or "none". Raises NotPartitionable with the reason when
    there is none.
    """
    if wish == NONE:
        raise NotPartitionable(f"{DEVICE_VARIABLE} is '{NONE}': no second process is wanted")
    if wish and wish.startswith("cpu"):
        try:
            return processor_cores(wish)
        except ConfigError as error:
            raise NotPartitionable(str(error)) from error
    obstacle = _unfit(own, program)
    if obstacle is not None:
        raise NotPartitionable(_no_such(wish, obstacle) if wish else obstacle)
    gpus, all_seen = _listed(own, program)
    mine = next(gpu for gpu in gpus if gpu.uuid == own_gpu(own).uuid)
    if wish:
        chosen = next((gpu for gpu in gpus if wish in (gpu.uuid, f"cuda:{gpu.index}")), None)
        if chosen is None:
            there = (f"cuda:{gpu.index} or {gpu.uuid} ({gpu.name})" for gpu in gpus)
            raise NotPartitionable(_no_such(wish, "; ".join(there)))
    else:
        chosen = most_like(mine, gpus)
        if chosen is None:
            raise NotPartitionable(_only_one(program, gpus, all_seen))
    return _device(own, mine, chosen)


def _device(own: torch.device, mine: Gpu, chosen: Gpu) -> WorkerDevice:
    return WorkerDevice(
        str(chosen),
        {VISIBLE: chosen.uuid},
        uuid=chosen.uuid,
        parents_gpu=own_gpu(own).index,
        differs=differs(mine, chosen),
        pace=mine.speed / chosen.speed if mine.speed and chosen.speed else 1.0,
    )


def most_like(own: Gpu, gpus: list[Gpu]) -> Gpu | None:
    """Of the others that are whole: same name, same compute capability, most free memory."""
    others = [gpu for gpu in gpus if gpu.uuid != own.uuid and not gpu.divided]
    return max(others, key=_likeness(own), default=None)


def _likeness(own: Gpu) -> Callable[[Gpu], tuple[bool, bool, int, int]]:
    return lambda gpu: (
        gpu.name == own.name, gpu.capability == own.capability, gpu.free, -gpu.index,
    )  # fmt: skip


def differs(mine: Gpu, other: Gpu) -> str | None:
    """How the worker's card differs from the parent's, None when it is of the same kind."""
    if (mine.name, mine.capability) == (other.name, other.capability):
        return None
    return f"{_kind(other)} beside {_kind(mine)}"


def own_gpu(device: torch.device) -> Gpu:
    """A GPU that torch sees, under torch's number. Makes no context; free memory is not asked."""
    index = device.index if device.index is not None else torch.cuda.current_device()
    seen = torch.cuda.get_device_properties(index)
    uuid = f"GPU-{seen.uuid}".replace("GPU-GPU-", "GPU-")
    return Gpu(index, uuid, seen.name, seen.total_memory, 0, (seen.major, seen.minor))


def check_given() -> None:
    """In the worker: torch must see the GPU it was given and no other. Raises WorkerFailed."""
    given = os.environ.get(VISIBLE)
    if not given:
        return
    count = torch.cuda.device_count()
    seen = [own_gpu(torch.device("cuda", index)).uuid for index in range(count)]
    if seen != [given]:
        raise WorkerFailed(
            f"the worker was given {given} and CUDA shows it {', '.join(seen) or 'no GPU'}; "
            f"choose another with {DEVICE_VARIABLE}"
        )


def _unfit(own: torch.device, program: str) -> str | None:
    """Why no second GPU can stand beside a parent on `own`."""
    if own.type != "cuda":
        return (
            f"there is no second GPU: {program} sees {torch.cuda.device_count()} and computes on "
            f"{own}; a second process is for NVIDIA GPUs"
        )
    if torch.version.hip is not None:
        return f"{program} computes on an AMD GPU; a second process is for NVIDIA GPUs"
    return None


def _listed(own: torch.device, program: str) -> tuple[list[Gpu], bool]:
    """The machine's GPUs with the parent's among them, and whether hidden ones are too."""
    mine = own_gpu(own).uuid
    try:
        gpus = nvml.gpus()
    except NvmlError:
        gpus = []
    if any(gpu.uuid == mine for gpu in gpus):
        return gpus, True
    if any(gpu.divided for gpu in gpus):
        raise NotPartitionable(
            f"{program} computes on a part of a divided GPU (MIG), and a process gets one part "
            "only; a second process needs a whole GPU"
        )
    count = torch.cuda.device_count()
    return [own_gpu(torch.device("cuda", index)) for index in range(count)], False


def _only_one(program: str, gpus: list[Gpu], all_seen: bool) -> str:
    text = f"there is no second GPU: {program} sees {torch.cuda.device_count()}"
    divided = [str(gpu) for gpu in gpus if gpu.divided]
    if divided:
        return f"{text}, the others are divided (MIG: {'; '.join(divided)})"
    if all_seen:
        return f"{text}, and this machine has no other"
    return f"{text}, and NVIDIA's NVML is not there to list others (is {VISIBLE} hiding one?)"


def _no_such(wish: str, there: str) -> str:
    return (
        f"{DEVICE_VARIABLE} is '{wish}', expected cpu: and core numbers, as in 'cpu:1', '{NONE}', "
        f"or a GPU of this machine: {there}; several with '{BETWEEN}' between them"
    )


def _kind(gpu: Gpu) -> str:
    major, minor = gpu.capability
    return f"{gpu.name} (compute capability {major}.{minor}, {gpu.total / 1e9:.1f} GB)"
