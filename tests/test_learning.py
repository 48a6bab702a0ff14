"""The animation of learning against nets trained apart."""

from dataclasses import replace
from functools import partial

from lab.command_line.specs import parse_optimizers
from lab.pictures import curves, learning, style
from lab.training.runs import trainings_of

import pytest
import torch
from conftest import SMALL, SmallNet, assert_refused, exit_status, small_data
from PIL import Image
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

import compare_optimizers as script
from tasks import TASKS

SPECS = parse_optimizers(["SGD(lr=0.1)", "it=SGD(lr=0.3) + ExponentialLR(gamma=0.7)"])


def plain_nets(lr, gamma, seed=3):
    """Return copies of the weights after each step of a plain loop, the first ones first."""
    dataset, _ = small_data(seed)
    loader = DataLoader(dataset, 32, shuffle=True, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(seed)
    net = SmallNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    states = [{name: value.clone() for name, value in net.state_dict().items()}]
    for _ in range(SMALL.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            optimizer.step()
            states.append({name: value.clone() for name, value in net.state_dict().items()})
        scheduler.step()
    return states


@pytest.mark.parametrize("n_steps", [1, 7, 384, 100_000])
def test_moments_come_closer_together_at_the_start(n_steps):
    steps = learning.moments(n_steps)
    assert steps[0] == 0
    assert steps[-learning.REST_FRAMES - 1 :] == [n_steps] * (learning.REST_FRAMES + 1)
    assert len(steps) <= 100
    moving = torch.tensor(steps[: -learning.REST_FRAMES])
    assert (moving.diff() > 0).all()
    if n_steps > 1000:
        assert (moving.diff().diff() >= -1).all()
        assert moving.diff()[-1] > 50 * moving.diff()[0]
        half = moving[len(moving) // 2] / n_steps
        assert half == pytest.approx(1 / 4, abs=0.02)  # half of the time for a quarter of them
    if n_steps == 7:
        assert moving.tolist() == list(range(8))


def test_weights_are_those_of_a_plain_loop():
    (training,) = trainings_of(SMALL, [3])
    steps = [0, 1, 5, 24, 24]
    for (label, spec), (lr, gamma) in zip(SPECS.items(), [(0.1, 1.0), (0.3, 0.7)], strict=True):
        states = plain_nets(lr, gamma)
        for step, weights in zip(
            steps, learning.weights_at(steps, SMALL, training, spec), strict=True
        ):
            for name, value in states[step].items():
                assert torch.equal(weights[name], value.unsqueeze(0)), (label, step, name)


def test_weights_stay_where_a_training_ends():
    (training,) = trainings_of(SMALL, [3])
    (spec,) = parse_optimizers(["SGD(lr=1e30)"]).values()
    first, *others = learning.weights_at([0, 5, 24], SMALL, training, spec)
    for name, value in others[0].items():
        assert not torch.equal(value, first[name])
        assert torch.equal(value.nan_to_num(), others[1][name].nan_to_num())

    class Fails(torch.optim.SGD):
        def step(self, closure):
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == at:
                raise RuntimeError("no more")
            return super().step(closure)

    states = plain_nets(0.1, 1.0)
    for at in (4, 1):
        *_, last = learning.weights_at([0, 2, 9], SMALL, training, partial(Fails, lr=0.1))
        for name, value in last.items():
            assert torch.equal(value[0], states[at - 1][name])


def test_an_optimizer_with_a_mode_is_in_that_of_training():
    class Modal(torch.optim.SGD):
        is_training = False

        def train(self):
            self.is_training = True

        def eval(self):
            self.is_training = False

        def step(self, closure):
            assert self.is_training
            return super().step(closure)

    (training,) = trainings_of(SMALL, [3])
    *_, last = learning.weights_at([0, 2], SMALL, training, partial(Modal, lr=0.1))
    for name, value in last.items():
        assert torch.equal(value[0], plain_nets(0.1, 1.0)[2][name])


def frames(task, specs, seed, numbers):
    """Yield the step, loss lines, and fit panels of an animation at frames of these numbers."""
    runs = dict(script.compare(specs, task, seeds=[seed]))
    figure = script.draw(runs, fit=True)
    animation = learning.animate(figure, runs, specs)
    steps = learning.moments(max(len(run.losses) for run in runs.values()))
    for number in numbers:
        animation._func(number)
        yield steps[number], runs, figure
    animation._draw_was_started = True  # it is not to be shown


def test_each_frame_shows_the_losses_and_the_curves_of_its_step():
    states = [plain_nets(0.1, 1.0), plain_nets(0.3, 0.7)]
    for step, runs, figure in frames(SMALL, SPECS, 3, [0, 4, 20, -1]):
        losses, fits = figure.axes[:2]
        figure.canvas.draw()
        title = losses.title.get_window_extent()
        assert losses.get_window_extent().y1 < title.y0
        assert title.y1 < figure.legends[0].get_window_extent().y0
        assert losses.get_title() == f"Step {step}"
        raw = [line for line in losses.lines if line.get_label() == style.once("each mini-batch")]
        for line, run in zip(raw, runs.values(), strict=True):
            assert line.get_ydata().tolist() == run.history(0)[:step]
            assert line.get_visible()
        for line, run in zip(curves.named_lines(losses), runs.values(), strict=True):
            means = curves.running_mean(run.losses, run.steps_per_epoch)[:step, 0]
            assert line.get_ydata().tolist() == means.tolist()
            assert line.get_visible()
        for line, path in zip(fits.lines, states, strict=True):
            net = SmallNet()
            net.load_state_dict(path[step])
            x = torch.tensor(line.get_xdata()).unsqueeze(1)
            expected = net(x).flatten().tolist()
            assert line.get_ydata().tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("name", "n_images"), [("spirals", 2), ("terrain", 2)])
def test_regions_and_maps_move(name, n_images):
    task, seen = replace(TASKS[name], epochs=2), []
    specs = parse_optimizers(["Adam", "SGD"], lr=0.03)
    for _, runs, figure in frames(task, specs, 3, [0, -1]):
        images = [image for axes in figure.axes for image in axes.images]
        assert len(images) == n_images
        seen.append([image.get_array().copy() for image in images])
        final = script.draw(runs, fit=True)
    images = [image for axes in final.axes for image in axes.images]
    for first, last, image in zip(*seen, images, strict=True):
        assert (first != last).any()
        assert (last == image.get_array()).all()


def test_the_animation_is_saved(workdir, capsys):
    words = ["--no-show", "--epochs", "1", "--optimizers", "SGD", "Adam"]
    assert exit_status(script.main, [*words, "--animate", "a.gif"]) == 0
    assert "saved a.gif" in capsys.readouterr().out
    with Image.open("a.gif") as animation:
        assert 1 < animation.n_frames <= 100
    assert (workdir / "a.gif").stat().st_size < 2e6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "2", "--animate", "a.gif"], "--animate shows one seed: leave --seeds out"),
        (["--task", "scales", "--animate", "a.gif"], "--fit and --animate draw a curve"),
        (["--animate", "a.avi"], "a.avi"),
        (["--animate", "a.gif", "--csv", "a.gif"], "same file"),
    ],
)
def test_what_cannot_be_animated_is_refused(words, message, workdir, capsys):
    assert_refused(script.main, ["--no-show", *words], message, workdir, capsys)
