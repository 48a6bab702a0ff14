"""Surfaces as people write them: descended, or to blame themselves."""

from lab.training.descent import vectorized

import matplotlib.pyplot as plt
import numpy
import pytest
import torch
from small_files import (
    SEED,
    assert_refused,
    assert_saved,
    path_in_csv,
    plain_descent,
    read_csv,
    run,
)

import compare_paths
from surfaces import SURFACES, Surface, valley


def two_numbers(x, y):
    return 0.1 * x**2 + 2 * y**2


def unpacks(point):
    x, y = point
    return 0.1 * x**2 + 2 * y**2


def by_numpy(point):
    return numpy.sin(point[..., 0]) + point[..., 1] ** 2


def in_parts(x, y):
    return x**2 if x > 0 else y**2


def a_constant(point):
    return 1.0


def logarithm(point):
    return point[..., 0].log() ** 2 + point[..., 1] ** 2


def raises(point):
    raise KeyError("mine")


def wrong_shape(point):
    return (point**2).sum()


def fails_in_its_window(x, y):
    if (x < -3).any():
        raise ArithmeticError("too low")
    return x**2 + y**2


def is_flat(x, y):
    return 0 * x + 3


def fails_far_out(x, y):
    if (x.abs() > 50).any():
        raise ArithmeticError("far out")
    return 50 * x**2 + y**2


def pole(x, y):
    return x**2 + y.abs().log()


@pytest.fixture
def surface(small_file, monkeypatch):
    def add(formula):
        ends = ((-4, 4), (-2, 2))
        mine = Surface(formula, ends, (3, 1), "mine", "mine", lr=0.1)
        monkeypatch.setitem(SURFACES, formula.__name__, mine)
        return run(compare_paths, "--surface", formula.__name__, "--steps", "9")

    return add


@pytest.mark.parametrize("formula", [two_numbers, unpacks])
def test_a_surface_of_two_numbers_is_descended(formula, surface):
    assert_saved(surface(formula))
    rows = read_csv()
    assert_saved(surface(valley))
    assert rows == read_csv()


@pytest.mark.parametrize(
    "formula",
    [by_numpy, in_parts, a_constant, raises, wrong_shape, fails_in_its_window, is_flat],
)
def test_a_surface_that_cannot_be_descended_is_itself_to_blame(formula, surface):
    assert_refused(surface(formula), formula.__name__, never=["--start", "SGD", "does not work"])


@pytest.mark.parametrize("formula", [3.0, min])
def test_what_is_no_formula_of_a_point_is_itself_to_blame(formula):
    with pytest.raises(ValueError, match="surface mine: its formula"):
        vectorized("mine", SURFACES["valley"]._replace(formula=formula))


def test_the_reason_is_that_of_the_way_in_which_it_is_written():
    def far(x, y):
        raise ArithmeticError("too far")

    for formula, reason in ((far, "ArithmeticError: too far"), (raises, "KeyError: 'mine'"),
                            (lambda *numbers: 1 / 0, "ZeroDivisionError"),
                            (lambda x, y, z: x, "missing 2 required")):  # fmt: skip
        with pytest.raises(ValueError, match=f"by torch's functions: .*{reason}"):
            vectorized("mine", SURFACES["valley"]._replace(formula=formula))


@pytest.mark.parametrize("formula", [logarithm, pole])
def test_a_surface_is_drawn_with_holes_where_it_is_undefined(formula, surface):
    assert_saved(surface(formula))
    assert plt.gcf().axes[0].collections


def test_a_path_ends_where_the_surface_fails(surface):
    end = surface(fails_far_out)
    assert_saved(end, 1)
    assert "failed at step 3: ArithmeticError: far out" in end.rows["SGD"]["note"]
    assert [row["loss"] for row in read_csv() if row["optimizer"] == "SGD"][-1] == "nan"


def test_a_kink_has_the_path_of_a_plain_loop(surface):
    def kink(point):
        return point.abs().sum(-1)

    assert_saved(surface(kink))
    expected = plain_descent(kink, (3.0, 1.0), lambda p: torch.optim.SGD(p, lr=0.1), 9)
    torch.testing.assert_close(path_in_csv("SGD"), expected)


@pytest.mark.filterwarnings("ignore")
def test_an_optimizer_that_needs_the_graph_of_the_gradient_has_it(small_file):
    import pytorch_optimizer

    label = "pytorch_optimizer.AdaHessian"
    assert_saved(run(compare_paths, "--optimizers", label, "--lr", "0.4", "--steps", "20"))
    start = SURFACES["valley"].start
    torch.manual_seed(SEED)  # it draws signs
    expected = plain_descent(
        valley, start, lambda p: pytorch_optimizer.AdaHessian(p, lr=0.4), 20, graph=True
    )
    torch.testing.assert_close(path_in_csv(label), expected, rtol=1e-6, atol=1e-9)
