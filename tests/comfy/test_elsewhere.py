"""What another computer is told of a model: names for paths, weights only where that is asked."""

from __future__ import annotations

import dataclasses

import comfy.sd
import folder_paths
import pytest
import torch
from random_weights import sd3_weights

from hybrid_core.comfy_bridge import elsewhere, model_files, parent_process, rebuild
from hybrid_core.comfy_bridge.replica import RemoteSource, ReplicaSource
from hybrid_core.config import RAY_VARIABLE, RAY_WEIGHTS_VARIABLE
from hybrid_core.errors import ConfigError, NotPartitionable, ProtocolError, WorkerFailed


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """Two folders of checkpoints with a file in the second one; its path."""
    first, second = tmp_path / "a", tmp_path / "b"
    (second / "sub").mkdir(parents=True)
    first.mkdir()
    file = second / "sub" / "model.safetensors"
    file.write_bytes(b"weights" * 100)
    places = {"checkpoints": ([str(first), str(second)], {".safetensors"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", places)
    return first, file


def test_paths_are_told_by_name_and_found_by_it(folders):
    first, file = folders
    here = (str(file), False, [str(first), str(file.parents[1])], {"dtype": torch.float16})
    told = model_files.named(here)
    assert str(file.parents[1]) not in str(told)
    assert told[0][model_files.FILE][:2] == ("checkpoints", "sub/model.safetensors")
    moved = first / "sub" / file.name  # where the other computer has it
    moved.parent.mkdir()
    file.rename(moved)
    assert model_files.found(told) == (str(moved), *here[1:])


def test_a_missing_or_another_file_is_said_and_a_path_from_there_is_refused(folders):
    _, file = folders
    told = model_files.named([str(file)])
    file.write_bytes(b"another" * 100)
    with pytest.raises(NotPartitionable, match="is another one"):
        model_files.found(told)
    file.unlink()
    with pytest.raises(NotPartitionable, match="has no file sub/model.safetensors"):
        model_files.found(told)
    with pytest.raises(ProtocolError):
        model_files.found([str(file)])
    with pytest.raises(NotPartitionable, match="in no model folder"):
        model_files.named([str(file.parents[2] / "elsewhere.safetensors")])


def test_a_change_in_a_large_file_changes_its_hash(folders, monkeypatch):
    _, file = folders
    monkeypatch.setattr(model_files, "WHOLE_BYTES", 100)
    monkeypatch.setattr(model_files, "PIECE_BYTES", 4)
    seen = model_files.digest(str(file))
    for at in (0, 698):
        data = bytearray(b"weights" * 100)
        data[at] ^= 1
        file.write_bytes(data)
        model_files._digests.clear()
        assert model_files.digest(str(file)) != seen


def test_weights_are_sent_only_where_that_is_asked(session):
    model = comfy.sd.load_diffusion_model_state_dict(sd3_weights())
    source = ReplicaSource(model, session.model_gone)
    with pytest.raises(NotPartitionable, match=RAY_WEIGHTS_VARIABLE):
        RemoteSource(source, send_weights=False).payload(True)
    assert RemoteSource(source, send_weights=True).payload(False)["base"] is None
    sent = RemoteSource(source, send_weights=True).payload(True)["base"]
    made = rebuild.base(sent).model.diffusion_model.state_dict()
    ours = model.model.diffusion_model.state_dict()
    assert ours and all(torch.equal(made[name], weight) for name, weight in ours.items())


def test_a_model_of_a_loader_is_told_by_its_call(demo, session):
    source = RemoteSource(ReplicaSource(demo["mmdit"], session.model_gone), send_weights=False)
    assert source.payload(True)["base"] == {
        "factory": "load_demo_model", "args": ("mmdit",), "index": None
    }  # fmt: skip


@pytest.mark.parametrize("wish", ["10.0.0.5", "http://a:1", "a:1*0", "a b:1", "a:1;b:2", "x" * 400])
def test_an_address_of_another_form_is_refused(wish):
    with pytest.raises(ConfigError, match="192.168.1.5:6379"):
        elsewhere.chosen(wish)


def test_the_settings_come_before_the_environment(monkeypatch):
    monkeypatch.setenv(RAY_VARIABLE, "first:6379*2")
    seen = elsewhere.by_environment()
    assert (seen.address, seen.places, seen.send_weights) == ("first:6379", 2, False)
    assert [device.remote for device in seen.devices()] == [True, True]
    assert elsewhere.by_settings({"address": " ", "weights": True}) == seen
    assert elsewhere.by_settings({"address": "b:1", "weights": True}) == elsewhere.Elsewhere(
        "b:1", send_weights=True
    )
    for told in (None, {"address": 5, "weights": True}, {"address": "b:1", "weights": 1}):
        with pytest.raises(ConfigError):
            elsewhere.by_settings(told)


@pytest.mark.parametrize("part", ["ComfyUI", "torch", "Hybrid KSampler"])
def test_different_versions_are_refused_in_words(part):
    told = elsewhere.boot(elsewhere.chosen("a:1"), 0, parent_process.describe())
    told["versions"][part] = "0.0"
    with pytest.raises(WorkerFailed, match=f"{part} .* there, 0.0 here.*install the same"):
        elsewhere.models_there(told)
    assert not [value for value in told["args"].values() if isinstance(value, str | list)]


def test_workers_are_made_anew_where_other_computers_change(own_session):
    one = own_session()
    one.look_elsewhere(elsewhere.chosen("192.0.2.1:6379"))
    every = [holdings.worker.device for holdings in one.every()]
    assert [device.remote for device in every] == [False, True], "local ones come first"
    one.look_elsewhere(dataclasses.replace(one.elsewhere))
    assert [holdings.worker.device for holdings in one.every()] == every
    one.look_elsewhere(elsewhere.NOWHERE)
    assert [holdings.worker.device.remote for holdings in one.every()] == [False]
