"""The curves of sharpness: what is predicted, what is found, and how it is drawn."""

import csv
import math
from functools import partial

from lab.command_line.specs import parse_optimizers
from lab.training.sharpness import Descent

import pytest
import torch
from conftest import FAILS, SMALL, assert_refused, exit_status

import compare_sharpness as script
from compare_sharpness import Curve, Place

FAST = ["--no-show", "--task", "parabola(samples=64)", "--steps", "40"]


def run_main(*words):
    return exit_status(script.main, [*FAST, *words])


def curve(sharpness, limit, losses=(1.0, 0.5), **more):
    """A curve of one seed, with a moment a step."""
    n = len(sharpness)
    limits = [limit] * n
    return Curve([Descent(0, 0.1, n, list(losses), list(range(n)), sharpness, limits, **more)])


@pytest.mark.parametrize(
    ("sharpness", "limit", "losses", "predicted", "found"),
    [
        ([1.0, 2.0, 3.0, 4.0], 10.0, [1.0], "stable", "below the limit"),
        ([1.0, 2.0, 8.0, 9.0], 10.0, [1.0], "stable", "at the limit"),
        ([1.0, 2.0, 8.0, 11.4], 10.0, [1.0], "stable", "at the limit"),
        ([1.0, 2.0, 8.0, 11.6], 10.0, [1.0], "stable", "above the limit"),
        ([11.0, 2.0, 3.0, 3.0], 10.0, [1.0], "unstable", "flattened, below the limit"),
        ([11.0, 12.0], 10.0, [1.0], "unstable", "above the limit"),
        ([11.0, 20.0], 10.0, [1.0, math.inf], "unstable", "diverged at step 2"),
        ([1.0, 2.0], None, [1.0], "", "trained"),
    ],
)
def test_what_is_predicted_and_what_is_found(sharpness, limit, losses, predicted, found):
    one = curve(sharpness, limit, losses)
    assert (one.predicted, one.found) == (predicted, found)


def test_the_end_is_the_median_of_the_last_quarter_and_infinite_where_most_diverged():
    one = curve([9.0] * 9 + [1.0, 5.0, 3.0], 10.0)
    assert one.ends.tolist() == [3.0]
    assert one.final_losses.tolist() == [0.5]
    assert curve([9.0, 3.0], 10.0, [1.0, math.nan]).ends.tolist() == [math.inf]
    both = Curve([*one.runs, *one.runs, *curve([2.0], 10.0, [1.0, math.inf]).runs])
    assert both.starts.tolist() == [9.0, 9.0, 2.0]
    assert both.found == "below the limit"  # of most seeds
    assert Curve(both.runs[1:]).found == "diverged at step 1"  # of half of them
    assert both.sharpness[1:, 2].isnan().all()


def test_each_optimizer_is_trained_at_each_rate_but_for_its_own():
    optimizers = parse_optimizers(["SGD", "SGD(lr=0.3)"])
    found = dict(script.compare(optimizers, SMALL, [0.1, 0.2], [3, 4], steps=6))
    assert list(found) == [("SGD", 0.1), ("SGD", 0.2), ("SGD(lr=0.3)", None)]
    one = found["SGD", 0.1]
    assert one.losses.shape == (6, 2)
    assert one.limits[0] == pytest.approx(20)
    assert found["SGD(lr=0.3)", None].limits[0] == pytest.approx(2 / 0.3)
    assert torch.equal(one.starts, found["SGD", 0.2].starts)  # the same nets
    table = script.rows(found)
    assert [row["lr"] for row in table] == [0.1, 0.2, 0.3]
    assert [row["limit"] for row in table] == pytest.approx([20, 10, 2 / 0.3])


def test_the_sentences_name_the_highest_stable_rate_and_what_came():
    place = partial(Place, "SGD")
    found = {
        place(0.1): curve([10.0, 11.0], 20.0),
        place(0.2): curve([10.0, 10.0], 10.0),
        place(0.4): curve([10.0, 2.0], 5.0),
        place(0.8): curve([10.0, 99.0], 2.5, [1.0, math.inf]),
        Place("Adagrad", 0.1): curve([10.0], None),
    }
    assert script.conclusions(found) == [
        "SGD: before the first step the sharpness is 10.0, so that no rate above 0.200 is stable.",
        "Predicted stable, and found: below the limit (at 0.1); at the limit (at 0.2).",
        "Predicted unstable, and found: flattened, below the limit (at 0.4); diverged (at 0.8).",
        "Adagrad: no limit is known, so nothing is predicted.",
    ]
    assert script.conclusions(found, is_full=False)[-1] == script.NO_THEORY
    assert len(script.conclusions({place(0.1): found[place(0.1)]})) == 2
    flat = script.conclusions({place(0.1): curve([-1.0, 2.0], 20.0)})
    assert flat[0] == "SGD: before the first step the sharpness is -1.00."


def test_the_table_the_figure_and_the_csv(workdir, capsys):
    words = ["--lr-range", "0.1", "0.2", "--lr-count", "2", "--seeds", "2", "--csv", "a.csv"]
    assert run_main(*words, "--optimizers", "SGD", "Adam()") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [
        [label, lr] for label in ("SGD", "Adam()") for lr in ("0.1", "0.2")
    ]
    assert "SGD: before the first step the sharpness is" in out
    assert (workdir / "compare_sharpness.png").exists()
    with (workdir / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    assert len(rows) == 2 * 2 * 2 * 40
    measured = [row for row in rows if row["sharpness"]]
    assert {row["limit"] for row in measured if row["optimizer"] == "SGD"} == {"20.0", "10.0"}
    assert [int(row["step"]) for row in measured[:3]] == [0, 2, 4]


def test_the_figure_has_a_column_an_optimizer_and_a_dashed_limit_a_curve():
    optimizers = parse_optimizers(["SGD", "Adagrad", "Adam()"])
    found = dict(script.compare(optimizers, SMALL, [0.1, 0.2], steps=6))
    figure = script.draw(found, "a caption")
    upper, lower = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in upper] == ["SGD", "Adagrad", "Adam()"]
    names = ["Sharpness", "Sharpness", "Preconditioned sharpness"]
    assert [axes.get_ylabel() for axes in lower] == names
    for axes, losses in zip(lower, upper, strict=True):
        curves = [line for line in axes.lines if line.get_label() in ("lr 0.1", "lr 0.2")]
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [line.get_color() for line in curves] == [line.get_color() for line in dashed]
        assert len({line.get_marker() for line in curves}) == 2
        assert axes.get_xlim() == losses.get_xlim()
        assert axes.get_yscale() == "log"
    sgd = found["SGD", 0.1]
    line = next(line for line in lower[0].lines if line.get_label() == "lr 0.1")
    assert line.get_ydata().tolist() == pytest.approx(sgd.sharpness[:, 0].tolist())
    dashed = next(line for line in lower[0].lines if line.get_linestyle() == "--")
    assert set(dashed.get_ydata()) == {20.0}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("lr 0.1", "lr 0.2", "limit of this rate")
    ]


def test_what_diverges_and_a_negative_sharpness_can_be_drawn():
    found = {
        Place("SGD", 0.1): curve([-1.0, -2.0], 20.0),
        Place("SGD", 0.2): curve([5.0, 9e30], 10.0, [1.0, math.inf]),
    }
    figure = script.draw(found)
    assert figure.axes[1].get_ylim() == pytest.approx((5 / 1.4, 20 * 1.4))
    assert script.draw({Place("SGD", 0.1): curve([], None, [math.inf])})


def test_mini_batches_are_said_to_be_beyond_the_theory(workdir, capsys):
    words = ["--lr-range", "0.1", "0.2", "--lr-count", "2"]
    assert run_main(*words, "--batch-size", "16") == 0
    assert "These are mini-batches" in capsys.readouterr().out
    assert run_main(*words, "--batch-size", "64") == 0
    assert "mini-batches" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps"),
        (["--batch-size", "0"], "--batch-size"),
        (["--lr-range", "0.2", "0.1"], "--lr-range wants LOW below HIGH"),
        (["--epochs", "3"], "unknown words: --epochs"),
        (["--task", "tasks.sparse_words"], "the curvature of its loss cannot be had"),
        (["--optimizers", "Adma"], "did you mean"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys):
    assert_refused(script.main, [*FAST, *words], message, workdir, capsys)


def test_an_optimizer_that_fails_half_way_is_a_row(workdir, capsys, homework):
    homework(FAILS)
    words = ["--lr-range", "0.1", "0.2", "--lr-count", "2"]
    assert run_main("--optimizers", "homework.Fails", "SGD", *words) == 1
    out = capsys.readouterr().out
    assert out.count("failed at step 3: RuntimeError: boom (homework.py, line 9)") == 2
    assert "\nSGD " in out


def test_ctrl_c_keeps_what_is_done():
    def interrupt(items, total, unit):
        for number, item in enumerate(items):
            if number == 20:
                raise KeyboardInterrupt
            yield item

    def progress(place):
        return interrupt if place.lr == 0.2 else lambda items, *_: items

    found = []
    runs = script.compare(None, SMALL, [0.1, 0.2, 0.4], [1], 30, progress=progress)
    with pytest.raises(KeyboardInterrupt):
        found.extend(runs)
    assert [place.lr for place, _ in found] == [0.1, 0.2]
    assert found[1][1].stopped == "interrupted at step 21"
    assert len(script.draw(found).axes) == 2
