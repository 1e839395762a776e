"""Named errors. Each message says what was seen, what was expected and what to do."""

from __future__ import annotations


class HybridError(Exception):
    """Base of every error that this pack raises on purpose."""


class UnknownWordError(HybridError, ValueError):
    """A demo prompt holds a word that the demo models were not trained on."""


class ConfigError(HybridError, ValueError):
    """A setting is outside its range."""


class NotPartitionable(HybridError):
    """The graph uses something that cannot be evaluated in another process.

    Not a failure: the run is local, and the message is the reason the node shows.
    """


class NotYet(NotPartitionable):
    """This evaluation is the framework's own: by it, it is seen whether the next can be shared."""


class WorkerError(HybridError, RuntimeError):
    """Base of everything that can go wrong with the worker. The run goes on in the parent."""


class WorkerDied(WorkerError):
    """The worker's process has ended: its end of the pipe is closed."""


class WorkerStopped(WorkerError):
    """The worker that was asked was ended on purpose; another one may be there."""

    def __init__(self) -> None:
        super().__init__("the worker was stopped")


class WorkerTimeout(WorkerError):
    """The worker did not answer before the deadline."""


class WorkerFailed(WorkerError):
    """The worker answered that it could not do what it was asked (out of memory, a bad file)."""


class ProtocolError(WorkerError):
    """A message or a tensor header of the other process does not have the agreed form."""


class ReplicaMismatch(WorkerError):
    """The worker's model differs from the parent's, so its output would be wrong."""


class ArenaTooSmall(WorkerError):
    """A tensor does not fit into the shared memory that is left."""


class NoRoom(WorkerError):
    """The worker's device has not enough free memory for the replica."""


class NvmlError(HybridError, RuntimeError):
    """NVIDIA's management library is missing or refuses. code: what it returned, 0 if missing."""

    def __init__(self, message: str, code: int = 0):
        super().__init__(message)
        self.code = code


class PlaneUnavailable(WorkerError):
    """A way of moving tensors between the processes cannot be used here; the next one is."""


class CudaFailed(WorkerError):
    """A CUDA call of the data plane returned an error."""


class NotSplittable(HybridError):
    """The network cannot be cut in two stages, or a run cannot use them.

    Not a failure: both branches are evaluated in full, and the node shows the message.
    """


class NotLinear(HybridError):
    """A sampler is no sum of its predictions with weights known beforehand.

    Not a failure: its steps are not forecast, and the message says why.
    """
