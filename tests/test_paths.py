"""What is drawn of paths: still, and step by step."""

from lab.command_line.specs import parse_optimizers
from lab.pictures import paths, style
from lab.pictures.looks import looks_of
from lab.training.descent import Descent, descents_at_each_lr

import pytest
import torch
from matplotlib.colors import to_hex

import optimizers
from compare_paths import compare
from settings import SEED
from surfaces import SURFACES

VALLEY = SURFACES["valley"]


def sgd(**options):
    return lambda params: optimizers.SGD(params, **options)


def test_the_figure_shows_paths_ends_and_losses():
    runs = dict(compare(VALLEY))
    left, right = paths.draw(VALLEY, runs).axes
    for i, (label, run) in enumerate(runs.items()):
        color = to_hex(looks_of(runs)[label]["color"])
        path = next(line for line in left.lines if len(line.get_xdata()) == 51
                    and to_hex(line.get_color()) == color)  # fmt: skip
        assert torch.equal(torch.tensor(path.get_xydata()), run.path)
        end = next(line for line in left.lines if line.get_marker() == "o"
                   and to_hex(line.get_color()) == color)  # fmt: skip
        assert list(end.get_xydata()[0]) == run.path[-1].tolist()
        assert right.lines[i].get_label() == label
        torch.testing.assert_close(torch.tensor(right.lines[i].get_ydata()), run.losses)
    marked = {line.get_marker(): list(line.get_xydata()[0]) for line in left.lines}
    assert marked["*"] == [0, 0]
    assert marked["s"] == [-5, -2]
    assert (left.get_xlim(), left.get_ylim()) == VALLEY.window
    assert right.get_yscale() == "log"


def test_dots_on_one_another_are_rings():
    ends = [(0, 0), (0.01, 0), (0, 0), (1, 1)]
    start = VALLEY.start
    runs = {
        label: Descent(VALLEY.formula, torch.tensor([start, end]).double(), steps=1)
        for label, end in zip("abcd", ends, strict=True)
    }
    axes = paths.draw(VALLEY, runs).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [dot.get_markersize() for dot in dots] == [16, 12, 8, 8]
    assert [dot.get_label() == style.once("end") for dot in dots] == [False, False, True, True]


def test_the_legend_names_each_path_with_its_rate():
    runs = dict(compare(VALLEY, {"a": sgd(lr=0.1), "b": sgd(lr=9.0)}, tune=["a"], steps=400))
    (legend,) = paths.draw(VALLEY, runs).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:2] == [f"a, lr={runs['a'].lr:.3g}", "b, lr=9 (diverged)"]
    figure = paths.draw(VALLEY, {"a": runs["a"]})
    assert figure.legends[0].get_texts()[0].get_text() == "a"
    assert figure._supxlabel.get_text() == f"valley, 400 steps, lr {runs['a'].lr:.3g}"


def test_contours_are_even_or_where_the_floor_is_flat_at_equal_ratios():
    def levels(name):
        _, axes = style.new_figure()
        paths.draw_contours(axes[0], SURFACES[name], SURFACES[name].window)
        return torch.tensor(axes[0].collections[0].levels)

    rastrigin, rosenbrock = levels("rastrigin"), levels("rosenbrock")
    steps = rastrigin.diff()
    torch.testing.assert_close(steps, steps[:1].expand(len(steps)), rtol=1e-4, atol=0)
    ratios = rosenbrock[1:] / rosenbrock[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(len(ratios)), rtol=1e-3, atol=0)


def test_the_contours_of_a_valley_have_a_line_on_its_floor():
    for name, surface in SURFACES.items():
        _, (axes,) = style.new_figure()
        paths.draw_contours(axes, surface, surface.window)
        levels = axes.collections[0].levels
        x, y = (torch.linspace(low, high, 101) for low, high in surface.window)
        z = surface.formula(torch.cartesian_prod(x, y))
        share = ((z - z.min()) < levels[0]).float().mean()
        assert 0 < share < 0.15, name


def test_what_leaves_is_drawn_a_window_far_and_no_more_while_it_is_out_there():
    runs = dict(compare(VALLEY, {"away": sgd(lr=0.9)}, steps=40))
    path = runs["away"].path
    assert path[:, 1].abs().max() > 1000
    left, right = paths.draw(VALLEY, runs).axes
    drawn = torch.tensor(left.lines[1].get_xydata())
    (_, (low, high)) = VALLEY.window
    size = high - low
    far = (path[:, 1] > high + size) | (path[:, 1] < low - size)
    first = int(far.int().argmax())
    assert torch.equal(drawn[:first], path[:first])
    assert drawn[first, 1] in (low - size, high + size)
    assert drawn[first + 1 :].isnan().all()  # or it would cover the window
    dot = left.lines[2]
    assert dot.get_markerfacecolor() == "none"
    assert dot.get_ydata()[0] in (low, high)  # at the edge
    window = torch.tensor(VALLEY.window, dtype=torch.float64)
    top = VALLEY.formula(torch.cartesian_prod(*window)).max().item()
    assert max(right.lines[0].get_ydata()) == pytest.approx(10 * top)
    assert right.get_ylim() == (
        pytest.approx(0.5 * min(runs["away"].losses)),
        pytest.approx(2 * top),
    )
    (mark,) = [line for line in right.lines if line.get_marker() == "^"]
    assert runs["away"].losses[int(mark.get_xdata()[0])] > 2 * top


def test_a_saddle_is_marked_and_its_losses_drawn_as_they_are():
    surface = SURFACES["saddle"]
    runs = dict(compare(surface, {"SGD": sgd(lr=0.05)}, steps=10))
    left, right = paths.draw(surface, runs).axes
    (mark,) = [line for line in left.lines if line.get_marker() == "X"]
    assert mark.get_xydata().tolist() == [[0, 0]]
    assert not any(line.get_marker() == "*" for line in left.lines)
    torch.testing.assert_close(torch.tensor(right.lines[0].get_ydata()), runs["SGD"].losses)
    assert right.get_ylim() == (-4, 4)  # x² - y² over the window
    assert not left.xaxis.get_gridlines()[0].get_visible()
    runs = dict(compare(surface, {"SGD": sgd(lr=0.3)}, steps=60))
    right = paths.draw(surface, runs).axes[1]
    assert min(right.lines[0].get_ydata()) == -4 - 9 * 8  # ten windows below, out of sight


@pytest.mark.parametrize(
    ("names", "shape"), [(["bowl"], (1, 1)), (["bowl", "valley", "beale"], (2, 2))]
)
def test_a_gallery_of_several_has_two_rows(names, shape):
    figure = paths.draw_gallery({name: dict(compare(SURFACES[name], steps=2)) for name in names})
    grid = figure.axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == shape
    assert [axes.get_title() for axes in figure.axes] == names


# ---------------------------------------------------------------- animations


def test_an_animation_has_at_most_a_hundred_frames_and_a_rest():
    for steps, moving in ((9, 9), (250, 84)):
        animation = paths.animate(VALLEY, dict(compare(VALLEY, steps=steps)))
        assert len(list(animation.new_frame_seq())) == moving + 12
        animation._draw_was_started = True  # it is not to be shown


def test_each_frame_of_the_race_draws_the_paths_so_far():
    runs = dict(compare(VALLEY, steps=9))
    animation = paths.animate(VALLEY, runs)
    numbers = list(animation.new_frame_seq())
    left = animation._fig.axes[0]
    animation._func(4)
    lines = [line for line in left.lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in lines] == [5] * 5
    assert torch.equal(torch.tensor(lines[0].get_xydata()), runs["SGD"].path[:5])
    ends = [line for line in left.lines if line.get_marker() == "o"]
    assert ends[0].get_xydata().tolist() == [runs["SGD"].path[4].tolist()]
    loss = animation._fig.axes[1].lines[0]
    assert loss.get_ydata().tolist() == runs["SGD"].losses[:5].tolist()
    animation._func(numbers[-1])
    assert len(lines[0].get_xdata()) == 10
    animation._draw_was_started = True  # it is not to be shown


def test_a_mark_at_the_edge_comes_when_the_race_is_there():
    animation = paths.animate(VALLEY, dict(compare(VALLEY, steps=50)))
    animation._draw_was_started = True  # it is not to be shown
    marks = [line for line in animation._fig.axes[1].lines if line.get_marker() == "v"]
    steps = [int(mark.get_xdata()[0]) for mark in marks]
    assert steps == sorted(steps, reverse=True) == [35, 24]
    for frame, seen in ((23, [False, False]), (24, [False, True]), (35, [True, True])):
        animation._func(frame)
        assert [mark.get_visible() for mark in marks] == seen


def test_each_frame_draws_all_at_one_rate():
    specs = parse_optimizers(["SGD", "Adam", "homework=torch.optim.SGD(lr=0.2)"])
    lrs = [1e-4, 0.2, 1e200]
    runs = descents_at_each_lr(VALLEY, specs, VALLEY.start, torch.zeros(9, 2), SEED, lrs)
    animation = paths.animate_lrs(VALLEY, runs)
    animation._draw_was_started = True  # it is not to be shown
    left, right = animation._fig.axes
    lines = [line for line in left.lines if line.get_marker() == "."]
    ends = [line for line in left.lines if line.get_marker() == "o"]
    for number, (lr, descents) in enumerate(runs.items()):
        animation._func(number)
        assert left.get_title() == f"lr = {lr:g}"
        for line, end, loss, run in zip(lines, ends, right.lines, descents.values(), strict=True):
            if lr < 1:
                assert torch.equal(torch.tensor(line.get_xydata()), run.path)
                assert end.get_xydata().tolist() == line.get_xydata()[-1:].tolist()
                assert loss.get_ydata().tolist() == run.losses.tolist()
                assert list(loss.get_xdata()) == list(range(10))
            assert torch.tensor(line.get_xydata()).nan_to_num().abs().max() < 100
    assert animation.event_source.interval == 250
    assert len(list(animation.new_frame_seq())) == 3
