"""The finished curve as a picture: the report read, what is drawn, and its pixels."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from hybrid_core.telling import curve, curve_figure, kinds
from hybrid_core.telling.curve import UnreadableReport
from hybrid_core.telling.report import Report, StepRecord

KINDS = "EEEEEpEppEpppEEE"  # two refreshes, three steps of Fully-Connecting
NAMES = {kinds.KINDS[kind]["letter"]: kind for kind in kinds.TOLD}


SENTENCES = json.loads(
    (Path(__file__).parents[1] / "web" / "sentences.json").read_text(encoding="utf-8")
)


def report(letters=KINDS, **changes):
    """A report as the nodes return it."""
    made = Report("adaptive", tolerance=0.006, total=len(letters), status="done")
    for step, letter in enumerate(letters):
        made.steps.append(
            StepRecord(
                step=step,
                kind=NAMES[letter],
                discrepancy=0.5 * math.exp(-step / 5) if letter in "EL" else None,
                drift=0.02 / (step + 1) if step > 2 and letter != "s" else None,
                seconds=0.02 if letter == "p" else 0.04,
                own_seconds=0.035,
            )
        )
    return json.dumps(made.data() | changes)


def drawn(text, width=768, height=384, log=True):
    return curve_figure.pixels(curve.read(text), width, height, log)


def parts(text, log=True):
    """What the figure holds, by the names that its parts carry."""
    made = curve_figure.figure(curve.read(text), 768, 384, log)
    named = {}
    for axes in made.axes:
        for child in [*axes.get_children(), *axes.containers]:
            name = child.get_gid() if hasattr(child, "get_gid") else None
            name = name or (child[0].get_gid() if hasattr(child, "patches") else None)
            if name:
                named.setdefault(name, []).append(child)
    return made, named


def words(made):
    return " ".join(text.get_text() for text in made.findobj(lambda a: hasattr(a, "get_text")))


def has_colour(picture, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((picture == wanted).all(-1).any())


def test_report_is_read_with_its_stages():
    read = curve.read(report())
    assert "".join(step.kind[0] for step in read.steps) == "eeeeeprpprpppeee"
    assert read.parallelism == (5, 13) == (json.loads(report())["tau1"], 13)
    assert read.on_schedule and read.total == 16
    assert [step.position for step in read.steps] == list(range(1, 17))


def test_marks_stages_drift_and_times_are_drawn():
    made, named = parts(report())
    counts = {
        kind: sum(len(line.get_xdata()) for line in named.get(f"marks {kind}", []))
        for kind in curve.KINDS
    }
    assert {kind: n for kind, n in counts.items() if n} == {
        "exact": 8, "refresh": 2, "pipelined": 6,
    }  # fmt: skip
    shapes = {curve_figure.MARKS[look["mark"]] for look in kinds.KINDS.values()}
    assert len(shapes) == len(kinds.KINDS), "kinds differ in shape, not in colour alone"
    edges = [named[f"stage {name}"][0].get_extents() for name in curve_figure.STAGES]
    axes = made.axes[0].transData.inverted()
    borders = [axes.transform((box.x0, 0))[0] for box in edges]
    assert borders == pytest.approx([0.5, 5.5, 13.5])
    assert [line.get_xdata()[0] for line in named["border"]] == [5.5, 13.5]
    (drift,) = named["drift"]
    assert list(drift.get_xdata()) == list(range(4, 17))
    assert named["tolerance"][0].get_ydata()[0] == 0.006
    bars = {kind: named[f"times {kind}"][-1] for kind in ("exact", "refresh", "pipelined")}
    assert [len(bar) for bar in bars.values()] == [8, 2, 6]
    assert bars["exact"][0].get_height() == 40 and bars["pipelined"][0].get_height() == 20
    for said in ("faster than one GPU", "10 full, 6 short steps", "Shortened", "tolerance 0.006"):
        assert said in words(made)


def test_pipelined_steps_stand_hollow_on_the_curve():
    _, named = parts(report(), log=False)
    (pipelined,), (line,) = named["marks pipelined"], named["discrepancy"]
    known = np.isfinite(line.get_ydata())
    assert list(known) == [letter == "E" for letter in KINDS], "no line where nothing was measured"
    on_line = np.interp(pipelined.get_xdata(), line.get_xdata()[known], line.get_ydata()[known])
    assert list(pipelined.get_ydata()) == pytest.approx(list(on_line))
    assert pipelined.get_markerfacecolor() == curve_figure.PAPER
    assert named["marks exact"][0].get_markerfacecolor() == kinds.KINDS["exact"]["light"]


@pytest.mark.parametrize("log", [False, True])
def test_pixels_show_every_kind_and_repeat(log):
    picture = drawn(report("EEELLsdpEFpEE"), log=log)
    assert picture.shape == (384, 768, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, drawn(report("EEELLsdpEFpEE"), log=log))
    for kind, look in kinds.KINDS.items():
        assert has_colour(picture, look["light"]), kind
    short = kinds.KINDS["pipelined"]["light"]
    assert not has_colour(drawn(report("EEEE"), log=log), short)


@pytest.mark.parametrize("case", SENTENCES, ids=lambda case: case["name"].replace(" ", "_"))
def test_sentence_is_that_of_the_node(case):
    """The node's own words are tested with the same file, by tests/web/sentence.test.mjs."""
    steps = [
        {"kind": NAMES[letter], "ms": 100, "step": i} for i, letter in enumerate(case["letters"])
    ]
    said = curve.read(json.dumps({"total": 20, **case["run"], "steps": steps})).words()
    assert said == case["sentence"]


def test_pixels_follow_the_report():
    usual = drawn(report())
    other = json.loads(report())
    other["steps"][2]["discrepancy"] *= 1.5
    for changed in (drawn(json.dumps(other)), drawn(report(), log=False)):
        assert (changed != usual).any(-1).mean() > 0.001


def test_style_of_the_machine_does_not_matter():
    import matplotlib

    usual = drawn(report())
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "lines.linewidth": 9}):
        assert np.array_equal(drawn(report()), usual)
        assert matplotlib.rcParams["font.size"] == 30, "put back"


@pytest.mark.parametrize("size", [(320, 200), (767, 1001), (1333, 517), (2048, 320)])
def test_picture_has_the_size_asked_for(size):
    assert drawn(report(), *size).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("size", [(319, 384), (768, 199), (9000, 384)])
def test_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]} pixels; expected 320x200 to"):
        drawn(report(), *size)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"mode": "off"}', "Mode off: ComfyUI's KSampler, on one GPU"),
        ('{"mode": "adaptive", "steps": []}', "recorded no steps"),
    ],
)
def test_report_without_steps_says_so(text, said):
    made, named = parts(text)
    assert said in words(made) and not made.axes
    assert (drawn(text) != 255).any(), "words are drawn"


def test_one_branch_measures_no_discrepancy_and_says_so():
    made, named = parts(report("ssssss"))
    assert "was not measured" in words(made) and "discrepancy" not in named
    assert len(named["marks single"][0].get_xdata()) == 6


def test_interrupted_run_leaves_room_for_what_it_did_not_do():
    made, _ = parts(report("EEEE", total=10, status="interrupted"))
    assert made.axes[0].get_xlim() == (0.5, 10.5)
    assert "Interrupted at step 4 of 10" in words(made)


def test_reasons_are_shown_whatever_they_contain():
    text = report("LLLL", reasons=["alone: out of memory $\\frac{1}$ at 内存 " + "x " * 900])
    made, _ = parts(text)
    assert "$\\frac{1}$ at ??" in words(made)
    assert made.get_suptitle().count("\n") == 2 and made.get_suptitle().endswith("…")
    drawn(text)


def test_calls_that_are_no_steps_of_the_schedule_are_counted():
    data = json.loads(report("EEEE"))
    for row, step in zip(data["steps"], (0, None, 1, None), strict=True):
        row["step"] = step
    made, _ = parts(json.dumps(data))
    assert made.axes[1].get_xlabel() == "evaluation"
    assert parts(report())[0].axes[1].get_xlabel() == "step"


def test_infinities_are_nothing_measured():
    data = json.loads(report("EEEE"))
    data["steps"][1]["discrepancy"], data["steps"][2]["ms"] = math.nan, math.inf
    read = curve.read(json.dumps(data))
    assert read.steps[1].discrepancy is None and read.steps[2].milliseconds is None
    drawn(json.dumps(data), log=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the text ''"),
        ("a prompt, by mistake", "the text 'a prompt, by mistake'"),
        ("[1, 2]", r"'\[1, 2\]' without a mode"),
        ('{"steps": []}', "without a mode"),
        ('{"mode": "exact", "steps": {"a": 1}}', "not a list of objects"),
        ('{"mode": "exact", "steps": [3]}', "not a list of objects"),
        ('{"mode": "exact", "steps": [{"kind": "warp"}]}', "kind 'warp', not exact, shared"),
        ('{"mode": "exact", "steps": [{"kind": ["exact"]}]}', "kind .*, not exact"),
        ('{"mode": "exact", "steps": [{"ms": "long"}]}', "ms .*, not a number"),
        ('{"mode": "exact", "ratio": true}', "ratio True, not a number"),
        ('{"mode": "exact", "reasons": 5}', "reasons 5, not a list"),
    ],
)
def test_what_is_no_report_is_refused(text, said):
    with pytest.raises(UnreadableReport, match=f"seen: .*{said}.*Expected: .*Connect the report"):
        curve.read(text)
    assert issubclass(UnreadableReport, ValueError)


def test_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(curve_figure.NoMatplotlib, match=r"Expected: .*pip install matplotlib"):
        drawn(report())


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"mode": "exact", "steps": ' + "[" * 900 + "]" * 900 + "}",
        '{"mode": "exact", "reasons": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
        '{"mode": "exact", "total": ' + "[" * 900 + "]" * 900 + "}",
        '{"mode": "exact", "steps": [{"kind": ' + "[" * 900 + "]" * 900 + "}]}",
    ],
    ids=range(5),
)
def test_a_deep_report_is_refused_in_few_words(text):
    with pytest.raises(UnreadableReport) as refused:
        curve.read(text)
    assert len(str(refused.value)) < 500
