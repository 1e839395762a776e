"""ComfyUI's samplers, and other packs', as matrices."""

from __future__ import annotations

import inspect
import weakref
from collections import OrderedDict
from typing import Any

from hybrid_core.comfy_bridge.sampling_objects import digest
from hybrid_core.course.discrepancy import Tensor
from hybrid_core.course.matrix import Matrix, Noise, Predict, trace
from hybrid_core.errors import NotLinear
from hybrid_core.stages.described import SCALARS

CALLS_A_STEP = 4  # at most
KEPT = 16  # of one sampler function
Found = OrderedDict[Any, Matrix | str]
_known: weakref.WeakKeyDictionary[Any, Found] = weakref.WeakKeyDictionary()


class _Network:
    """Stands in for the BaseModel, with the noise levels that the run will have."""

    def __init__(self, patcher: Any):
        self._model = patcher.model
        self.model_sampling = patcher.get_model_object("model_sampling")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Guider:
    """Stands in for the guider that a sampler sees as `model.inner_model`: never evaluates."""

    def __init__(self, guider: Any, model: _Model):
        self._guider, self._model = guider, model
        self.inner_model = _Network(guider.model_patcher)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Tensor:
        return self._model(*arguments, **keywords)


class _Model:
    """Stands in for the model that ComfyUI hands to a sampler (KSamplerX0Inpaint)."""

    def __init__(self, guider: Any, sigmas: Tensor, predict: Predict):
        self.inner_model, self.sigmas, self._predict = _Guider(guider, self), sigmas, predict

    def __call__(
        self, x: Tensor, sigma: Tensor, *_: Any, model_options: Any = None, **__: Any
    ) -> Tensor:
        denoised, uncond = self._predict(x, sigma)
        for function in (model_options or {}).get("sampler_post_cfg_function", []):
            denoised = function(
                {
                    "denoised": denoised, "cond_denoised": denoised, "uncond_denoised": uncond,
                    "cond": None, "uncond": None, "cond_scale": 1.0, "sigma": sigma, "input": x,
                    "model": self.inner_model.inner_model, "model_options": model_options,
                }
            )  # fmt: skip
        return denoised


def matrix(sampler: Any, guider: Any, sigmas: Tensor) -> Matrix:
    """Of a KSAMPLER object on a schedule. Raises NotLinear.

    guider: samplers read the model's noise levels from it. What was found is kept.
    """
    function = getattr(sampler, "sampler_function", None)
    if function is None:
        raise NotLinear(f"{type(sampler).__name__} is not one of ComfyUI's KSAMPLER objects")
    options = sampler.extra_options
    sampling = guider.model_patcher.get_model_object("model_sampling")
    key = repr(sorted(options.items())), tuple(sigmas.tolist()), digest(sampling)
    known = _kept(function, options)
    if key not in known:
        try:
            known[key] = _traced(function, options, guider, sigmas.detach().cpu().float())
        except NotLinear as error:
            known[key] = str(error)
        while len(known) > KEPT:
            known.popitem(last=False)
    known.move_to_end(key)
    found = known[key]
    if isinstance(found, str):
        raise NotLinear(found)
    return found


def _kept(function: Any, options: dict[str, Any]) -> Found:
    """What is known of a sampler function, as long as it lives; nothing where that is not told."""
    if not all(isinstance(value, SCALARS) for value in options.values()):
        return OrderedDict()
    try:
        return _known.setdefault(function, OrderedDict())
    except TypeError:  # no weak reference, or no hash
        return OrderedDict()


def _traced(function: Any, options: dict[str, Any], guider: Any, sigmas: Tensor) -> Matrix:
    drawn = takes_noise(function)

    def run(predict: Predict, x: Tensor, noise: Noise) -> Tensor:
        given = {**options, "noise_sampler": noise} if drawn else options
        arguments = {"model_options": {}, "seed": 0}
        return function(
            _Model(guider, sigmas, predict), x, sigmas,
            extra_args=arguments, callback=lambda _: None, disable=True, **given,
        )  # fmt: skip

    try:
        return trace(run, float(sigmas[0]), CALLS_A_STEP * len(sigmas))
    except NotLinear:
        raise
    except Exception as error:  # noqa: BLE001  another pack's code on latents it does not expect
        raise NotLinear(f"it cannot be run on other numbers: {error}") from error


def takes_noise(function: Any) -> bool:
    try:
        return "noise_sampler" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
