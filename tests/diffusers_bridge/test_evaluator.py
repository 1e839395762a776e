"""The worker's side in the test's own process, and the course's space."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from pipelines import NOISES, ddim, sd3

from hybrid_core.diffusers_bridge.models import DiffusersModels, Stopped
from hybrid_core.diffusers_bridge.replica import ReplicaSource
from hybrid_core.diffusers_bridge.space import Schedule
from hybrid_core.errors import NotPartitionable, NotSplittable, ProtocolError, ReplicaMismatch
from hybrid_core.workers.contract import Part
from hybrid_core.workers.evaluator import Evaluator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    return sd3()[0].transformer


@pytest.fixture(scope="module")
def given():
    """Latents, a timestep, conditioning."""
    conditioning = {
        "encoder_hidden_states": torch.randn(2, 6, 32),
        "pooled_projections": torch.randn(2, 16),
    }
    return [torch.randn(2, 4, 16, 16), torch.tensor([500.0, 500.0])], conditioning


@pytest.fixture
def loaded(network, given):
    made = Evaluator(DiffusersModels())
    with torch.inference_mode():
        ReplicaSource(network).verify(made.load(ReplicaSource(network).payload(True)))
        made.hold(7, given[1])
        yield made


def test_step_and_stage_are_the_network(network, given, loaded):
    inputs, conditioning = given
    expected = network(inputs[0], timestep=inputs[1], **conditioning, return_dict=False)[0]
    (seen,), nothing = loaded.evaluate(7, inputs, Part((1,)))
    assert nothing is None and torch.equal(seen, expected)
    (again,), kept = loaded.evaluate(7, inputs, Part((1,), keep=1))
    assert torch.equal(again, expected)
    outputs, ahead = loaded.evaluate(7, inputs, Part((1,), upto=1))
    assert outputs == [] and kept.keys() == ahead.keys()
    (captured,), (made,) = kept.values(), ahead.values()
    assert len(captured) == 2 and all(map(torch.equal, captured, made))


def test_what_the_worker_holds_and_forgets(network, given, loaded):
    assert loaded.models.status()["models"] == 1
    loaded.models.forget("another")
    assert loaded.models.status()["models"] == 1
    loaded.models.forget(ReplicaSource(network).base_key)
    assert loaded.models.status()["models"] == 0
    with pytest.raises(ProtocolError, match="no network is held"):
        loaded.evaluate(7, given[0], Part((1,)))
    loaded.forget("another")
    with pytest.raises(ProtocolError, match="context 7, which is not held"):
        loaded.evaluate(7, given[0], Part((1,)))


def test_an_evaluation_is_stopped(given, loaded):
    loaded.models.interrupt(True)
    with pytest.raises(Stopped):
        loaded.evaluate(7, given[0], Part((1,)))
    loaded.models.interrupt(False)
    loaded.evaluate(7, given[0], Part((1,)))


def test_malformed_steps_are_refused(given, loaded):
    inputs, _ = given
    with pytest.raises(ProtocolError, match="context 8, which is not held"):
        loaded.evaluate(8, inputs, Part((1,)))
    with pytest.raises(ProtocolError, match="1 tensors came, expected latents and a noise level"):
        loaded.evaluate(7, inputs[:1], Part((1,)))
    with pytest.raises(NotSplittable, match="there is no block 4, the network has 4"):
        loaded.evaluate(7, inputs, Part((1,), upto=4))
    with pytest.raises(ProtocolError, match="conditioning is .*path.*, expected"):
        loaded.hold(1, {"path": "/etc"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class": "AutoencoderKL"}, "'AutoencoderKL' is not one of UNet2DConditionModel"),
        ({"class": 3}, "is not one of"),
        ({"config": {"num_layers": 5}}, "no SD3Transformer2DModel could be made"),
        ({"config": {"no_such": 1}}, "no SD3Transformer2DModel could be made"),
        ({"config": "x"}, "config or state"),
        ({"state": {"a": 1}}, "config or state"),
        ({"state": {}}, "Missing key"),
        ({"more": 1}, "expected class, config and state"),
    ],
)
def test_malformed_networks_are_refused(network, change, said):
    payload = ReplicaSource(network).payload(True)
    if "num_layers" in change.get("config", ()):
        change = {"config": {**payload["network"]["config"], **change["config"]}}
    payload["network"].update(change)
    made = DiffusersModels()
    with pytest.raises(ProtocolError, match=said):
        made.load(payload)
    assert made.status()["models"] == 0


def test_a_replica_that_differs_is_named(network):
    source, made = ReplicaSource(network), DiffusersModels()
    payload = source.payload(True)
    state = payload["network"]["state"]
    payload["network"]["state"] = {**state, "proj_out.bias": state["proj_out.bias"] + 1}
    portrait = made.load(payload)
    with pytest.raises(ReplicaMismatch, match="weight proj_out.bias differs"):
        source.verify(portrait)
    with pytest.raises(ReplicaMismatch, match="did not describe"):
        source.verify({})


# the course's space


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_denoised_latents_are_the_schedulers_own(kind):
    scheduler = ddim(prediction_type=kind)
    scheduler.set_timesteps(50)
    schedule = Schedule(scheduler, CPU)
    x, out = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for step in (0, 20, 49):
        t = scheduler.timesteps[step]
        sigma = schedule.sigma(t, 2)
        assert sigma.tolist() == pytest.approx([schedule.sigmas[step]] * 2)
        assert schedule.timestep(sigma, t) == t
        latents = schedule.latents(x, sigma)
        seen = schedule.denoised(latents, sigma, out)
        expected = scheduler.step(out, t, x).pred_original_sample
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            schedule.network_input(latents, sigma, x.dtype), x, atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(
            schedule.prediction(latents, sigma, seen, x.dtype), out, atol=1e-2, rtol=1e-3
        )


def test_a_flow_models_latents_are_as_they_are():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(50)
    schedule = Schedule(scheduler, CPU)
    assert schedule.flow and schedule.sigmas == scheduler.sigmas.tolist()
    x, out, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), scheduler.timesteps[30]
    sigma = schedule.sigma(t.expand(2), 2)
    assert torch.equal(schedule.latents(x, sigma), x)
    assert torch.equal(schedule.timestep(sigma, t.expand(2)), t.expand(2))
    torch.testing.assert_close(schedule.denoised(x, sigma, out), x - scheduler.sigmas[30] * out)


def test_a_timestep_off_the_schedule_has_no_noise_level():
    scheduler = ddim()
    scheduler.set_timesteps(10)
    assert Schedule(scheduler, CPU).sigma(torch.tensor(3), 2).tolist() == [0.0, 0.0]


def test_schedules_that_are_not_known_are_refused():
    from diffusers import EDMEulerScheduler, HeunDiscreteScheduler

    heun = HeunDiscreteScheduler(**NOISES)
    for scheduler in (ddim(prediction_type="sample"), EDMEulerScheduler()):
        scheduler.set_timesteps(10)
        with pytest.raises(NotPartitionable, match="of prediction type .* is not known"):
            Schedule(scheduler, CPU)
    heun.set_timesteps(10)
    heun.sigmas = heun.sigmas[:-1]
    with pytest.raises(NotPartitionable, match="19 noise levels for 19 evaluations"):
        Schedule(heun, CPU)


def test_networks_that_cannot_be_described_are_refused():
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )
    with pytest.raises(NotPartitionable, match="is offloaded or quantised .*on meta"):
        ReplicaSource(unet)
    with pytest.raises(NotPartitionable, match="network is a Linear, expected one of"):
        ReplicaSource(torch.nn.Linear(1, 1))
