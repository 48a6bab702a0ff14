"""The test functions: values, minima and slopes, by formulas written out anew."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surfaces import SURFACES

BEALE = {1: 1.5, 2: 2.25, 3: 2.625}
FORMULAS = {
    "bowl": lambda x, y: x**2 + 2 * y**2,
    "valley": lambda x, y: x**2 / 10 + 2 * y**2,
    "rosenbrock": lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
    "beale": lambda x, y: sum((c - x * (1 - y**k)) ** 2 for k, c in BEALE.items()),
    "himmelblau": lambda x, y: (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2,
    "rastrigin": lambda x, y: 20 + sum(t * t - 10 * math.cos(math.tau * t) for t in (x, y)),
    "saddle": lambda x, y: (x - y) * (x + y),
    "plateau": lambda x, y: 1 - math.exp(-(x * x + y * y) / 2),
}  # fmt: skip

each_surface = pytest.mark.parametrize("name", SURFACES)


def at(name, point):
    point = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    value = SURFACES[name].formula(point)
    (gradient,) = torch.autograd.grad(value, point)
    return value.item(), gradient


@each_surface
@given(x=st.floats(-5, 5), y=st.floats(-5, 5))
def test_values(name, x, y):
    point = torch.tensor([x, y], dtype=torch.float64)
    expected = pytest.approx(FORMULAS[name](x, y), rel=1e-9, abs=1e-9)
    assert SURFACES[name].formula(point).item() == expected


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
