"""Frozen settings, checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hybrid_core.errors import ConfigError

MODES = ("adaptive", "paper", "exact", "off")
DEVICE_VARIABLE = "HYBRID_KSAMPLER_DEVICE"
RAY_VARIABLE = "HYBRID_KSAMPLER_RAY"
RAY_WEIGHTS_VARIABLE = "HYBRID_KSAMPLER_RAY_WEIGHTS"
AUTO = "auto"
DATA_PLANES = (AUTO, "cuda_ipc", "host_pinned", "host")  # each falls back to the next
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Settings:
    """Limits of the second process. Times are in seconds."""

    slot_bytes: int = 64 << 20  # most bytes in one exchange
    start_seconds: float = 180.0
    load_seconds: float = 600.0
    step_seconds: float = 60.0  # of a step, after which the worker counts as hung
    step_factor: float = 20.0  # on top of as many times the parent's own branch
    request_seconds: float = 30.0  # conditioning, status, a piece of a bulk transfer
    idle_seconds: float = 600.0  # an unused worker is stopped
    plane_seconds: float = 20.0  # the self-test of one data plane
    data_plane: str = AUTO

    def __post_init__(self) -> None:
        if not 4096 <= self.slot_bytes < 1 << 32 or self.slot_bytes % 64:
            raise ConfigError(
                f"slot_bytes is {self.slot_bytes}, expected a multiple of 64 from 4096 to 4 GiB"
            )
        for name in ("start", "load", "step", "request", "idle", "plane"):
            value = getattr(self, f"{name}_seconds")
            if not value > 0:
                raise ConfigError(f"{name}_seconds is {value}, expected more than 0")
        if not self.step_factor >= 1:
            raise ConfigError(f"step_factor is {self.step_factor}, expected 1 or more")
        check_data_plane(self.data_plane)


@dataclass(frozen=True)
class Tuning:
    """What an artist may set about the Parallelism stage. None and 0: as published."""

    tolerance: float = 0.0125  # of adaptive: relative change of the latent in a gap
    largest_gap: int = 12  # most steps between two exact ones
    kinds: frozenset[str] = frozenset(("pipelined", "forecast"))  # of adaptive, beside exact
    look_ahead: bool = True
    window: int = 0  # L, paper mode, for 50 steps like the next three
    slope: float = 0.0  # g
    length: int | None = None  # k
    cap: int = 0  # tau_cap
    step_seconds: float | None = None  # None: the session's, like the next
    load_seconds: float | None = None
    data_plane: str = AUTO  # the session's
    most_devices: int = 0  # this process's own among them; 0: all that are of use

    def __post_init__(self) -> None:
        check_data_plane(self.data_plane)
        for name in (
            "tolerance",
            "largest_gap",
            "window",
            "slope",
            "length",
            "cap",
            "most_devices",
        ):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name} is {value}, expected 0 or more")
        for name in ("step_seconds", "load_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}, expected more than 0")


@dataclass(frozen=True)
class WorkerDevice:
    """Where the worker evaluates: one GPU by its UUID, or processor cores."""

    label: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    uuid: str | None = None  # of a GPU
    parents_gpu: int | None = None  # torch's number of the GPU that the parent computes on
    differs: str | None = None  # how the GPU differs from the parent's, in words
    pace: float = 1.0  # seconds of a forward pass for one of the parent's, by the cards' figures
    remote: bool = False  # on another computer: it gets whole forward passes of models by name


def processor_cores(chosen: str) -> WorkerDevice:
    """Cores for development and tests: "cpu:1" or "cpu:2,3". Raises ConfigError."""
    kind, _, numbers = chosen.partition(":")
    try:
        cores = tuple(int(number) for number in numbers.split(","))
    except ValueError:
        cores = ()
    if kind != "cpu" or not cores or min(cores) < 0:
        raise ConfigError(
            f"{DEVICE_VARIABLE} is '{chosen}', expected cpu: and core numbers, as in 'cpu:1'"
        )
    return WorkerDevice(chosen, {"OMP_NUM_THREADS": str(len(cores)), VISIBLE: ""}, cores)


def check_data_plane(plane: str) -> str:
    """`plane` itself. Raises ConfigError for a word that is not a data plane."""
    if plane not in DATA_PLANES:
        raise ConfigError(f"data_plane is '{plane}', expected one of {', '.join(DATA_PLANES)}")
    return plane


def check_mode(mode: str) -> str:
    """`mode` itself. Raises ConfigError for a word that is not a mode."""
    if mode not in MODES:
        raise ConfigError(f"mode is '{mode}', expected one of {', '.join(MODES)}")
    return mode
