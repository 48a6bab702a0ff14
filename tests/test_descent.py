"""Descents against closed forms, and against torch on its own."""

import math
from functools import partial

from lab.command_line.specs import Spec, parse_optimizers
from lab.training import descent
from lab.training.descent import (
    LRS,
    best_lr,
    descend,
    descents_at_each_lr,
    left_at,
    paths_at,
    window_around,
)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import optimizers
from compare_paths import compare
from settings import SEED
from surfaces import SURFACES

VALLEY = SURFACES["valley"]
CURVATURES = torch.tensor([0.2, 4], dtype=torch.float64)
START = torch.tensor(VALLEY.start, dtype=torch.float64)


def sgd(**options):
    return lambda params: optimizers.SGD(params, **options)


# ---------------------------------------------------------------- closed forms


@settings(max_examples=30)
@given(st.floats(0.01, 0.6))
def test_gradient_descent_contracts_each_coordinate_by_its_curvature(lr):
    ((_, run),) = compare(VALLEY, {"SGD": sgd(lr=lr)}, steps=20)
    steps = torch.arange(21, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(run.path, START * (1 - lr * CURVATURES) ** steps)
    torch.testing.assert_close(run.losses, (run.path**2 * CURVATURES / 2).sum(1))


@settings(max_examples=30)
@given(st.floats(0.01, 0.4), st.floats(0.1, 0.95))
def test_momentum_obeys_its_two_term_recurrence(lr, momentum):
    ((_, run),) = compare(VALLEY, {"M": sgd(lr=lr, momentum=momentum)}, steps=20)
    expected = [START, START - lr * CURVATURES * START]
    for _ in range(19):
        now, before = expected[-1], expected[-2]
        expected.append(now - lr * CURVATURES * now + momentum * (now - before))
    torch.testing.assert_close(run.path, torch.stack(expected))


@pytest.mark.parametrize("distance", [-0.1, -0.03, -0.01, 0.01, 0.03, 0.1])
def test_gradient_descent_on_the_valley_holds_up_to_two_over_the_largest_curvature(distance):
    ((_, run),) = compare(VALLEY, {"SGD": sgd(lr=2 / 4 + distance)}, steps=400)
    assert (run.losses[-1] < 1e-4 * run.losses[0]) == (distance < 0)
    assert (run.losses[-1] > 1e4 * run.losses[0]) == (distance > 0)


def test_at_exactly_the_limit_gradient_descent_goes_on_for_ever():
    ((_, run),) = compare(VALLEY, {"SGD": sgd(lr=0.5)}, steps=100)
    assert run.path[:, 1].abs().tolist() == [2.0] * 101


def test_with_noise_the_mean_path_on_a_quadratic_is_the_noiseless_one():
    def path(noise, seed=0):
        ((_, run),) = compare(VALLEY, {"M": sgd(lr=0.1, momentum=0.5)}, None, 10, noise, seed)
        return run.path

    paths = torch.stack([path(1.0, seed) for seed in range(400)])
    error = (paths.mean(0) - path(0.0)) / (paths.std(0) / math.sqrt(400)).clamp(min=1e-12)
    assert paths.std(0)[1:].min() > 0.05
    assert error.abs().max() < 4


def test_every_optimizer_meets_the_same_noise_in_any_company():
    makers = {"a": sgd(lr=0.1), "wild": sgd(lr=1e6), "b": sgd(lr=0.1)}
    runs = dict(compare(VALLEY, makers, noise=2.0, steps=40))
    assert torch.equal(runs["a"].path, runs["b"].path)
    ((_, alone),) = compare(VALLEY, {"b": sgd(lr=0.1)}, noise=2.0, steps=40)
    assert torch.equal(alone.path, runs["b"].path)
    # The first step is the gradient and the first draw, of standard deviation 2.
    draws = torch.randn(40, 2, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    torch.testing.assert_close(runs["a"].path[1], START - 0.1 * (CURVATURES * START + 2 * draws[0]))


# ---------------------------------------------------------------- many rates at once


NAMES = ["SGD", "Adagrad", "RMSprop", "Adam", "Adadelta", "Rprop", "NAdam"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("module", [optimizers, torch.optim], ids=["ours", "torch"])
def test_rates_that_descend_together_go_where_each_goes_alone(name, module):
    lrs = [0.001, 0.05, 0.3]
    draws = torch.randn(15, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    make, surface = getattr(module, name), SURFACES["rosenbrock"]
    steps = descend(surface.formula, surface.start, make, draws, lrs)
    together = torch.stack([points for points, _ in steps])
    for i, lr in enumerate(lrs):
        steps = descend(surface.formula, surface.start, partial(make, lr=lr), draws)
        alone = torch.cat([points for points, _ in steps])
        torch.testing.assert_close(together[: len(alone), i], alone, equal_nan=True)


def plain_path(make_optimizer, steps):
    """Return the path (steps + 1, 2) of a plain loop down the valley, up to where it ends."""
    point = torch.tensor([-5.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = make_optimizer([point])
    path = [point.detach().clone()]

    def closure():
        optimizer.zero_grad()
        loss = 0.1 * point[0] ** 2 + 2 * point[1] ** 2
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        path.append(point.detach().clone())
        if not point.isfinite().all():
            break
    return torch.stack(path)


def test_all_rates_descend_as_torch_does_at_each():
    classes = ["SGD", "Adagrad", "RMSprop", "Adam", "Rprop", "LBFGS"]
    specs = parse_optimizers([*classes, "SGD(lr=0.3)"])
    lrs = [1e-4, 0.03, 0.4, 0.6, 1e160]
    runs = descents_at_each_lr(VALLEY, specs, VALLEY.start, torch.zeros(12, 2), SEED, lrs)
    assert list(runs) == lrs
    for lr, descents in runs.items():
        assert list(descents) == [*classes, "SGD(lr=0.3)"]
        for label, run in descents.items():
            keywords = {"lr": 0.3} if "(" in label else specs[label].keywords | {"lr": lr}
            make_optimizer = partial(getattr(torch.optim, label.split("(")[0]), **keywords)
            expected = plain_path(make_optimizer, 12)
            torch.testing.assert_close(run.path, expected, rtol=1e-9, atol=1e-12, equal_nan=True)
    assert runs[1e160]["SGD"].diverged_at == 1
    assert runs[0.6]["SGD"].losses[-1] > runs[0.6]["SGD"].losses[0]


def test_an_optimizer_that_fails_at_a_rate_ends_there():
    class Limited(torch.optim.SGD):
        def step(self, closure):
            super().step(closure)
            if any(p.abs().max() > 20 for group in self.param_groups for p in group["params"]):
                raise RuntimeError("too far")

    path = paths_at(VALLEY.formula, (-5, -2), Limited, torch.zeros(30, 2), [0.1, 0.9])
    assert path[:, 0].isfinite().all()
    expected = plain_path(partial(torch.optim.SGD, lr=0.9), 2)  # the third step fails: |y| = 35
    torch.testing.assert_close(path[:3, 1], expected)
    assert path[3:, 1].isnan().all()
    it = {"it": Spec("it", "it", Limited, {})}
    runs = descents_at_each_lr(VALLEY, it, VALLEY.start, torch.zeros(30, 2), SEED, [0.1, 0.9])
    assert (runs[0.1]["it"].steps, runs[0.9]["it"].steps) == (30, 3)


def test_what_is_no_spec_takes_every_rate():
    it, noise = {"it": torch.optim.SGD}, torch.zeros(3, 2)
    for lr, runs in descents_at_each_lr(VALLEY, it, VALLEY.start, noise, SEED, [0.1, 0.3]).items():
        expected = plain_path(partial(torch.optim.SGD, lr=lr), 3)
        torch.testing.assert_close(runs["it"].path, expected)


def test_a_rate_that_is_in_no_group_is_taken_one_by_one():
    class KeepsIt(torch.optim.SGD):
        def __init__(self, params, lr=0.1):
            super().__init__(params, lr)
            self.lr = lr

        def step(self, closure):
            closure()
            for group in self.param_groups:
                for param in group["params"]:
                    param.data -= self.lr * param.grad

    paths = paths_at(VALLEY.formula, VALLEY.start, KeepsIt, torch.zeros(3, 2), [0.1, 0.3])
    for k, lr in enumerate((0.1, 0.3)):
        torch.testing.assert_close(paths[:, k], plain_path(partial(torch.optim.SGD, lr=lr), 3))


# ---------------------------------------------------------------- tuning


def test_tuning_finds_the_best_rate_of_gradient_descent_on_the_valley():
    # The slowest of the contractions |1 - lr·0.2| and |1 - lr·4| is fastest at lr = 2/4.2.
    lr = best_lr(VALLEY, VALLEY.start, optimizers.SGD, torch.zeros(200, 2))
    assert lr == min(LRS, key=lambda lr: max(abs(1 - 0.2 * lr), abs(1 - 4 * lr)))


def test_tuning_an_optimizer_that_takes_one_group_only(monkeypatch):
    monkeypatch.setattr(descent, "LRS", [1e-4, 0.1, 1.0])
    lr = best_lr(VALLEY, VALLEY.start, torch.optim.LBFGS, torch.zeros(5, 2))
    assert lr == 1.0


def test_a_rate_that_goes_to_minus_infinity_is_not_the_best():
    ((_, run),) = compare(SURFACES["saddle"], {"a": optimizers.SGD}, tune=["a"], steps=800)
    assert run.diverged_at is None


def test_tuning_prefers_paths_that_stay_in_the_window():
    surface = SURFACES["rosenbrock"]
    for maker in (optimizers.Adam, optimizers.RMSprop):
        ((_, run),) = compare(surface, {"a": maker}, tune=["a"])
        assert left_at(run.path, surface.window) is None
        assert run.losses[-1] < run.losses[0]


@pytest.mark.parametrize("side", [1, -1])
def test_a_rate_that_leaves_the_window_is_not_the_best(side, monkeypatch):
    # At 0.45 each step multiplies y by 1 - 0.45·4 = -0.8: down at once, but over to the other side.
    monkeypatch.setattr(descent, "LRS", [0.01, 0.45])
    window = (-3, 1) if side == 1 else (-1, 3)

    def best_in(window):
        surface = SURFACES["bowl"]._replace(window=((-6, 3), window))
        return best_lr(surface, (-5.0, -2.0 * side), optimizers.SGD, torch.zeros(10, 2))

    assert best_in(window) == 0.01
    assert best_in((-3, 3)) == 0.45


@pytest.mark.parametrize("side", [1, -1])
def test_the_edge_of_the_window_is_in_it(side, monkeypatch):
    # At 0.25 the first step goes to 0 and stays there: the gradient is 4x.
    monkeypatch.setattr(descent, "LRS", [0.01, 0.25])
    edges = tuple(sorted((6.0 * side, 0.0)))
    for window in ((edges, (-1, 1)), ((-1, 1), edges)):
        start = (5.0 * side, 0.0) if window[0] == edges else (0.0, 5.0 * side)
        surface = SURFACES["bowl"]._replace(formula=lambda p: 2 * (p**2).sum(-1), window=window)
        assert best_lr(surface, start, optimizers.SGD, torch.zeros(10, 2)) == 0.25
        assert left_at(torch.tensor([start, (0.0, 0.0)]), window) is None


def test_of_rates_that_all_go_wrong_the_best_is_one_that_stays_finite(monkeypatch):
    for lrs in ([1e300, 10.0, 1e200], [10.0, 1e300]):
        monkeypatch.setattr(descent, "LRS", lrs)
        assert best_lr(VALLEY, VALLEY.start, optimizers.SGD, torch.zeros(4, 2)) == 10


# ---------------------------------------------------------------- the window


def test_a_start_outside_the_window_widens_it():
    window = window_around(VALLEY, (10.0, 0.0))
    assert window[0][0] == VALLEY.window[0][0]
    assert window[0][1] == pytest.approx(10 + 0.1 * 8.5)  # a tenth of the width
    assert window[1] == VALLEY.window[1]
    below = window_around(VALLEY, (0.0, -7.0))
    assert below[1] == (pytest.approx(-7 - 0.1 * 5), VALLEY.window[1][1])
    assert below[0] == VALLEY.window[0]


def test_a_descent_ends_where_all_have_diverged():
    draws = torch.zeros(50, 2, dtype=torch.float64)
    steps = list(descend(VALLEY.formula, VALLEY.start, sgd(lr=1e200), draws))
    assert len(steps) < 5
    assert not steps[-1][0].isfinite().all()


def test_who_draws_random_numbers_goes_the_same_way_whoever_went_before():
    class Noisy(torch.optim.SGD):
        def step(self, closure):
            loss = closure()
            for param in self.param_groups[0]["params"]:
                param.data.add_(torch.randn(param.shape, dtype=param.dtype))
            return loss

    draws = torch.zeros(5, 2, dtype=torch.float64)
    both = {"first": Noisy, "second": Noisy}
    runs = descents_at_each_lr(VALLEY, both, VALLEY.start, draws, seed=3, lrs=[0.1])[0.1]
    assert torch.equal(runs["first"].points, runs["second"].points)


def test_on_a_surface_each_step_is_an_epoch():
    (spec,) = parse_optimizers(["SGD(lr=0.1) + StepLR(step_size=1, gamma=0.5)"]).values()
    draws = torch.zeros(4, 2, dtype=torch.float64)
    expected = START.clone()
    for k, (points, _) in enumerate(descend(VALLEY.formula, VALLEY.start, spec, draws)):
        expected *= 1 - 0.1 * 0.5**k * CURVATURES
        torch.testing.assert_close(points[0], expected)
