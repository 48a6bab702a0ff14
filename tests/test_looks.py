"""How lines look: one colour and one dash for an optimizer, and never hue alone between two."""

from itertools import combinations

from lab.command_line.types import style_type
from lab.pictures import looks
from lab.pictures.looks import contrast, lightness, looks_of

import matplotlib.pyplot as plt
import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

import optimizers

FOUR = ["SGD", "Momentum", "RMSprop", "Adam"]
SHEETS = ["default", "dark", "ggplot", "dark_background", "Solarize_Light2", "slide", "paper"]


def test_an_optimizer_has_the_same_look_in_any_company():
    alone = looks_of(["Adam"])["Adam"]
    assert looks_of(["mine", "SGD", "Adam", "other"])["Adam"] == alone
    for label in ("Adam()", "torch.optim.Adam", "optimizers.Adam(betas=(0.9, 0.99))", "Adam 2"):
        assert looks_of([label, "SGD"])[label] == alone


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("SGD", "SGD"),
        ("SGD(lr=0.1)", "SGD"),
        ("torch.optim.SGD(lr=0.1) + StepLR(step_size=4)", "SGD"),
        ("Momentum 0.9", "Momentum"),
        ("动量", "动量"),
        ("homework.MySGD", "MySGD"),
        ("(?)", "(?)"),
    ],
)
def test_the_name_is_at_the_start_of_a_label(label, name):
    assert looks.name_of(label) == name


def test_variants_have_shades_of_one_colour_and_the_plain_name_has_its_own():
    found = looks_of(["Adam(lr=0.1)", "Adam", "Adam(lr=0.2)"])
    assert list(found) == ["Adam(lr=0.1)", "Adam", "Adam(lr=0.2)"]
    assert found["Adam"] == looks_of(["Adam"])["Adam"]
    own, *others = (numpy.array(found[label]["color"]) for label in ("Adam", *found) if label)
    for other in others[1:]:
        assert (other <= own).all()  # nearer to black, and of no other hue


def test_names_that_nobody_knows_have_colours_of_their_own():
    labels = ["Adam", *"abcdefgh", "SGD"]
    found = looks_of(labels)
    assert len({look["color"] for look in found.values()}) == 10
    assert list(found) == labels
    assert list(looks_of([*labels, "k", "l"])) == [*labels, "k", "l"]


@pytest.mark.parametrize("sheet", SHEETS)
def test_every_colour_is_seen_on_its_ground(sheet):
    with plt.style.context(style_type(sheet)):
        ground = looks.ground_color()
        for label, look in looks_of([*looks.NAMES, *"abcde", "Adam 1", "Adam 2"]).items():
            assert contrast(look["color"], ground) >= 3, label
        assert contrast(looks.caption_color(), ground) >= 3
        assert 1.1 < contrast(looks.background_color(), ground) < 3  # seen, and no more


@pytest.mark.parametrize("sheet", ["default", "dark"])
def test_adam_is_not_the_darkest_on_dark_and_rmsprop_is_no_grey(sheet):
    with plt.style.context(style_type(sheet)):
        found = looks_of(FOUR)
        red, green, blue = found["RMSprop"]["color"]
        assert max(red, green, blue) - min(red, green, blue) > 0.25
        light = {label: lightness(look["color"]) for label, look in found.items()}
        if sheet == "dark":
            assert light["Adam"] > min(light.values())


def assert_told_apart(found):
    for (a, one), (b, other) in combinations(found.items(), 2):
        has_own_dash = one["linestyle"] != other["linestyle"]
        differ = abs(lightness(one["color"]) - lightness(other["color"]))
        assert has_own_dash or differ > looks.SAME_LIGHTNESS, (a, b)


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(looks.NAMES),
            st.integers(0, 99).map("Adam(weight_decay={})".format),
            st.text("ab动量", min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=14,
        unique=True,
    ),
    st.sampled_from(["default", "paper", "slide", "ggplot"]),
)
def test_any_two_lines_differ_by_more_than_hue(labels, sheet):
    with plt.style.context(style_type(sheet)):
        assert_told_apart(looks_of(labels))


@pytest.mark.parametrize("sheet", ["dark", "dark_background", "grayscale"])
def test_eight_differ_by_their_dashes_alone(sheet):
    with plt.style.context(style_type(sheet)):
        assert_told_apart(looks_of(looks.NAMES[:8]))
        assert_told_apart(looks_of([f"Adam({k})" for k in range(8)]))


def test_the_first_eight_have_each_its_own_dash_in_any_company():
    dashes = {str(look["linestyle"]) for look in looks_of(looks.NAMES[:8]).values()}
    assert len(dashes) == 8
    for name in looks.NAMES[:8]:
        assert looks_of([name]) == {name: looks_of(looks.NAMES[:8])[name]}


def test_each_of_ours_has_a_look_and_the_youngest_eight_share_neither_colour_nor_dash():
    ours = [name for name in optimizers.__all__ if name != "UpdateRule"]
    assert set(ours) <= set(looks.NAMES)
    young = [name for name in ours if not hasattr(torch.optim, name)]
    found = looks_of([f"optimizers.{name}" for name in young])
    assert len({str(look["linestyle"]) for look in found.values()}) == len(young) == 8
    assert len({look["color"] for look in found.values()}) == 8


def test_the_style_sheet_sets_widths_and_colours():
    cycle = plt.cycler(color=["#00a200", "#990099"])
    with plt.style.context({"lines.linewidth": 3, "axes.prop_cycle": cycle}):
        found = looks_of(["SGD", "Momentum", "Adagrad"])
        assert [look["linewidth"] for look in found.values()] == [4, 4, 4]
        assert found["SGD"]["color"] == found["Adagrad"]["color"] == to_rgb("#00a200")
        assert found["Momentum"]["color"] == to_rgb("#990099")
        assert_told_apart(found)


def test_colours_of_ones_own_are_taken_as_they_are(monkeypatch):
    monkeypatch.setitem(looks.COLORS, "Adam", "yellow")
    monkeypatch.setitem(looks.COLORS, "SGD(lr=0.1)", "crimson")
    found = looks_of(["SGD", "SGD(lr=0.1)", "Adam", "Adam(lr=0.1)"])
    assert found["Adam"]["color"] == to_rgb("yellow")
    assert found["Adam(lr=0.1)"]["color"] == looks.mixed(to_rgb("yellow"), (0, 0, 0), 0.5)
    assert found["SGD(lr=0.1)"]["color"] == to_rgb("crimson")
    assert found["SGD"] == looks_of(["SGD"])["SGD"]


@pytest.mark.parametrize("n_classes", [1, 2, 3, 10])
def test_colours_of_classes_are_no_optimizers(n_classes):
    classes = looks.class_colors(n_classes)
    light = [lightness(color) for color in classes]
    assert light == sorted(light)  # told apart in grey
    assert len(set(classes)) == n_classes
    for color in classes if n_classes == 2 else ():
        for other in looks.PALETTE:
            assert numpy.linalg.norm(numpy.subtract(color, to_rgb(other))) > 0.2


def test_contrast_and_lightness_are_those_of_the_standards():
    black, white, grey = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), to_rgb("#777777")
    assert contrast(black, white) == contrast(white, black) == pytest.approx(21)
    assert contrast(grey, white) == pytest.approx(4.48, abs=0.005)  # WCAG's own example
    assert lightness(white) == pytest.approx(100)
    assert lightness(black) == 0
    assert lightness(to_rgb("#777777")) == pytest.approx(50.0, abs=0.1)
    assert lightness(to_rgb("red")) == pytest.approx(53.2, abs=0.1)
    assert lightness((0.01, 0.01, 0.01)) == pytest.approx(0.7, abs=0.01)
