"""A framework of a few lines for the driver: a chain of blocks, Euler's steps, a worker inline."""

from __future__ import annotations

from functools import partial

import torch
from samplers import euler
from torch import nn

from hybrid_core.config import Tuning
from hybrid_core.course.course import Course
from hybrid_core.course.matrix import trace
from hybrid_core.driver.driver import Driver
from hybrid_core.driver.pipeline import Pipeline
from hybrid_core.driver.tokens import TokenSharing
from hybrid_core.errors import NotPartitionable, ReplicaMismatch
from hybrid_core.stages.attention import PLAIN
from hybrid_core.telling.report import Nobody, Report
from hybrid_core.workers.evaluator import latents_and_level
from hybrid_core.workers.lease import Lease

STEPS = 20
SIGMAS = [1 - i / STEPS for i in range(STEPS + 1)]
SHAPE = (2, 4, 8, 8)
CFG = 5.0


class Block(nn.Module):
    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.3 * torch.randn(4, 4, generator=generator))

    def forward(self, x, prompt):
        return x + 0.1 * torch.einsum("oc,bchw->bohw", self.weight, x + prompt).tanh()


class Network(nn.Module):
    """Velocity of a latent (B, 4, H, W) for a prompt (4,)."""

    def __init__(self, blocks=4):
        super().__init__()
        self.blocks = nn.ModuleList(Block(seed) for seed in range(blocks))

    def forward(self, x, sigma, prompt):
        out = x * (1 + sigma.reshape(-1, 1, 1, 1))
        for block in self.blocks:
            out = block(out, prompt.reshape(1, -1, 1, 1))
        return out


class TokenBlock(nn.Module):
    """Attention over the places of a picture, (B, N, 4)."""

    def __init__(self, seed, mixes):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.3 * torch.randn(12, 4, generator=generator))
        self.mixes = mixes

    def forward(self, x, prompt):
        q, k, v = ((x + prompt) @ self.weight.T).unflatten(-1, (3, 4)).unbind(-2)
        x = x + 0.1 * nn.functional.scaled_dot_product_attention(q, k, v)
        return x + x.mean(1, keepdim=True) if self.mixes else x


class Transformer(nn.Module):
    """Velocity of a latent (B, 4, H, W) for a prompt (4,). mixes: "block": other than attention."""

    def __init__(self, mixes=None):
        super().__init__()
        self.blocks = nn.ModuleList(TokenBlock(seed, mixes == "block") for seed in range(3))

    def forward(self, x, sigma, prompt):
        state = x.flatten(2).mT * (1 + sigma.reshape(-1, 1, 1))  # (B, N, 4)
        for block in self.blocks:
            state = block(state, prompt.reshape(1, 1, -1))
        return state.mT.reshape(x.shape)


def evaluated(network, prompt, x, sigma, each):
    """The velocity, by way of `each` where forward passes are seen."""

    def forward():
        return network(x, sigma, prompt)

    return forward() if each is None else each("one", x, forward)


class ToyModels:
    """The worker's side."""

    device = torch.device("cpu")
    attention = PLAIN

    made = Network

    def __init__(self):
        self._network = None
        self.stopped = False

    def load(self, data):
        self._network = self.made()
        self._network.load_state_dict(data["state"])
        return {"sum": float(sum(p.double().sum() for p in self._network.parameters()))}

    def network(self):
        return self._network

    def context(self, data):
        return data

    def context_of(self, context, pictures):
        return context

    def evaluate(self, context, inputs, each):
        x, sigma = latents_and_level(inputs)
        return [evaluated(self._network, prompt, x, sigma, each) for prompt in context]

    def forget(self, base_key):
        self._network = None

    def status(self):
        return {"models": int(self._network is not None)}

    def interrupt(self, value):
        self.stopped = value

    def after_failure(self):
        pass


class TransformerModels(ToyModels):
    made = Transformer


class MixingModels(ToyModels):
    made = partial(Transformer, mixes="block")


class Source:
    """The parent's network."""

    def __init__(self, network, key="k"):
        self.by = ""
        self.base_key, self.key, self.name, self.half = key, key, "Network", False
        self._network = network

    def payload(self, with_base):
        return {"state": dict(self._network.state_dict())}

    def fingerprint(self):
        return str(self._network.forward)

    def changed_since(self, before):
        return None if self.fingerprint() == before else "its forward pass"

    def needed_bytes(self):
        return 0

    def verify(self, theirs):
        ours = float(sum(p.double().sum() for p in self._network.parameters()))
        if theirs != {"sum": ours}:
            raise ReplicaMismatch("the sums differ")


class ToyCall:
    """An evaluation of a cond and an uncond prompt; outputs are velocities."""

    alike, even, prompts, cfg, aside, attention = True, True, (), None, False, PLAIN

    def __init__(self, network, conds, x, sigma, obstacle=None):
        self.network, self.conds, self.x, self.sigma = network, conds, x, sigma
        self.obstacle = obstacle
        self.asked = []  # branches of each evaluation here

    @property
    def branches(self):
        return [place for place, cond in enumerate(self.conds) if cond is not None]

    def check(self):
        if self.obstacle is not None:
            raise NotPartitionable(self.obstacle)

    @property
    def pictures(self):
        return len(self.x)

    @property
    def form(self):
        return tuple(self.x.shape)

    def evaluate(self, branches, each=None, pictures=None):
        self.asked.append(tuple(branches))
        x, sigma = self.inputs(branches, pictures)
        return {
            place: evaluated(self.network, self.conds[place], x, sigma, each) for place in branches
        }

    def context(self, branches):
        return [self.conds[place] for place in branches]

    def inputs(self, branches, pictures=None):
        if pictures is None:
            return self.x, self.sigma
        return pictures.of(self.x), pictures.of(self.sigma)

    def inputs_at(self, x, sigma):
        return x, sigma

    def denoised(self, output):
        return self.x - self.sigma.reshape(-1, 1, 1, 1) * output

    def output(self, denoised):
        return (self.x - denoised) / self.sigma.reshape(-1, 1, 1, 1)


PROMPTS = [torch.tensor([1.0, -1.0, 0.5, 0.2]), torch.tensor([-0.5, 0.3, 0.1, 0.4])]
ONE = PROMPTS[:1]


def start(batch):
    return torch.randn((batch, *SHAPE[1:]), generator=torch.Generator().manual_seed(1))


def serial(network, prompts=PROMPTS, batch=SHAPE[0]):
    """The framework's own run."""
    x = start(batch)
    for index in range(STEPS):
        sigma = torch.full((batch,), SIGMAS[index])
        outs = [network(x, sigma, prompt) for prompt in prompts]
        x = stepped(x, outs, index)
    return x


def stepped(x, outs, index):
    velocity = outs[0] if len(outs) == 1 else outs[1] + CFG * (outs[0] - outs[1])
    return x + velocity * (SIGMAS[index + 1] - SIGMAS[index])


def traced():
    """Euler's steps as a matrix."""
    return trace(euler(SIGMAS), SIGMAS[0], STEPS)


class Run:
    """A run of the driver; its parts are there to be harmed."""

    def __init__(
        self,
        network,
        holdings,
        mode="exact",
        prompts=PROMPTS,
        tick=None,
        cancelled=KeyboardInterrupt,
        divided=False,
        **tuning,
    ):
        """divided: whether tokens may be."""
        self.network, self.prompts, self.said = network, prompts, []
        self.report = Report(mode, total=STEPS)
        one, chosen = len(prompts) == 1, Tuning(**tuning)
        cfg = 1.0 if one else CFG
        self.course = Course.of(mode, chosen, SIGMAS, True, traced, cfg=cfg)
        self.pipeline = Pipeline(self.course, {}, SHAPE) if mode != "exact" else None
        every = holdings if isinstance(holdings, list) else [holdings]
        self.leases = [
            Lease(one, Source(network), tick or (lambda: None), self.report, chosen)
            for one in every
        ]
        self.lease = self.leases[0]
        self.driver = Driver(
            self.course, self.pipeline, lambda: self.leases, self.report, Nobody(),
            self.said.append, one, cancelled,
            tokens=TokenSharing(network) if divided else None,
        )  # fmt: skip

    def sample(self, harm=None, obstacle=None, batch=SHAPE[0]):
        """The latent at the end. harm: called with each step's number before it."""
        x, calls = start(batch), []
        self.driver.prepare(len(x))
        for index in range(STEPS):
            if harm is not None:
                harm(index)
            sigma = torch.full((batch,), SIGMAS[index])
            call = ToyCall(self.network, self.prompts, x, sigma, obstacle)
            out = self.driver.evaluate(call)
            calls.append(call.asked)
            x = stepped(x, [out[place] for place in call.branches], index)
        self.driver.finish("done")
        self.calls = calls
        return x
