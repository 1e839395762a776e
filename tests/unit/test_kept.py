"""A benchmark's measures are there again when it goes on (benchmarks/kept.py)."""

from benchmarks.kept import Kept

EXACT = {"model": "demo unet", "steps": 20, "arm": "ksampler"}
TUNED = {"model": "demo mmdit", "steps": 20, "arm": "adaptive", "tolerance": 0.01}


def test_a_second_run_goes_on_where_the_first_one_ended(tmp_path):
    kept = Kept(tmp_path / "new")
    for picture in (17, 16):
        kept.add(EXACT, picture, {"ideal": 1.0, "accuracy": picture})
    kept.add(TUNED, 16, {"ideal": 2.5})

    again = Kept(tmp_path / "new")

    assert again.has(EXACT, [16, 17]) and not again.has(EXACT, [16, 18])
    assert again.has(TUNED, [16]) and not again.has(TUNED | {"tolerance": 0.02}, [16])
    found = {settings["arm"]: pictures for settings, pictures in again.everything()}
    assert found == {
        "ksampler": [{"ideal": 1.0, "accuracy": 16}, {"ideal": 1.0, "accuracy": 17}],
        "adaptive": [{"ideal": 2.5}],
    }


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Kept(None)
    kept.add(EXACT, 16, {"ideal": 1.0})
    assert kept.has(EXACT, [16]) and not list(tmp_path.iterdir())
