"""Losses before and after the axes are turned: the arrows, and what is said of them."""

import csv
from types import SimpleNamespace

from lab.command_line.specs import parse_optimizers
from lab.training.rotation import turned_task

import pytest
import torch
from conftest import SMALL, assert_refused, exit_status

import compare_axes as script
from compare_axes import Place

SHORT = ["--lr-range", "0.01", "0.1", "--lr-count", "2", "--seeds", "2", "--judges", "2"]


def sweeps_of(**losses):
    """Sweeps of one task, `mine`: of each optimizer its losses as it is, and turned."""
    return {
        Place("mine", axes, label): SimpleNamespace(judged_losses=torch.tensor([loss]))
        for label, pair in losses.items()
        for axes, loss in zip(script.AXES, pair, strict=True)
    }


def test_the_sentences_tell_what_changes_from_what_does_not():
    sweeps = sweeps_of(SGD=(2.0, 2.1), Adam=(0.5, 1.0), Rprop=(1.0, 0.5), Wild=(1.0, torch.inf))
    assert script.conclusions(sweeps) == [
        "Turned axes on mine take Adam from 0.500 to 1.00, 2.00 times; Rprop from 1.00 to 0.500, "
        "0.500 times; Wild from 1.00 to inf.",
        "Within 10% of what it was on mine: SGD.",
    ]


def test_what_lacks_its_other_half_is_left_out():
    sweeps = sweeps_of(SGD=(2.0, 2.0), Adam=(0.5, 1.0))
    del sweeps["mine", "turned", "Adam"]
    sweeps["mine", "turned", "SGD"].judged_losses = None
    assert script.medians(sweeps) == {}
    assert script.draw(sweeps)


def test_arrows_lead_from_each_loss_to_the_turned_one():
    sweeps = sweeps_of(SGD=(2.0, 2.0), Adam=(0.5, 1.0), Wild=(1.0, torch.inf))
    (axes,) = script.draw(sweeps, "a caption").axes
    assert axes.get_title() == "mine"
    points = [line.get_ydata()[0] for line in axes.lines]
    assert points == [2.0, 2.0, 0.5, 1.0, 1.0, torch.inf]
    assert [line.get_markerfacecolor() == "none" for line in axes.lines] == [True, False] * 3
    arrows = [(text.xyann, text.xy) for text in axes.texts]
    assert arrows == [((-0.2, 2.0), (0.2, 2.0)), ((0.8, 0.5), (1.2, 1.0))]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["SGD", "Adam", "Wild"]


def test_sgd_stays_and_adam_does_not():
    optimizers = parse_optimizers(["SGD", "Adam"])
    tasks = {"small": (SMALL, turned_task(SMALL, 1))}
    found = dict(script.compare(optimizers, tasks, [0.01, 0.03], range(2), range(2, 5)))
    pairs = script.medians(found)
    before, after = pairs["small", "SGD"]
    assert after == pytest.approx(before, rel=1e-3)
    before, after = pairs["small", "Adam"]
    assert after != pytest.approx(before, rel=1e-2)
    table = script.rows(found)
    assert [row["axes"] for row in table] == ["as they are", "turned"] * 2
    assert table[0]["held-out loss"] == pytest.approx(pairs["small", "SGD"][0])


def test_the_table_the_figure_and_the_csv(workdir, capsys):
    words = ["--no-show", "--jobs", "1", *SHORT, "--optimizers", "SGD", "--csv", "a.csv"]
    assert exit_status(script.main, [*words, "--tasks", "scales(samples=64)"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Within 10% of what it was on scales(samples=64): SGD." in out
    assert (workdir / "compare_axes.png").exists()
    with (workdir / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    assert {row["axes"] for row in rows} == set(script.AXES)
    assert sum(row["stage"] == "judged" for row in rows) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "scale"], "did you mean scales"),
        (["--rotate"], "unknown words: --rotate"),
        (["--optimizers", "SGD(lr=0.1)"], "names its own lr"),
        (["--lr-range", "1", "0.1"], "--lr-range wants LOW below HIGH"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys):
    assert_refused(script.main, ["--no-show", *words], message, workdir, capsys)
