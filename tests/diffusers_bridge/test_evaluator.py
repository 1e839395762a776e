"""The worker's side in the test's own process, and the stepper's space."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from pipelines import NOISES, ddim, sd3

from hybrid_core.diffusers_bridge.evaluator import Evaluator, Stopped
from hybrid_core.diffusers_bridge.replica import ReplicaSource
from hybrid_core.diffusers_bridge.space import Schedule
from hybrid_core.errors import NotPartitionable, NotSplittable, ProtocolError, ReplicaMismatch
from hybrid_core.transport.carry import flatten, unflatten
from hybrid_core.workers.process.entry import evaluator as evaluator_for

CPU = torch.device("cpu")


def message(value, **fields):
    tensors = []
    return {"data": flatten(value, tensors), **fields}, tensors


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
    made = Evaluator()
    with torch.inference_mode():
        reply = made.load(*message(ReplicaSource(network).payload(True)))
        ReplicaSource(network).verify(reply["portrait"])
        made.conds(*message(given[1], context=7))
        yield made


def test_step_and_stage_are_the_network(network, given, loaded):
    inputs, conditioning = given
    expected = network(inputs[0], timestep=inputs[1], **conditioning, return_dict=False)[0]
    (seen,), nothing = loaded.step({"context": 7}, inputs)
    assert nothing is None and torch.equal(seen, expected)
    results, tree = loaded.step({"context": 7, "last": 1}, inputs)
    assert torch.equal(results[0], expected)
    found, stage_tree = loaded.stage({"context": 7, "last": 1}, inputs)
    captured, ahead = unflatten(tree, results), unflatten(stage_tree, found)
    assert len(captured) == 2 and all(map(torch.equal, captured, ahead))


def test_what_the_worker_holds_and_forgets(network, given, loaded):
    assert loaded.status()["models"] == 1
    loaded.forget({"base_key": "another"})
    assert loaded.status()["models"] == 1
    loaded.forget({"base_key": ReplicaSource(network).base_key})
    assert loaded.status()["models"] == 0
    with pytest.raises(ProtocolError, match="which is not held"):
        loaded.step({"context": 7}, given[0])


def test_an_evaluation_is_stopped(given, loaded):
    loaded.interrupt(True)
    with pytest.raises(Stopped):
        loaded.step({"context": 7}, given[0])
    loaded.interrupt(False)
    loaded.step({"context": 7}, given[0])


def test_malformed_steps_are_refused(given, loaded):
    inputs, _ = given
    with pytest.raises(ProtocolError, match="conditioning 8, which is not held"):
        loaded.step({"context": 8}, inputs)
    with pytest.raises(ProtocolError, match="field 'context'"):
        loaded.step({}, inputs)
    with pytest.raises(ProtocolError, match="1 tensors, expected latents, a timestep"):
        loaded.step({"context": 7}, inputs[:1])
    with pytest.raises(NotSplittable, match="there is no block 4, the network has 4"):
        loaded.stage({"context": 7, "last": 4}, inputs)
    with pytest.raises(ProtocolError, match="field 'last'"):
        loaded.step({"context": 7, "last": -1}, inputs)
    with pytest.raises(ProtocolError, match="conditioning is .*path.*, expected"):
        loaded.conds(*message({"path": "/etc"}, context=1))


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
    made = Evaluator()
    with pytest.raises(ProtocolError, match=said):
        made.load(*message(payload))
    assert made.status()["models"] == 0


def test_a_replica_that_differs_is_named(network):
    source, made = ReplicaSource(network), Evaluator()
    payload = source.payload(True)
    state = payload["network"]["state"]
    payload["network"]["state"] = {**state, "proj_out.bias": state["proj_out.bias"] + 1}
    portrait = made.load(*message(payload))["portrait"]
    with pytest.raises(ReplicaMismatch, match="weight proj_out.bias differs"):
        source.verify(portrait)
    with pytest.raises(ReplicaMismatch, match="did not describe"):
        source.verify({})


def test_an_unknown_bridge_is_refused():
    with pytest.raises(ProtocolError, match="started for 'other', expected comfy or diffusers"):
        evaluator_for({"bridge": "other"})


# the stepper's space


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
