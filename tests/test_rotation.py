"""Turned axes: gradient descent does not see them, what treats each weight for itself does."""

import math
from dataclasses import replace

from lab.command_line.specs import parse_optimizer, parse_task
from lab.command_line.tasks import load_task
from lab.outcome import no_progress
from lab.training import rotation
from lab.training.checks import check_task
from lab.training.descent import vectorized
from lab.training.rotation import Turned, random_rotation, turned_surface, turned_task
from lab.training.runs import trainings_of
from lab.training.stack import train_stack
from lab.training.sweeps import Sweep
from lab.training.train import train_all, train_in_turn

import pytest
import torch
from conftest import SMALL, SmallNet, assert_like_alone, assert_refused, small_trainings
from torch import nn
from torch.nn.utils import parameters_to_vector

import compare_batch_sizes
import compare_learning_rates
import compare_optimizers
import compare_paths
import compare_tasks
from surfaces import SURFACES
from tasks import TASKS
from training import evaluating

X = torch.linspace(-1, 1, 7).unsqueeze(1)


def losses_of(task, text, seed=3):
    return train_all(task, trainings_of(task, [seed]), parse_optimizer(text, 0.05)).history(0)


# ---------------------------------------------------------------- the matrix


def test_a_rotation_keeps_lengths_and_angles_and_is_the_seeds():
    q = random_rotation(30, 4)
    assert torch.allclose(q @ q.T, torch.eye(30).double(), atol=1e-12)
    assert (q.abs() > 1e-4).float().mean() > 0.98  # every weight is a mixture of all
    assert q.abs().max() < 0.75
    assert not torch.allclose(q, random_rotation(30, 5))


def test_any_rotation_is_as_likely_as_any_other():
    """Its trace has mean 0 and variance 1 (Diaconis and Shahshahani, 1994)."""
    traces = torch.stack([random_rotation(6, seed).trace() for seed in range(1500)])
    assert abs(traces.mean()) < 0.1
    assert traces.var() == pytest.approx(1, abs=0.12)


# ---------------------------------------------------------------- the net


@pytest.mark.parametrize("largest", [1500, 5])
def test_a_turned_net_is_the_same_function_of_other_numbers(monkeypatch, largest):
    monkeypatch.setattr(rotation, "LARGEST", largest)
    torch.manual_seed(0)
    net = SmallNet()
    before, theta = net(X).detach(), parameters_to_vector(net.parameters()).detach()
    turned = Turned(net, seed=1)
    phi = parameters_to_vector(turned.parameters()).detach()
    assert torch.allclose(turned(X), before, atol=1e-6)
    assert turned.parts == ([19] if largest == 1500 else [5, 1, 5, 1, 5, 1, 1])
    q = torch.block_diag(*[random_rotation(size, 1).float() for size in turned.parts])
    assert torch.allclose(q @ phi, theta, atol=1e-6)
    assert (phi - theta).norm() > 0.5 * theta.norm()


def test_neither_first_weights_nor_what_is_drawn_later_change():
    torch.manual_seed(3)
    net = SmallNet()
    later = torch.rand(1)
    task = turned_task(SMALL, seed=8)
    torch.manual_seed(3)
    turned = task.make_net()
    assert torch.equal(torch.rand(1), later)
    assert torch.allclose(turned(X), net(X), atol=1e-6)


def test_what_does_not_learn_is_not_turned():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    net[0].weight.requires_grad_(False)
    frozen = net[0].weight.clone()
    turned = Turned(net, 0)
    assert torch.equal(net[0].weight, frozen)
    assert sum(turned.sizes) == 3 + 6 + 4
    turned(torch.randn(20, 2))
    assert net[1].num_batches_tracked == 1


def test_the_matrices_go_along_to_another_type():
    net = Turned(SmallNet(), 0).double()
    assert net(X.double()).dtype == torch.float64


def test_what_is_no_net_is_refused_in_words_all_the_same():
    with pytest.raises(ValueError, match="its net cannot be made: "):
        check_task(turned_task(replace(SMALL, make_net=lambda: "net"), 0), 0)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    "text", [*("SGD", "Momentum", "SGD(momentum=0.9, nesterov=True)", "SGD(weight_decay=0.1)")]
)
def test_gradient_descent_does_not_see_the_axes_at_any_step(text):
    plain, turned = (losses_of(task, text) for task in (SMALL, turned_task(SMALL, 1)))
    assert turned == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("text", ["Adagrad", "RMSprop", "Adam", "Rprop"])
def test_what_treats_each_weight_for_itself_does(text):
    plain, turned = (losses_of(task, text) for task in (SMALL, turned_task(SMALL, 1)))
    assert turned[0] == pytest.approx(plain[0], rel=1e-5)
    assert turned[-1] != pytest.approx(plain[-1], rel=0.01)
    assert turned != losses_of(turned_task(SMALL, 2), text)


def test_the_steps_of_adam_are_those_of_a_loop_written_apart():
    """θ is kept here, and turned by hand before and after each of Adam's steps."""
    (training,) = trainings_of(SMALL, [3])
    turned = turned_task(SMALL, 1)
    run = train_all(turned, [training], parse_optimizer("Adam", 0.05))
    torch.manual_seed(3)
    net = SmallNet()
    theta = list(net.parameters())
    q = random_rotation(19, 1).float()
    phi = (q.T @ parameters_to_vector(theta)).detach()
    first, second, losses = torch.zeros(19), torch.zeros(19), []
    loader = torch.utils.data.DataLoader(
        training.dataset, 32, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    for x, y in [batch for _ in range(SMALL.epochs) for batch in loader]:
        nn.utils.vector_to_parameters(q @ phi, theta)
        net.zero_grad()
        loss = SMALL.loss(net(x), y)
        loss.backward()
        losses.append(loss.item())
        grad = q.T @ torch.cat([param.grad.flatten() for param in theta])
        first, second = 0.9 * first + 0.1 * grad, 0.99 * second + 0.01 * grad**2
        t = len(losses)
        step = (first / (1 - 0.9**t)) / ((second / (1 - 0.99**t)).sqrt() + 1e-8)
        phi = phi - 0.05 * step
    assert run.history(0) == pytest.approx(losses, rel=1e-3)


def test_a_stack_of_turned_nets_trains_as_each_alone():
    task, trainings = turned_task(SMALL, 1), small_trainings(lrs=(0.01, 0.1))
    adam = parse_optimizer("Adam")
    runs = train_all(task, trainings, adam)
    assert runs.stacked
    assert_like_alone(runs, task, trainings, adam)
    with evaluating(runs.net(5)) as net:
        loss = task.loss(net(trainings[5].held_out.tensors[0]), trainings[5].held_out.tensors[1])
    assert loss.item() == pytest.approx(runs.held_out_losses[5].item(), rel=1e-3)


def test_running_averages_of_a_turned_stack_are_each_nets_own():
    def make_net():
        return nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))

    task = turned_task(replace(SMALL, make_net=make_net), 1)
    runs = train_all(task, small_trainings(), parse_optimizer("Adam", 0.01))
    assert runs.stacked
    alone = train_in_turn(task, small_trainings(), parse_optimizer("Adam", 0.01), no_progress)
    name = "net.1.running_mean"
    torch.testing.assert_close(runs.weights[name], alone.weights[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_compiled_code_turns_the_same():
    task, trainings = turned_task(SMALL, 1), small_trainings(lrs=(0.01, 0.1))
    adam = parse_optimizer("Adam")
    runs = train_stack(task, trainings, adam, no_progress, compiled=True)
    assert runs.remarks == []
    assert_like_alone(runs, task, trainings, adam)


# ---------------------------------------------------------------- the lesson

# About the best rate of each, as it is and turned: `compare_learning_rates.py --task scales`.
RATES = {
    "SGD": (0.001, 0.00316, 0.01),
    "SGD(momentum=0.9)": (0.000316, 0.001, 0.00316),
    "RMSprop()": (0.01, 0.0316, 0.1),
    "Adam()": (0.0316, 0.1, 0.316),
}


@pytest.fixture(scope="module")
def scales():
    """The median held-out losses at the best rates over four seeds: as it is, and turned."""
    losses = {}
    for text, lrs in RATES.items():
        for task in (TASKS["scales"], turned_task(TASKS["scales"], 1)):
            runs = train_all(task, trainings_of(task, range(4), lrs), parse_optimizer(text))
            assert runs.stacked
            result = Sweep(runs)
            losses.setdefault(text, []).append(result.median[result.best].item())
    return losses


def test_turned_axes_take_from_adam_what_it_had_on_scales(scales):
    for text in ("SGD", "SGD(momentum=0.9)"):
        plain, turned = scales[text]
        assert turned == pytest.approx(plain, rel=1e-3)
    for text, factor in (("RMSprop()", 20), ("Adam()", 8)):
        plain, turned = scales[text]
        assert turned > factor * plain
        assert plain < scales["SGD"][0] / 50


# ---------------------------------------------------------------- surfaces


@pytest.mark.parametrize("name", SURFACES)
def test_a_turned_surface_is_the_surface_at_turned_points(name):
    surface = vectorized(name, SURFACES[name])
    turned = turned_surface(surface)
    angle = math.pi / 4
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]],
        dtype=torch.float64,
    )
    points = torch.tensor([[1.0, 0.0], [0.3, -0.7], list(surface.start)], dtype=torch.float64)
    assert torch.allclose(turned.formula(points @ turn.T), surface.formula(points))
    for before, after in [
        (surface.start, turned.start),
        *zip(surface.minima, turned.minima, strict=True),
        *([(surface.saddle, turned.saddle)] if surface.saddle else []),
    ]:
        assert torch.allclose(turn @ torch.tensor(before).double(), torch.tensor(after).double())
    assert turned.lr == surface.lr
    low, high = torch.tensor(turned.window, dtype=torch.float64).T
    corners = torch.cartesian_prod(*torch.tensor(surface.window, dtype=torch.float64)) @ turn.T
    assert torch.allclose(corners.amin(0), low)
    assert torch.allclose(corners.amax(0), high)


def test_down_the_turned_valley_sgd_takes_the_same_steps_and_rmsprop_does_not():
    valley = SURFACES["valley"]
    plain, turned = (dict(compare_paths.compare(s)) for s in (valley, turned_surface(valley)))
    for label in ("SGD", "Momentum 0.5"):
        assert torch.allclose(turned[label].losses, plain[label].losses)
    steps = [
        compare_paths.steps_to(surface, runs["RMSprop"], 0.01)
        for surface, runs in ((valley, plain), (turned_surface(valley), turned))
    ]
    assert steps[1] > 2 * steps[0]


# ---------------------------------------------------------------- the option


FEW_SCALES = """
from dataclasses import replace
from tasks import TASKS

few = replace(TASKS["scales"], epochs=2)
"""


def test_each_script_that_trains_turns_the_axes(homework, workdir, unrendered, capsys):
    """Adam's numbers change, those of SGD stay."""
    homework(FEW_SCALES)
    short = ["--no-show", "--csv", "a.csv"]
    commands = [
        (compare_optimizers, ["--epochs", "1", "--optimizers", "SGD", "Adam"]),
        (compare_learning_rates, ["--epochs", "1", "--optimizers", "SGD", "Adam", "--seeds", "2",
                                  "--judges", "2",
                                  "--lr-count", "2"]),
        (compare_tasks, ["--tasks", "homework.few", "--optimizers", "SGD", "Adam", "--seeds", "2",
                         "--lr-count", "2", "--jobs", "1", "--lr-range", "0.0003", "0.003",
                         "--judges", "2"]),
        (compare_paths, ["--steps", "3", "--optimizers", "SGD", "Adam"]),
    ]  # fmt: skip
    for script, words in commands:
        last = []
        for more in ([], ["--rotate"]):
            assert script.main([*words, *short, *more]) == 0
            rows = [row.split(",") for row in (workdir / "a.csv").read_text().splitlines()]
            where = rows[0].index("optimizer")
            chosen = [row for row in rows[1:] if "judged" not in row]
            last.append({row[where]: float(row[-1]) for row in chosen})
        plain, turned = last
        assert turned["SGD"] == pytest.approx(plain["SGD"], rel=1e-3), script
        assert turned["Adam"] != pytest.approx(plain["Adam"], rel=1e-3), script
    capsys.readouterr()
    words = ["--epochs", "1", "--batch-sizes", "64", "--optimizer", "Adam", *short]
    ends = []
    for more in ([], ["--rotate"]):
        assert compare_batch_sizes.main([*words, *more]) == 0
        ends.append((workdir / "a.csv").read_text().splitlines()[-1].split(",")[-1])
    assert ends[0] != ends[1]


def test_the_rotation_is_that_of_the_seed_and_goes_with_own_settings():
    options = compare_optimizers.make_parser().parse_args(
        ["--rotate", "--seed", "7", "--epochs", "2", "--task", "sine(noise=0)"]
    )
    task, training = load_task(options, options.task)
    net = training.make_net(task)
    assert isinstance(net, Turned)
    assert task.epochs == 2
    assert torch.equal(net.axes[0], random_rotation(1153, 7).float())
    assert not isinstance(training.make_net(parse_task("sine")), Turned)


def test_a_live_page_has_no_turned_axes(workdir, capsys):
    words = ["--rotate", "--live", "page.html", "--no-show"]
    message = "--live has no turned axes: leave --rotate out"
    assert_refused(compare_optimizers.main, words, message, workdir, capsys)
