"""Which GPU the worker gets, on machines that are made up: NVML and torch are stand-ins."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from hybrid_core.config import VISIBLE
from hybrid_core.errors import NotPartitionable, NvmlError, WorkerFailed
from hybrid_core.machine import devices, nvml
from hybrid_core.machine.nvml import Gpu

GB = 10**9
CARDS = {"3090": (8, 6, 24), "4090": (8, 9, 24), "4080": (8, 9, 16), "A100": (8, 0, 40)}
OWN = torch.device("cuda")


def machine(*cards, free=()):
    """GPUs by their short names; free: gigabytes of each, all by default."""
    made = []
    for index, short in enumerate(cards):
        major, minor, total = CARDS[short]
        unused = free[index] if free else total
        uuid = f"GPU-{index:08x}-0000-0000-0000-000000000000"
        made.append(Gpu(index, uuid, f"NVIDIA {short}", total * GB, unused * GB, (major, minor)))
    return made


def visible(gpus, value):
    """What CUDA shows of them under a CUDA_VISIBLE_DEVICES."""
    if value is None:
        return gpus
    found = []
    for one in filter(None, value.split(",")):
        match = [gpu for gpu in gpus if one == str(gpu.index) or gpu.uuid.startswith(one)]
        if not match:
            break  # CUDA stops at the first that it does not know
        found += match[:1]
    return found


class Library:
    """NVML's functions as its header has them: results go where a pointer says."""

    def __init__(self, gpus, refuses=None):
        self.gpus, self.refuses, self.open = gpus, refuses or {}, 0

    def nvmlInit_v2(self):
        self.open += 1
        return self.refuses.get("init", 0)

    def nvmlShutdown(self):
        self.open -= 1
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = len(self.gpus)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        handle._obj.value = 1000 + index.value
        return self.refuses.get(index.value, 0)

    def _gpu(self, handle):
        assert self.open == 1
        return self.gpus[handle.value - 1000]

    def nvmlDeviceGetMemoryInfo(self, handle, memory):
        gpu = self._gpu(handle)
        memory._obj.total, memory._obj.free = gpu.total, gpu.free
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, handle, major, minor):
        major._obj.value, minor._obj.value = self._gpu(handle).capability
        return 0

    def nvmlDeviceGetNumGpuCores(self, handle, cores):
        cores._obj.value = int(self._gpu(handle).speed // 1000)
        return 0 if self._gpu(handle).speed else nvml.NOT_SUPPORTED

    def nvmlDeviceGetMaxClockInfo(self, handle, kind, clock):
        assert kind.value == nvml.SM_CLOCK
        clock._obj.value = 1000
        return 0

    def nvmlDeviceGetUUID(self, handle, buffer, size):
        assert size.value == len(buffer)
        buffer.value = self._gpu(handle).uuid.encode()
        return 0

    def nvmlDeviceGetName(self, handle, buffer, size):
        assert size.value == len(buffer)
        buffer.value = self._gpu(handle).name.encode()
        return 0

    def nvmlDeviceGetMigMode(self, handle, current, pending):
        current._obj.value = self._gpu(handle).divided
        return 0 if CARDS[self._gpu(handle).name[7:]][:2] == (8, 0) else nvml.NOT_SUPPORTED


@pytest.fixture
def stage(monkeypatch):
    """Puts up a machine: its GPUs, what CUDA shows of them, and whether NVML is there."""

    def put(gpus, shown=None, with_nvml=True, refuses=None):
        library = Library(gpus, refuses)
        seen = visible(gpus, shown) if shown is None or isinstance(shown, str) else shown

        def load():
            if not with_nvml:
                raise NvmlError("no library")
            return library

        def properties(index):
            gpu = seen[index]
            return SimpleNamespace(
                uuid=gpu.uuid.removeprefix("GPU-"), name=gpu.name, total_memory=gpu.total,
                major=gpu.capability[0], minor=gpu.capability[1],
            )  # fmt: skip

        monkeypatch.setattr(nvml, "load", load)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(seen))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
        monkeypatch.setattr(torch.version, "hip", None)
        return library

    return put


def refused(*arguments):
    with pytest.raises(NotPartitionable) as caught:
        devices.for_worker(*arguments)
    return str(caught.value)


def test_nvml_lists_what_the_driver_has(stage):
    gpus = machine("3090", "A100", free=(3, 40))
    gpus[1] = replace(gpus[1], divided=True)
    library = stage(gpus)
    assert nvml.gpus() == gpus
    assert library.open == 0
    assert str(gpus[0]) == "GPU 0, NVIDIA 3090"


@pytest.mark.parametrize("code", [nvml.NO_PERMISSION, nvml.GPU_IS_LOST])
def test_nvml_leaves_out_a_gpu_that_cannot_be_used(stage, code):
    gpus = machine("3090", "3090", "3090")
    stage(gpus, refuses={1: code})
    assert nvml.gpus() == [gpus[0], gpus[2]]


def test_nvml_that_refuses_is_a_named_error(stage):
    stage(machine("3090"), refuses={"init": 9})
    with pytest.raises(NvmlError, match="nvmlInit_v2 returned 9, expected 0"):
        nvml.gpus()


def test_a_machine_without_a_driver_is_a_named_error(monkeypatch):
    monkeypatch.setattr(nvml, "LIBRARY", "no-such-library.so.1")
    with pytest.raises(NvmlError, match=r"no-such-library.so.1 cannot be loaded"):
        nvml.gpus()


# cards of the machine, gigabytes free, the parent's, the worker's
CHOICES = [
    (("3090", "3090"), (), 0, 1),
    (("3090", "3090"), (), 1, 0),
    (("3090", "3090"), (24, 1), 0, 1),  # busy, but there is no other: the memory check decides
    (("4090", "3090", "4090"), (24, 24, 2), 0, 2),  # the same card before more memory
    (("4090", "3090", "4080"), (24, 24, 8), 0, 2),  # the same compute capability next
    (("3090", "4090", "A100"), (24, 20, 39), 0, 2),  # nothing alike: the most memory
    (("3090", "3090", "3090", "3090"), (9, 8, 20, 11), 0, 2),
    (("3090", "3090", "3090", "3090"), (), 2, 0),
]


@pytest.mark.parametrize(("cards", "free", "own", "expected"), CHOICES)
def test_the_workers_gpu_is_the_one_most_like_the_parents(stage, cards, free, own, expected):
    gpus = machine(*cards, free=free)
    stage(gpus, str(own))
    chosen = devices.for_worker(OWN, None)
    assert chosen.environment == {VISIBLE: gpus[expected].uuid}
    assert (chosen.uuid, chosen.cores) == (gpus[expected].uuid, ())
    assert chosen.label == str(gpus[expected])
    assert (chosen.differs is None) == (cards[own] == cards[expected])


def test_different_cards_are_named(stage):
    stage(machine("4090", "3090"))
    assert devices.for_worker(OWN, None).differs == (
        "NVIDIA 3090 (compute capability 8.6, 24.0 GB) beside "
        "NVIDIA 4090 (compute capability 8.9, 24.0 GB)"
    )


@pytest.mark.parametrize("hiding", ["0", "GPU-00000000", "0,", "0,7", "0,1,2,3", None])
def test_what_the_parent_does_not_see_can_be_the_workers(stage, hiding):
    gpus = machine("3090", "4090", "3090", "4090")
    stage(gpus, hiding)
    assert devices.for_worker(OWN, None).uuid == gpus[2].uuid


@pytest.mark.parametrize(("shown", "expected"), [("3,1", 1), ("1", 3), ("GPU-00000001,0", 3)])
def test_the_parents_own_gpu_is_found_when_numbers_are_changed(stage, shown, expected):
    gpus = machine("3090", "4090", "3090", "4090")
    stage(gpus, shown)
    assert devices.for_worker(OWN, None).uuid == gpus[expected].uuid
    assert devices.for_worker(torch.device("cuda", 0), None).uuid == gpus[expected].uuid


def test_the_parents_second_gpu_is_left_to_it_when_it_computes_there(stage):
    gpus = machine("3090", "3090", "3090", free=(5, 20, 9))
    stage(gpus)
    assert devices.for_worker(torch.device("cuda", 1), None).uuid == gpus[2].uuid


def test_one_gpu_is_told_as_no_second_one(stage):
    stage(machine("3090"))
    assert refused(OWN, None) == (
        "there is no second GPU: ComfyUI sees 1, and this machine has no other"
    )


def test_one_visible_gpu_without_nvml(stage):
    gpus = machine("3090", "3090")
    stage(gpus, "0", with_nvml=False)
    assert refused(OWN, None) == (
        "there is no second GPU: ComfyUI sees 1, and NVIDIA's NVML is not there to list others "
        "(is CUDA_VISIBLE_DEVICES hiding one?)"
    )
    stage(gpus, with_nvml=False)
    assert devices.for_worker(OWN, None).uuid == gpus[1].uuid


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
def test_no_nvidia_gpu_is_told_with_the_device_in_use(stage, device):
    stage(machine("3090"), "")
    said = refused(torch.device(device), None)
    assert said.startswith(f"there is no second GPU: ComfyUI sees 0 and computes on {device}; ")
    assert "torch sees 0" in refused(torch.device(device), None, "torch")


def test_an_amd_gpu_has_no_second_process(stage, monkeypatch):
    stage(machine("3090", "3090"))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "on an AMD GPU; a second process is for NVIDIA GPUs" in refused(OWN, None)


def test_parent_on_a_part_of_a_divided_gpu(stage):
    gpus = [replace(gpu, divided=True) for gpu in machine("A100", "A100")]
    part = replace(gpus[0], uuid="GPU-0000000f")  # CUDA tells the part's own UUID
    stage(gpus, [part])
    assert "a part of a divided GPU (MIG)" in refused(OWN, None)


def test_divided_gpus_are_left_out(stage):
    gpus = machine("A100", "A100", "3090")
    gpus[1] = replace(gpus[1], divided=True)
    stage(gpus)
    assert devices.for_worker(OWN, None).uuid == gpus[2].uuid
    stage(gpus[:2])
    assert "the others are divided (MIG: GPU 1, NVIDIA A100)" in refused(OWN, None)


def test_a_wish_decides_which_device_the_worker_gets(stage):
    gpus = machine("3090", "4090", "3090")
    stage(gpus, "0")
    assert devices.for_worker(OWN, "cuda:1").uuid == gpus[1].uuid
    assert devices.for_worker(OWN, gpus[2].uuid).uuid == gpus[2].uuid
    assert devices.for_worker(OWN, "cpu:2,3").cores == (2, 3)


def test_two_processes_on_one_gpu_only_when_asked_for(stage):
    gpus = machine("3090")
    stage(gpus)
    refused(OWN, None)
    refused(OWN, "")
    chosen = devices.for_worker(OWN, "cuda:0")
    assert (chosen.label, chosen.uuid) == ("GPU 0, NVIDIA 3090", gpus[0].uuid)
    assert (chosen.environment, chosen.differs) == ({VISIBLE: gpus[0].uuid}, None)


@pytest.mark.parametrize("wish", ["cuda:2", "cuda", "1", "GPU-5", "gpu:0", "cuda:-1", " "])
def test_a_wish_that_cannot_be_met_says_what_there_is(stage, wish):
    gpus = machine("3090", "4090")
    stage(gpus)
    assert refused(OWN, wish) == (
        f"HYBRID_KSAMPLER_DEVICE is '{wish}', expected cpu: and core numbers, as in 'cpu:1', "
        f"'none', or a GPU of this machine: cuda:0 or {gpus[0].uuid} (NVIDIA 3090); "
        f"cuda:1 or {gpus[1].uuid} (NVIDIA 4090); several with ';' between them"
    )


def test_all_others_are_workers_those_most_like_the_parents_first(stage):
    gpus = machine("4090", "3090", "4090", "4080", "A100")
    gpus[4] = replace(gpus[4], divided=True)
    stage(gpus)
    choice = devices.for_workers(OWN, None)
    assert [device.uuid for device in choice.chosen] == [gpus[i].uuid for i in (2, 3, 1)]
    assert choice.left_out == {"GPU 4, NVIDIA A100": "it is divided (MIG)"}
    assert [device.differs is None for device in choice.chosen] == [True, False, False]


def test_a_list_of_wishes_is_taken_in_its_order(stage):
    gpus = machine("4090", "3090", "4090")
    stage(gpus)
    choice = devices.for_workers(OWN, f"cuda:1; {gpus[2].uuid};cpu:1,2;cuda:1")
    assert [device.uuid for device in choice.chosen] == [gpus[1].uuid, gpus[2].uuid, None]
    assert choice.chosen[2].cores == (1, 2)
    with pytest.raises(NotPartitionable, match="'cuda:7'"):
        devices.for_workers(OWN, "cuda:1;cuda:7")
    for wish in ("none", " ", ";"):
        with pytest.raises(NotPartitionable):
            devices.for_workers(OWN, wish)


def test_a_slower_card_is_known_by_its_cores_and_clock(stage):
    gpus = machine("4090", "3090", "3090")
    for at, speed in ((0, 4e7), (1, 1e7), (2, 0.0)):
        gpus[at] = replace(gpus[at], speed=speed)
    stage(gpus)
    assert [device.pace for device in devices.for_workers(OWN, None).chosen] == [4.0, 1.0]


@pytest.mark.parametrize("wish", ["cpu", "cpu:", "cpu:a", "cpu:-1"])
def test_wrong_cores_run_locally(stage, wish):
    stage(machine("3090", "3090"))
    assert "expected cpu: and core numbers" in refused(OWN, wish)


def test_no_second_process_is_wanted(stage):
    stage(machine("3090", "3090"))
    assert "HYBRID_KSAMPLER_DEVICE is 'none'" in refused(OWN, "none")


def test_a_gpu_is_wished_for_beside_a_parent_on_processor_cores(stage):
    stage(machine("3090"), "")
    said = refused(torch.device("cpu"), "cuda:0")
    assert "computes on cpu" in said
    assert said.startswith("HYBRID_KSAMPLER_DEVICE is 'cuda:0', expected cpu:")


def test_the_worker_sees_the_gpu_that_it_was_given(stage, monkeypatch):
    gpus = machine("3090", "4090")
    monkeypatch.setenv(VISIBLE, gpus[1].uuid)
    stage(gpus, gpus[1].uuid)
    devices.check_given()
    stage(gpus, "")  # a container that does not have it
    with pytest.raises(WorkerFailed, match=r"was given GPU-00000001\S+ and CUDA shows it no GPU"):
        devices.check_given()
    stage(gpus, "0")
    with pytest.raises(WorkerFailed, match=r"and CUDA shows it GPU-00000000"):
        devices.check_given()
    monkeypatch.setenv(VISIBLE, "")  # processor cores
    devices.check_given()
