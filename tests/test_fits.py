"""What nets have learned, drawn: against nets trained apart."""

from dataclasses import replace

from lab.command_line.specs import parse_optimizers
from lab.pictures.fits import Curves, Maps, Regions, fit_for
from lab.pictures.looks import looks_of
from lab.training.runs import trainings_of

import pytest
import torch
from conftest import SMALL, SmallNet, assert_refused, small_data, textbook_training
from matplotlib.colors import to_hex
from torch.nn.functional import mse_loss

import compare_optimizers as script
from tasks import TASKS

TWO = parse_optimizers(["SGD", "Adam"], lr=0.01)


@pytest.mark.parametrize(
    ("name", "kind", "n_panels"),
    [("parabola", Curves, 1), ("spirals", Regions, 3), ("terrain", Maps, 4)],
)
def test_the_data_decide_how_they_are_drawn(name, kind, n_panels):
    (training,) = trainings_of(TASKS[name], [1])
    fit = fit_for(TASKS[name], training)
    assert isinstance(fit, kind)
    assert fit.n_panels(3) == n_panels


@pytest.mark.parametrize("name", ["scales", "bottleneck", "prose"])
def test_data_of_more_inputs_cannot_be_drawn(name):
    (training,) = trainings_of(TASKS[name], [1])
    with pytest.raises(ValueError, match="a curve of one input"):
        fit_for(TASKS[name], training)


def test_fit_adds_the_data_and_each_nets_curve(workdir):
    every = TWO | {"wild": lambda params: torch.optim.SGD(params, lr=3.0)}
    runs = dict(script.compare(every, replace(SMALL, epochs=2), seeds=[4]))
    _, fit = script.draw(runs, fit=True).axes
    assert (
        fit.collections[0].get_offsets().tolist() == torch.cat(small_data(4)[0].tensors, 1).tolist()
    )
    y = small_data(4)[0].tensors[1]
    low, high = fit.get_ylim()  # the data's and a little more, whatever a net does
    assert y.min() - 0.2 < low < y.min()
    assert y.max() < high < y.max() + 0.2
    for line, label in zip(fit.lines, runs, strict=True):
        _, net = textbook_training(
            small_data(4)[0], SmallNet, every[label], mse_loss, 4, 2, SMALL.batch_size
        )
        x = torch.tensor(line.get_xdata()).reshape(-1, 1)
        assert x.min() == small_data(4)[0].tensors[0].min()
        torch.testing.assert_close(torch.tensor(line.get_ydata()), net(x).flatten().double())
        assert to_hex(line.get_color()) == to_hex(looks_of(runs)[label]["color"])


def test_fit_of_many_seeds_shows_the_median_curve():
    task = replace(SMALL, epochs=2)
    ((label, run),) = script.compare({"SGD": TWO["SGD"]}, task, seeds=range(5))
    fit = script.draw({label: run}, fit=True).axes[1]
    x = torch.tensor(fit.lines[0].get_xdata()).reshape(-1, 1)
    curves = torch.stack([run.predict(x, k) for k in range(5)])
    median = curves.squeeze(2).double().median(0).values
    torch.testing.assert_close(torch.tensor(fit.lines[0].get_ydata()), median)
    assert len(fit.collections) == 2  # the data and the band


def test_fit_of_classes_shows_the_regions_of_each_net(workdir):
    task = replace(TASKS["spirals"], epochs=2)
    runs = dict(script.compare(TWO, task, seeds=[4]))
    figure = script.draw(runs, fit=True)
    _, *panels = figure.axes
    assert [axes.get_title() for axes in panels] == list(TWO)
    x, y = task.make_data(4)[0].tensors
    low, high = x.min(0).values, x.max(0).values
    for axes, run in zip(panels, runs.values(), strict=True):
        (image,), (points,) = axes.images, axes.collections
        assert image.get_extent() == pytest.approx(
            [low[0].item(), high[0].item(), low[1].item(), high[1].item()]
        )
        assert points.get_offsets().tolist() == x.tolist()
        assert points.get_array().tolist() == y.tolist()
        classes = torch.tensor(image.get_array())
        for row, column in ((0, 0), (99, 0), (0, 99), (40, 70)):  # from below, from the left
            point = low + (high - low) * torch.tensor([column, row]) / 99
            assert run.predict(point.unsqueeze(0), 0).argmax(1) == classes[row, column]
        assert len(classes.unique()) == 2


def test_fit_of_two_inputs_and_a_number_shows_maps_beside_the_data(workdir):
    task = replace(TASKS["terrain"], epochs=1)
    runs = dict(script.compare(parse_optimizers(["Adam"], lr=0.01), task, seeds=[4, 5]))
    _, data, fit, key = script.draw(runs, fit=True).axes
    assert key.get_ylabel() == "y"  # what a colour means
    x, y = task.make_data(4)[0].tensors
    assert data.collections[0].get_array().tolist() == y.flatten().tolist()
    low, high = x.min(0).values, x.max(0).values
    (image,) = fit.images
    assert image.get_clim() == data.collections[0].get_clim()  # one colour, one height
    for row, column in ((0, 0), (99, 10), (50, 99)):
        point = (low + (high - low) * torch.tensor([column, row]) / 99).unsqueeze(0)
        heights = torch.cat([runs["Adam"].predict(point, k) for k in (0, 1)])
        # torch's median of two is the lower one
        assert image.get_array()[row, column] == pytest.approx(heights.min().item(), rel=1e-4)


def test_fit_of_what_cannot_be_drawn_is_refused(workdir, capsys):
    words = ["--no-show", "--fit", "--task", "prose"]
    assert_refused(script.main, words, "a curve of one input", workdir, capsys)
