"""The test functions: known values, slopes and minima."""

import math

import pytest
import torch

from surfaces import SURFACES

# Known values, as the literature has them, and slopes along x and y; or else worked by hand.
VALUES = {
    "bowl": ((1, 1), 3, (2, 4)),
    "valley": ((10, 1), 12, (2, 4)),  # twenty times steeper across
    "rosenbrock": ((-1.2, 1), 24.2, (-215.6, -88)),  # Moré, Garbow and Hillstrom, ACM TOMS 7, 1981
    "beale": ((0, 0), 14.203125, (-12.75, 0)),
    "himmelblau": ((0, 0), 170, (-14, -22)),
    "rastrigin": ((0.5, 1), 21.25, (1, 2)),
    "saddle": ((2, 1), 3, (4, -2)),
    "plateau": ((1, 1), 1 - 1 / math.e, (1 / math.e, 1 / math.e)),
}

each_surface = pytest.mark.parametrize("name", SURFACES)


def at(name, point):
    point = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    value = SURFACES[name].formula(point)
    (gradient,) = torch.autograd.grad(value, point)
    return value.item(), gradient


@each_surface
def test_known_values_and_slopes(name):
    point, expected, slopes = VALUES[name]
    value, gradient = at(name, point)
    assert value == pytest.approx(expected)
    assert gradient.tolist() == pytest.approx(slopes)


@each_surface
def test_any_batch_shape(name):
    points = torch.randn(3, 4, 2)
    values = SURFACES[name].formula(points)
    assert values.shape == (3, 4)
    torch.testing.assert_close(values[1, 2], SURFACES[name].formula(points[1, 2]))


@each_surface
def test_minima_are_flat_lowest_and_in_the_window(name):
    surface = SURFACES[name]
    for minimum in surface.minima:
        value, gradient = at(name, minimum)
        assert value == pytest.approx(0, abs=1e-12)
        assert gradient.abs().max() < 1e-5
        assert all(low < x < high for x, (low, high) in zip(minimum, surface.window, strict=True))
        around = torch.tensor(minimum) + 0.01 * torch.randn(200, 2)
        assert (surface.formula(around) > 0).all()
    x, y = (torch.linspace(low, high, 300) for low, high in surface.window)
    everywhere = surface.formula(torch.cartesian_prod(x, y))
    assert not surface.minima or everywhere.min() >= -1e-5


@each_surface
def test_a_saddle_is_flat_and_goes_up_and_down(name):
    if saddle := SURFACES[name].saddle:
        value, gradient = at(name, saddle)
        assert gradient.abs().max() == 0
        around = SURFACES[name].formula(torch.randn(200, 2) + torch.tensor(saddle))
        assert around.min() < value < around.max()
    assert bool(saddle) != bool(SURFACES[name].minima)


@each_surface
def test_the_start_is_in_the_window_and_not_flat(name):
    surface = SURFACES[name]
    assert all(low < x < high for x, (low, high) in zip(surface.start, surface.window, strict=True))
    assert at(name, surface.start)[1].norm() > 1e-3
    assert surface.lesson.endswith(".")
    assert surface.source


def test_himmelblau_has_four_different_minima():
    assert len({tuple(map(round, point)) for point in SURFACES["himmelblau"].minima}) == 4
