"""How losses are drawn: means, bands, limits, marks, and words."""

import math
from dataclasses import replace

from lab.pictures import curves, style
from lab.pictures.looks import looks_of
from lab.training.runs import Runs, Training

import pytest
import torch
from conftest import SMALL
from matplotlib.colors import to_rgb

from tasks import TASKS

LOOK = looks_of(["Adam"])["Adam"]


def test_a_running_mean_is_of_the_last_losses_that_there_are():
    losses = torch.tensor([[1.0, 8], [3, 0], [5, 4], [7, 0], [1, 1]])
    means = curves.running_mean(losses, 3).tolist()
    assert means == [[1, 8], [2, 4], [3, 4], [5, pytest.approx(4 / 3)],
                     [pytest.approx(13 / 3), pytest.approx(5 / 3)]]  # fmt: skip
    assert curves.running_mean(losses, 1).tolist() == losses.tolist()
    assert curves.running_mean(losses, 99)[-1].tolist() == pytest.approx(
        losses.double().mean(0).tolist()
    )


def test_a_running_mean_forgets_what_was_huge():
    losses = torch.tensor([[1e30], [1.0], [2.0], [math.inf]])
    means = curves.running_mean(losses, 2).flatten().tolist()
    assert means[2:] == [1.5, math.inf]


def test_a_band_lies_between_the_quartiles_and_ends_where_one_diverged():
    _, (axes,) = style.new_figure()
    bands = torch.tensor([[1.0, 2, 3, 2], [3, 4, 5, math.inf], [5, 6, math.inf, math.inf]])
    curves.median_band(axes, [10, 20, 30, 40], bands, "Adam", LOOK | {"color": "red"})
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_xydata()[:3].tolist() == [[10, 3], [20, 4], [30, 5]]
    assert math.isnan(line.get_ydata()[3])
    corners = [corner for path in band.get_paths() for corner in path.vertices.tolist()]
    for corner in ([10, 1], [10, 5], [20, 2], [20, 6]):
        assert corner in corners
    assert max(x for x, _ in corners) == 20
    assert to_rgb(line.get_color()) == tuple(band.get_facecolor()[0, :3]) == to_rgb("red")


def test_one_seed_has_no_band():
    _, (axes,) = style.new_figure()
    curves.draw_history(axes, [1, 2, 3], torch.tensor([[1.0], [2], [3]]), 2, "Adam", LOOK)
    assert not axes.collections
    raw, mean = axes.lines
    assert (raw.get_label(), mean.get_label()) == (style.once("each mini-batch"), "Adam")
    assert list(raw.get_ydata()) == [1, 2, 3]
    assert list(mean.get_ydata()) == [1, 1.5, 2.5]


def limits_of(*losses, top=0.2, log=False):
    _, (axes,) = style.new_figure()
    for i, each in enumerate(losses):
        axes.plot(range(len(each)), each, label=f"line {i}")
    curves.limit_losses(axes, top, log)
    return axes, axes.get_yscale(), axes.get_ylim()


@pytest.mark.parametrize(
    ("losses", "scale", "limits"),
    [
        ([[0.9] + [0.1] * 19], "linear", (0, 0.2)),  # nearly all is below
        ([[0.9] * 2 + [0.1] * 19], "linear", (0, 0.94)),
        ([[0.3, 0.004]], "log", (0.0032, 0.375)),
        ([[0.1, 0.004]], "linear", (0, 0.2)),
        ([[0.1, 0.0039]], "log", (0.00312, 0.125)),  # it would lie flat on the axis
        ([[3.0, 1.0]], "linear", (0, 3.1)),
        ([[3.0, 1.6]], "linear", (1.53, 3.07)),  # nothing is near zero
        ([[1.0, 1.0]], "linear", (0.95, 1.05)),
        ([[9.0, -1.0]], "linear", (-1.5, 9.5)),
        ([[3.0, 1.0], [math.nan, math.nan]], "linear", (0, 3.1)),
        ([[3.0, 1.0], [0.5, 3.0, 1e9, math.inf]], "linear", (0, 3.125)),
        ([[2.0, 3.0, 1e9, math.inf]], "linear", (1.95, 3.05)),
        ([[0.0, 30.0, 0.3]], "log", (0.24, 37.5)),  # zero is nowhere on a logarithmic axis
    ],
)
def test_limits_hold_all_lines_but_for_those_that_diverge(losses, scale, limits):
    _, found, ends = limits_of(*losses)
    assert found == scale
    assert ends == pytest.approx(limits)


def test_a_logarithmic_axis_can_be_asked_for():
    assert limits_of([3.0, 1.0], log=True)[1:] == ("log", pytest.approx((0.8, 3.75)))
    assert limits_of([3.0, -1.0], log=True)[1] == "linear"
    assert limits_of([0.0, 0.0], log=True)[1] == "linear"


def test_a_change_of_scale_afterwards_does_not_leave_the_axes_empty():
    axes, *_ = limits_of([0.5, *[0.1] * 30, 0.01])
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    assert 0.001 < low < 0.01
    assert 0.5 < high < 5


def test_what_leaves_the_axes_is_marked_at_its_edge():
    axes, *_ = limits_of([0.1] * 30, [0.1, 0.1, 5.0, math.inf])
    (mark,) = [line for line in axes.lines if line.get_label() == style.once("off the axis")]
    assert mark.get_xydata().tolist() == [[2, 1]]  # at the top
    assert mark.get_marker() == "^"
    assert mark.get_color() == axes.lines[1].get_color()
    axes, *_ = limits_of([1.0, 2.0])
    assert len(axes.lines) == 1
    axes.set_ylim(1.5, 3)
    curves.mark_edges(axes)
    assert axes.lines[1].get_xydata().tolist() == [[0, 0]]
    assert axes.lines[1].get_marker() == "v"


def test_rates_are_drawn_below_on_the_axis_of_steps():
    figure, (axes,) = style.new_figure()
    axes.set(xlabel="Steps")
    histories = {"Adam": [0.1, 0.1, 0.01], "SGD": [0.1] * 3}
    curves.draw_lrs(axes, histories, looks_of(histories), lengths={"SGD": 0.5})
    panel = figure.axes[1]
    assert list(panel.lines[0].get_xdata()) == [1, 2, 3]
    assert list(panel.lines[1].get_xdata()) == [0.5, 1, 1.5]
    assert (panel.get_xlabel(), panel.get_ylabel(), axes.get_xlabel()) == ("Steps", "lr", "")
    assert panel.get_yscale() == "linear"
    assert panel.get_ylim()[0] == 0
    figure, (axes,) = style.new_figure()
    curves.draw_lrs(axes, {"Adam": [0.1], "SGD": [0.001]}, looks_of(["Adam", "SGD"]), "Steps, too")
    assert figure.axes[1].get_yscale() == "log"
    assert figure.axes[1].get_xlabel() == "Steps, too"


def test_the_legend_names_the_rate_unless_the_label_or_the_caption_does():
    assert curves.legend_label("Adam", 0.0123456) == "Adam, lr=0.0123"
    assert curves.legend_label("Adam(lr=0.1)", 0.1) == "Adam(lr=0.1)"
    assert curves.legend_label("Adam", None, diverged=True) == "Adam (diverged)"
    assert curves.names_with_rates({"a": 0.1, "b": 0.1}, ["b"]) == (
        {"a": "a", "b": "b (diverged)"},
        "lr 0.1",
    )
    names = {"a": "a, lr=0.1", "b": "b"}
    assert curves.names_with_rates({"a": 0.1, "b": None}) == (names, "")
    assert curves.names_with_rates({"a": None}) == ({"a": "a"}, "")


def runs_of(task, seeds):
    every = [Training(seed, None, None) for seed in seeds]
    numbers = torch.ones(len(every))
    return Runs(task, every, torch.ones(6, len(every)), numbers, numbers, {}, 2, 0.1, seconds=3.0)


def test_a_caption_says_what_is_compared():
    spirals = TASKS["spirals"]
    assert curves.caption_of(runs_of(spirals, [7]), "lr 0.1", "") == (
        "spirals, seed 7, batch size 32, lr 0.1"
    )
    changed = replace(spirals, batch_size=8)
    assert curves.caption_of(runs_of(changed, [3, 4, 5])) == (
        "spirals, 3 seeds (3 to 5), batch size 8"
    )
    assert curves.caption_of(runs_of(SMALL, [1])) == "seed 1, batch size 32"
    named = replace(SMALL, name="problem.mine")
    assert curves.caption_of(runs_of(named, [1])).startswith("problem.mine, seed 1")


def test_a_step_is_as_long_as_its_share():
    run = runs_of(SMALL, [1, 2])
    assert curves.length_of_step(run, "steps") == 1
    assert curves.length_of_step(run, "epochs") == 0.5
    assert curves.length_of_step(run, "seconds") == 3 / 12  # of both nets together
