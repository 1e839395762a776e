"""The pipeline that trains the emoji models, on toys: no download, seconds."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from demo import networks
from demo.networks import Conditional
from demo.training import emoji, judge, objectives, pictures, train, words
from hybrid_core.comfy_bridge import demo_latents
from hybrid_core.comfy_bridge.demo_latents import Latents
from hybrid_core.comfy_bridge.demo_words import ATTRIBUTES, VOCABULARY_SIZE


@pytest.fixture(scope="module")
def album():
    """Every subject a flat square of its own colour, with a clear border."""
    generator = torch.Generator().manual_seed(0)
    drawings = torch.zeros(2, words.COUNTS[0], 4, 8, 8)
    inner = torch.rand(2, words.COUNTS[0], 3, 1, 1, generator=generator)
    drawings[:, :, :3, 1:-1, 1:-1] = inner
    drawings[:, :, 3, 1:-1, 1:-1] = 1
    return pictures.Album(drawings)


class Small(nn.Module):
    """Stands for a network: as `Conditional`, of one convolution."""

    kind = "mmdit"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vocabulary = nn.Embedding(VOCABULARY_SIZE, 48)
        self.model = nn.Conv2d(48, 48, 1)

    def forward(self, x, t, tokens):
        context = self.vocabulary(tokens).mean(1)[:, :, None, None]
        return self.model(x + context) * (t / 1000)[:, None, None, None]


def test_latents_give_back_the_pixels(album):
    generator = torch.Generator().manual_seed(1)
    drawn = album.draw(words.random_labels(16, generator), generator)
    fitted = Latents.fitted(drawn)
    made = fitted.encode(drawn)
    assert made.shape == (16, 48, 16, 16)
    torch.testing.assert_close(fitted.decode(made), drawn, atol=5e-6, rtol=0)
    wide = fitted.scales > demo_latents.LEAST
    torch.testing.assert_close(made.pow(2).mean((0, 2, 3))[wide], torch.ones(int(wide.sum())))


def test_basis_is_orthonormal():
    rows = demo_latents.basis()
    torch.testing.assert_close(rows @ rows.T, torch.eye(48))


def test_subjects_are_known_once_each():
    assert len(words.EMOJI) == len(set(words.EMOJI.values())) == words.COUNTS[0]
    listed = [word for attribute in ATTRIBUTES.values() for word in attribute]
    assert len(listed) == len(set(listed))  # a word of a prompt says which attribute it is


def test_tokens_of_two_prompts_share_only_their_common_words():
    cat, tinted, nothing = words.tokens(
        torch.tensor([[0, 1, 0, 4], [0, 1, 3, 5], [-1, -1, -1, -1]])
    )
    assert (cat == tinted).tolist() == [True] * 9 + [False] * 2
    assert not set(nothing.tolist()) & {*cat.tolist(), *tinted.tolist()}
    last = torch.tensor([[count - 1 for count in words.COUNTS]])
    assert int(words.tokens(last).max()) == VOCABULARY_SIZE - 1


def test_training_never_draws_what_is_held_out():
    generator = torch.Generator().manual_seed(2)
    assert not words.held_out(words.random_labels(2000, generator)).any()
    assert words.held_out(words.random_labels(50, generator, tinted=1.0, unseen=True)).all()


def test_tint_keeps_the_ground_and_recolours_the_emoji(album):
    rows = torch.tensor([[5, 0, 0, 4], [5, 0, 1, 4]])  # natural, red
    drawn = [album.draw(row[None], torch.Generator().manual_seed(3))[0] for row in rows]
    torch.testing.assert_close(drawn[0][:, 0, 0], drawn[1][:, 0, 0])
    middle = drawn[1][:, 32, 32]
    assert middle[0] > middle[1] and middle[0] > middle[2]


@pytest.mark.parametrize("kind", ["mmdit", "unet"])
def test_euler_with_the_true_slope_ends_at_the_picture(kind):
    generator = torch.Generator().manual_seed(4)
    picture, noise = torch.randn(2, 2, 48, 4, 4, generator=generator)
    ladder = iter(objectives.sigmas(kind, 7))

    def slope(x, t):
        sigma = next(ladder)
        if kind == "mmdit":
            return (x - picture) / sigma
        return (x * (1 + sigma**2).sqrt() - picture) / sigma

    made = objectives.euler(kind, slope, noise, 7)
    torch.testing.assert_close(made, picture, atol=1e-4, rtol=1e-4)


def test_resumed_training_equals_an_uninterrupted_one(album, tmp_path, monkeypatch):
    monkeypatch.setitem(train.SETTINGS, "mmdit", (4, 1e-2, 100))
    scales = Latents(torch.ones(48))
    whole = train.Training("mmdit", album, scales, Small())
    for _ in range(6):
        whole.advance()
    cut = train.Training("mmdit", album, scales, Small())
    for _ in range(3):
        cut.advance()
    train.keep(cut, tmp_path)
    resumed = train.Training("mmdit", album, Latents(torch.zeros(48)), Small())
    resumed.restore(torch.load(tmp_path / "mmdit.pt", weights_only=True))
    for _ in range(3):
        resumed.advance()
    assert resumed.step == whole.step and resumed.loss == whole.loss
    for ours, theirs in (
        (resumed.network, whole.network),
        (resumed.average, whole.average),
    ):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name


def test_training_that_is_asked_to_stop_keeps_the_step_it_reached(album, tmp_path, monkeypatch):
    monkeypatch.setitem(train.SETTINGS, "mmdit", (4, 1e-2, 100))
    started = train.Training("mmdit", album, Latents(torch.ones(48)), Small())
    monkeypatch.setattr(train, "begin", lambda *_: started)
    answers = iter([False, False, True])
    train.train("mmdit", tmp_path, 60, lambda: next(answers))
    assert torch.load(tmp_path / "mmdit.pt", weights_only=True)["step"] == 2
    about = networks.described(tmp_path / "mmdit.safetensors")
    assert about["step"] == "2" and json.loads(about["words"])["style"] == list(words.STYLES)


@pytest.mark.parametrize("kind", ["mmdit", "unet"])
def test_fresh_network_predicts_nothing_and_learns_everywhere(kind, album):
    torch.manual_seed(0)
    network = train.quietened(Conditional(kind))
    training = train.Training(kind, album, Latents(torch.ones(48)), network)
    training.batch = 2
    x, t = torch.randn(2, 48, 16, 16), torch.tensor([20, 980])
    tokens = words.tokens(torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]]))
    assert not network(x, t, tokens).any()
    for _ in range(4):  # what follows a zero learns a step later than it
        training.advance()
    idle = [name for name, value in network.named_parameters() if not value.grad.any()]
    # SD3's last block has no further use for what the words ask
    unused = {"mmdit": ["weight", "bias"], "unet": []}[kind]
    assert idle == [f"model.transformer_blocks.3.attn.add_q_proj.{name}" for name in unused]


@pytest.fixture(scope="module")
def trained(album):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(judge, "BATCH", 16)
        return judge.train(album, 40)


def test_judge_tells_drawn_pictures_from_wrong_labels(album, trained):
    generator = torch.Generator().manual_seed(5)
    labels = words.random_labels(48, generator)
    drawn = album.draw(labels, generator)
    right = trained.shares(drawn, labels)
    wrong = labels.clone()
    wrong[:, 3] = (wrong[:, 3] + 1) % words.COUNTS[3]
    assert right["background"] > 0.8 and trained.shares(drawn, wrong)["background"] < 0.2
    assert right["group"] >= right["subject"]


def test_evaluation_of_a_model_that_draws_the_backgrounds_of_other_prompts(
    album, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(judge, "ready", lambda _: trained)
    monkeypatch.setattr(judge.emoji, "fetch", lambda _: None)
    monkeypatch.setattr(judge.emoji, "load", lambda _: album.emoji)
    monkeypatch.setattr(judge.networks, "load", lambda _: Small())
    train.keep(train.Training("mmdit", album, Latents(torch.ones(48)), Small()), tmp_path)

    def wrong_backgrounds(network, latents, labels):
        others = labels.clone()
        others[:, 3] = (others[:, 3] + 1) % words.COUNTS[3]
        return album.draw(others, torch.Generator().manual_seed(6))

    monkeypatch.setattr(judge, "pictures", wrong_backgrounds)
    judge.evaluate("mmdit", tmp_path, 48)
    kept = json.loads((tmp_path / "evaluation.json").read_text())["mmdit"]
    assert kept["drawn"]["background"] > 0.8
    assert kept["model"]["background"] < 0.2 and kept["unseen"]["background"] < 0.2
    assert (tmp_path / "mmdit-8x8.png").is_file()


def test_emoji_of_other_subjects_are_refused(tmp_path):
    path = tmp_path / "emoji.safetensors"
    pixels = torch.zeros(2, 1, 72, 72, 4, dtype=torch.uint8)
    save_file({"emoji": pixels}, path, metadata={"subjects": json.dumps(["cat"])})
    with pytest.raises(ValueError, match="other subjects than demo_words.py"):
        emoji.load(path)


def test_drawings_are_found_by_the_sign_without_its_variant():
    sheet = b"""<svg xmlns="http://www.w3.org/2000/svg"><svg id="2764-FE0F"><path d="M0 0"/></svg>
    <svg id="1F431"><svg id="inner"/></svg></svg>"""
    found = emoji.sprites(sheet)
    assert set(found) == {emoji.code_points("❤️"), emoji.code_points("🐱")}  # noqa: RUF001
    assert "path" in found["2764"]
