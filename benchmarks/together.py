"""Many pictures' runs in one process: each is decided alone, their forward passes are batched.

ComfyUI's samplers and this pack's Course, with the network's stages cut where a first run cuts
them. What two devices would evaluate side by side is evaluated one after the other: images and
kinds of steps are those of two devices, times are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from greenlet import getcurrent, greenlet

from hybrid_core.comfy_bridge import demo_models, sampler_trace
from hybrid_core.config import Tuning
from hybrid_core.course.course import Course
from hybrid_core.course.matrix import Matrix
from hybrid_core.course.steps import ForecastStep, PipelinedStep
from hybrid_core.stages.plan import Cut
from hybrid_core.stages.swap import Splitter, mapped
from hybrid_core.telling.report import Report

SCHEDULER = "normal"
MOST_ROWS = 8  # of a batch
LATENT = (1, 48, 16, 16)
Tensor = torch.Tensor


class Request(NamedTuple):
    """A forward pass of one branch of one picture."""

    part: str  # full: with the boundary; ahead: stage A; rest: stage B
    x: Tensor  # (1, C, H, W)
    sigma: Tensor  # (1,)
    words: str
    boundary: Any = None


class Network:
    """A demo model whose forward passes are asked for by greenlets."""

    def __init__(self, kind: str):
        self.kind, self.flow = kind, kind == "mmdit"
        self.patcher = demo_models.load_model(kind)
        comfy.model_management.load_models_gpu([self.patcher])
        self._contexts: dict[str, dict[str, Tensor]] = {}
        self._splitters: dict[int, Splitter] = {}  # by rows of the batch
        self._cut: Cut | None = None
        self._known: dict[Any, list[Any]] = {}  # exact evaluations, of all arms of a setting

    def forget(self) -> None:
        """The setting is another from here on."""
        self._known.clear()

    def exact(self, x: Tensor, sigma: Tensor, words: tuple[str, ...]) -> list[Any]:
        """Denoised latent and boundary of each branch."""
        key = x.numpy().tobytes(), float(sigma), words
        if key not in self._known:
            self._known[key] = ask([Request("full", x, sigma, one) for one in words])
        return self._known[key]

    def answers(self, requests: list[Request]) -> list[Any]:
        """All of one part and at most MOST_ROWS."""
        rows, part = len(requests), requests[0].part
        x, sigma = (torch.cat([one[i] for one in requests]) for i in (1, 2))
        contexts = [self._context(one.words) for one in requests]
        keywords = {name: torch.cat([c[name] for c in contexts]) for name in contexts[0]}

        def forward() -> Tensor:
            return self.patcher.model.apply_model(x, sigma, **keywords)

        splitter = self._splitter(rows, forward)
        cut = self._cut
        if part == "rest":
            boundary = joined([one.boundary for one in requests])
            return list(splitter.stage_b(forward, cut, boundary).split(1))
        if part == "ahead":
            boundary = splitter.stage_a(forward, cut.last)
            return [taken(boundary, row) for row in range(rows)]
        out, boundary = splitter.capture(forward, cut.last)
        return [(out[row : row + 1], taken(boundary, row)) for row in range(rows)]

    def _splitter(self, rows: int, forward: Callable[[], Tensor]) -> Splitter:
        if rows not in self._splitters:
            splitter = Splitter(self.patcher.model.diffusion_model)
            _, recording = splitter.record(forward)
            if self._cut is None:
                self._cut = splitter.planned(recording)
            self._splitters[rows] = splitter
        return self._splitters[rows]

    def _context(self, words: str) -> dict[str, Tensor]:
        if words not in self._contexts:
            ((vectors, extra),) = demo_models.conditioning(self.kind, words)
            context = {"c_crossattn": vectors}
            if self.kind == "mmdit":
                context["y"] = extra["pooled_output"]
            self._contexts[words] = context
        return self._contexts[words]


def joined(values: list[Any]) -> Any:
    """One batch of nested tensors."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, dict):
        return {key: joined([value[key] for value in values]) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(joined(list(parts)) for parts in zip(*values, strict=True))
    return first


def taken(boundary: Any, row: int) -> Any:
    return mapped(boundary, lambda tensor: tensor[row : row + 1])


def ask(requests: list[Request]) -> list[Any]:
    """Answers, once other pictures have asked as well."""
    return getcurrent().parent.switch(requests)


def together(network: Network, runs: list[Callable[[], Any]]) -> list[Any]:
    """What each run returns; they go on side by side, one forward pass after the other."""
    results: list[Any] = [None] * len(runs)
    waiting: list[tuple[int, greenlet, list[Request]]] = []

    def advance(place: int, run: greenlet, *answer: Any) -> None:
        out = run.switch(*answer)
        if run.dead:
            results[place] = out
        else:
            waiting.append((place, run, out))

    with torch.inference_mode():
        for place, run in enumerate(runs):
            advance(place, greenlet(run))
        while waiting:
            asked, waiting[:] = list(waiting), []
            everything = [(k, j, one) for k, a in enumerate(asked) for j, one in enumerate(a[2])]
            answers: list[list[Any]] = [[None] * len(a[2]) for a in asked]
            for part in sorted({one.part for *_, one in everything}):
                alike = [entry for entry in everything if entry[2].part == part]
                for start in range(0, len(alike), MOST_ROWS):
                    batch = alike[start : start + MOST_ROWS]
                    found = network.answers([one for *_, one in batch])
                    for (k, j, _), answer in zip(batch, found, strict=True):
                        answers[k][j] = answer
            for (place, run, _), answer in zip(asked, answers, strict=True):
                advance(place, run, answer)
    return results


class Guider:
    """What a sampler sees of a CFGGuider."""

    def __init__(self, network: Network, cfg: float, branches: Callable[..., Any] | None = None):
        self.model_patcher, self.inner_model = network.patcher, network.patcher.model
        self.cfg, self.conds, self._branches = cfg, {}, branches

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Any, **_: Any) -> Tensor:
        cond, uncond = self._branches(x, sigma)
        return comfy.samplers.cfg_function(
            self.inner_model, cond, uncond, self.cfg, x, sigma, model_options=model_options
        )


class Setting(NamedTuple):
    """What a row of the table is measured with."""

    network: Network
    steps: int
    cfg: float
    sampler: str
    denoise: float = 1.0
    picture: Tensor | None = None  # the latent that is denoised anew, as it comes out of a sampler

    @property
    def sigmas(self) -> Tensor:
        patcher, cpu = self.network.patcher, torch.device("cpu")
        made = comfy.samplers.KSampler(
            patcher, self.steps, cpu, self.sampler, SCHEDULER, self.denoise
        )
        return made.sigmas

    def sample(self, seed: int, branches: Callable[..., Any]) -> Tensor:
        """Final latent, (1, C, H, W). branches: the two denoised latents at x and sigma."""
        sampler, model = comfy.samplers.sampler_object(self.sampler), self.network.patcher.model
        latent = torch.zeros(LATENT)
        if self.picture is not None:
            latent = model.process_latent_in(self.picture)
        out = sampler.sample(
            Guider(self.network, self.cfg, branches), self.sigmas,
            {"model_options": {}, "seed": seed}, None,
            comfy.sample.prepare_noise(latent, seed), latent, None, True,
        )  # fmt: skip
        return model.process_latent_out(out)

    def plain(self, seed: int, words: tuple[str, str]) -> Tensor:
        """KSampler's latent."""

        def branches(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
            found = self.network.exact(x, sigma, self.evaluated(words))
            return found[0][0], found[-1][0]

        return self.sample(seed, branches)

    def evaluated(self, words: tuple[str, str]) -> tuple[str, ...]:
        """The prompts that a step in full evaluates: at cfg 1 the negative one is not."""
        return words[:1] if self.cfg == 1.0 else words

    def matrix(self) -> Matrix:
        sampler = comfy.samplers.sampler_object(self.sampler)
        return sampler_trace.matrix(sampler, Guider(self.network, self.cfg), self.sigmas)

    def course(self, mode: str, tuning: Tuning) -> Course:
        levels, flow = self.sigmas.tolist(), self.network.flow
        return Course.of(mode, tuning, levels, flow, self.matrix, cfg=self.cfg)

    def shortened(
        self, seed: int, words: tuple[str, str], mode: str, tuning: Tuning
    ) -> tuple[Tensor, Report]:
        """The latent of this pack's run on two devices, and its report."""
        return self.run(seed, words, self.course(mode, tuning), mode)

    def run(
        self, seed: int, words: tuple[str, str], course: Course, mode: str = "adaptive"
    ) -> tuple[Tensor, Report]:
        run = _Run(self, words, course, Report(mode, total=self.steps))
        return self.sample(seed, run), run.report


class _Run:
    """One picture's: what the driver does, without devices."""

    def __init__(self, setting: Setting, words: tuple[str, str], course: Course, report: Report):
        self._network, self._words = setting.network, setting.evaluated(words)
        self._course, self.report = course, report
        self._features_of = 0 if course.policy.guided else 1  # mode paper mixes the branches
        self._early: tuple[int, Any] | None = None

    def __call__(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        if self._early is not None:
            self._course.keep_boundary(*self._early)
            self._early = None
        step = self._course.begin(x, sigma)
        self.report.steps.append(step.record)
        if isinstance(step, ForecastStep):
            return _pair(*step.both())
        if isinstance(step, PipelinedStep):
            return _pair(*step.both(self._pipelined(step, x, sigma)))
        found = self._network.exact(x, sigma, self._words)
        (cond, own), (uncond, other) = found[0], found[-1]  # the same where there is one prompt
        alone = len(found) == 1
        if alone:
            step.record.kind = "shared"  # both devices evaluate one prompt, half each
        late = len(self.report.steps) > 1  # the cut is not known before
        boundary = (own, other)[self._features_of] if late else None
        shift = step.finish(cond, None if alone else uncond, boundary)
        return (cond, uncond) if shift is None else (cond + shift, uncond + shift)

    def _pipelined(self, step: PipelinedStep, x: Tensor, sigma: Tensor) -> Tensor:
        requests = [Request("rest", x, sigma, self._words[0], step.boundary)]
        ahead = step.ahead
        if ahead is not None:
            words = self._words[self._features_of]
            requests.append(Request("ahead", ahead.x, ahead.sigma, words))
        found = ask(requests)
        if ahead is not None:
            self._early = ahead.call, found[1]
        return found[0]


def _pair(cond: Tensor, uncond: Tensor | None) -> tuple[Tensor, Tensor]:
    return cond, cond if uncond is None else uncond
