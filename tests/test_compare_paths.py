"""Descents against closed forms, and what the script draws and says of them."""

import csv
import math
import re
from functools import partial

from lab.command_line.specs import Spec, parse_optimizers
from lab.pictures import animations, paths, style

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import FAILS, STILL, assert_refused, exit_status
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from PIL import Image

import compare_paths as script
import optimizers
from settings import SEED
from surfaces import SURFACES

VALLEY = SURFACES["valley"]
CURVATURES = torch.tensor([0.2, 4], dtype=torch.float64)
START = torch.tensor(VALLEY.start, dtype=torch.float64)


def sgd(**options):
    return lambda params: optimizers.SGD(params, **options)


def run_main(*words):
    return exit_status(script.main, ["--no-show", "--steps", "5", *words])


# ---------------------------------------------------------------- closed forms


@given(st.floats(0.01, 0.6))
def test_gradient_descent_contracts_each_coordinate_by_its_curvature(lr):
    ((_, run),) = script.compare(VALLEY, {"SGD": sgd(lr=lr)}, steps=20)
    steps = torch.arange(21, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(run.path, START * (1 - lr * CURVATURES) ** steps)
    torch.testing.assert_close(run.losses, (run.path**2 * CURVATURES / 2).sum(1))


@given(st.floats(0.01, 0.4), st.floats(0.1, 0.95))
def test_momentum_obeys_its_two_term_recurrence(lr, momentum):
    ((_, run),) = script.compare(VALLEY, {"M": sgd(lr=lr, momentum=momentum)}, steps=20)
    expected = [START, START - lr * CURVATURES * START]
    for _ in range(19):
        now, before = expected[-1], expected[-2]
        expected.append(now - lr * CURVATURES * now + momentum * (now - before))
    torch.testing.assert_close(run.path, torch.stack(expected))


@pytest.mark.parametrize("distance", [-0.1, -0.03, -0.01, 0.01, 0.03, 0.1])
def test_gradient_descent_on_the_valley_holds_up_to_two_over_the_largest_curvature(distance):
    ((_, run),) = script.compare(VALLEY, {"SGD": sgd(lr=2 / 4 + distance)}, steps=400)
    assert (run.losses[-1] < 1e-4 * run.losses[0]) == (distance < 0)
    assert (run.losses[-1] > 1e4 * run.losses[0]) == (distance > 0)


def test_at_exactly_the_limit_gradient_descent_goes_on_for_ever():
    ((_, run),) = script.compare(VALLEY, {"SGD": sgd(lr=0.5)}, steps=100)
    assert run.path[:, 1].abs().tolist() == [2.0] * 101


def test_with_noise_the_mean_path_on_a_quadratic_is_the_noiseless_one():
    def path(noise, seed=0):
        ((_, run),) = script.compare(
            VALLEY, {"M": sgd(lr=0.1, momentum=0.5)}, None, 10, noise, seed
        )
        return run.path

    paths = torch.stack([path(1.0, seed) for seed in range(400)])
    error = (paths.mean(0) - path(0.0)) / (paths.std(0) / math.sqrt(400)).clamp(min=1e-12)
    assert paths.std(0)[1:].min() > 0.05
    assert error.abs().max() < 4


def test_every_optimizer_meets_the_same_noise_in_any_company():
    makers = {"a": sgd(lr=0.1), "wild": sgd(lr=1e6), "b": sgd(lr=0.1)}
    runs = dict(script.compare(VALLEY, makers, noise=2.0, steps=40))
    assert torch.equal(runs["a"].path, runs["b"].path)
    ((_, alone),) = script.compare(VALLEY, {"b": sgd(lr=0.1)}, noise=2.0, steps=40)
    assert torch.equal(alone.path, runs["b"].path)
    # The first step is the gradient and the first draw, of standard deviation 2.
    draws = torch.randn(40, 2, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    torch.testing.assert_close(runs["a"].path[1], START - 0.1 * (CURVATURES * START + 2 * draws[0]))


# ---------------------------------------------------------------- tuning

NAMES = ["SGD", "Adagrad", "RMSprop", "Adam", "Adadelta", "Rprop", "NAdam"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("module", [optimizers, torch.optim], ids=["ours", "torch"])
def test_rates_that_descend_together_go_where_each_goes_alone(name, module):
    lrs = [0.001, 0.05, 0.3]
    draws = torch.randn(15, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    make, surface = getattr(module, name), SURFACES["rosenbrock"]
    descent = script.descend(surface.formula, surface.start, make, draws, lrs)
    together = torch.stack([points for points, _ in descent])
    for i, lr in enumerate(lrs):
        descent = script.descend(
            surface.formula, surface.start, lambda p, lr=lr: make(p, lr=lr), draws
        )
        alone = torch.cat([points for points, _ in descent])
        torch.testing.assert_close(together[: len(alone), i], alone, equal_nan=True)


def test_tuning_finds_the_best_rate_of_gradient_descent_on_the_valley():
    # The slowest of the contractions |1 - lr·0.2| and |1 - lr·4| is fastest at lr = 2/4.2.
    lr = script.best_lr(VALLEY, VALLEY.start, optimizers.SGD, torch.zeros(200, 2))
    assert lr == min(script.RATES, key=lambda lr: max(abs(1 - 0.2 * lr), abs(1 - 4 * lr)))


def test_tuning_an_optimizer_that_takes_one_group_only(monkeypatch):
    monkeypatch.setattr(script, "RATES", [1e-4, 0.1, 1.0])
    lr = script.best_lr(VALLEY, VALLEY.start, torch.optim.LBFGS, torch.zeros(5, 2))
    assert lr == 1.0


def test_a_tuned_rate_is_found_used_and_told_and_a_named_rate_stays(workdir, capsys):
    specs = ["Adam=optimizers.Adam", "mine=optimizers.SGD(lr=0.125)"]
    assert run_main("--tune", "--optimizers", *specs, "--csv", "a.csv") == 0
    out = capsys.readouterr().out
    makers = {"Adam": optimizers.Adam, "mine": sgd(lr=0.125)}
    runs = dict(script.compare(VALLEY, makers, steps=5, tune=["Adam"]))
    lr = runs["Adam"].lr
    assert lr not in (None, 1e-3)  # Adam's default
    assert runs["mine"].lr is None
    plain = {"Adam": lambda params: optimizers.Adam(params, lr=lr), "mine": sgd(lr=0.125)}
    for label, run in script.compare(VALLEY, plain, steps=5):
        assert torch.equal(runs[label].path, run.path)
    assert f"optimizers.Adam(lr={lr})\n" in out
    assert "optimizers.SGD(lr=0.125)" in out
    labels = [line.get_label() for line in script.draw(VALLEY, runs).axes[1].lines]
    assert labels == [f"Adam, lr={lr:g}", "mine"]


# ---------------------------------------------------------------- what comes out


def test_the_figure_shows_paths_ends_and_losses():
    runs = dict(script.compare(VALLEY))
    left, right = script.draw(VALLEY, runs).axes
    for i, (label, run) in enumerate(runs.items()):
        color = to_hex(style.COLORS[label])
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


def test_the_legend_names_each_path_with_its_rate():
    runs = dict(script.compare(VALLEY, {"a": sgd(lr=0.1), "b": sgd(lr=9.0)}, tune=["a"], steps=400))
    (legend,) = script.draw(VALLEY, runs).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [f"a, lr={runs['a'].lr:.3g}", "b (diverged)"]


def test_the_target_is_a_height_above_the_minimum_wherever_that_lies():
    raised = VALLEY._replace(formula=lambda point: VALLEY.formula(point) + 5)
    steps = []
    for surface in (VALLEY, raised):
        ((_, run),) = script.compare(surface, {"SGD": sgd(lr=0.4)})
        steps.append(script.table_row(surface, run, surface.window, 0.01)[3])
    assert steps[0] == steps[1] == "34"  # as docs/paths.md says


def test_a_gallery_of_several_has_two_rows():
    runs = {
        name: dict(script.compare(SURFACES[name], steps=2)) for name in ("bowl", "valley", "beale")
    }
    figure = script.draw_gallery(runs)
    grid = figure.axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (2, 2)
    assert [axes.get_title() for axes in figure.axes] == list(runs)


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


def test_the_default_makes_the_lesson_visible():
    runs = dict(script.compare(VALLEY))
    sgd_path = runs["SGD"].path
    assert (sgd_path[1:8, 1] * sgd_path[:7, 1] < 0).all()  # zigzag across
    assert runs["Momentum 0.5"].losses[-1] < 1e-3 * runs["SGD"].losses[-1]
    adagrad = runs["Adagrad"].path.diff(dim=0).norm(dim=1)
    assert (adagrad.diff() < 0).all()  # each step shorter than the last
    reached = {
        label: script.table_row(VALLEY, run, VALLEY.window, 0.01)[3] for label, run in runs.items()
    }
    assert int(reached["RMSprop"]) < int(reached["SGD"])
    assert reached["Adagrad"] == "-"
    assert runs["Adam"].path[:, 0].max() > 1  # momentum carries it past the minimum


def test_the_contours_of_a_valley_have_a_line_on_its_floor():
    for name, surface in SURFACES.items():
        _, (axes,) = style.new_figure()
        paths.draw_contours(axes, surface, surface.window)
        levels = axes.collections[0].levels
        x, y = (torch.linspace(low, high, 101) for low, high in surface.window)
        z = surface.formula(torch.cartesian_prod(x, y))
        share = ((z - z.min()) < levels[0]).float().mean()
        assert 0 < share < 0.15, name
        assert len(levels) in (11, 14)


def test_the_table_and_the_csv(workdir, capsys):
    assert run_main("--csv", "paths.csv", "--steps", "50") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[2:7]] == [
        "SGD",
        "Momentum",
        "Adagrad",
        "RMSprop",
        "Adam",
    ]
    with (workdir / "paths.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    for label, run in script.compare(VALLEY):
        mine = [row for row in rows if row["optimizer"] == label]
        assert [int(row["step"]) for row in mine] == list(range(51))
        assert [[float(row["x"]), float(row["y"])] for row in mine] == run.path.tolist()
        assert [float(row["loss"]) for row in mine] == run.losses.tolist()
        line = next(line for line in out if line.startswith(label))
        distance = run.path[-1].norm().item()
        below = [step for step, loss in enumerate(run.losses.tolist()) if loss < 0.01]
        assert f"  {distance:.2g}  " in line
        assert re.search(rf" {below[0] if below else '-'}  optimizers", line)


def test_leaving_for_infinity_is_a_result_and_the_axes_stay(workdir, capsys):
    specs = ["wild=optimizers.SGD(lr=1e9)", "away=optimizers.SGD(lr=0.6)", "Adam"]
    assert run_main("--steps", "60", "--optimizers", *specs, "--csv", "a.csv") == 0
    out = capsys.readouterr().out
    runs = dict(script.compare(VALLEY, {"wild": sgd(lr=1e9), "away": sgd(lr=0.6)}, steps=60))
    assert f"diverged at step {runs['wild'].diverged_at}" in out
    outside = [abs(y) > 3 or y > 2 for y in runs["away"].path[:, 1].tolist()]
    assert f"left the window at step {outside.index(True)}" in out
    figure = script.draw(VALLEY, runs)
    figure.canvas.draw()
    assert (figure.axes[0].get_xlim(), figure.axes[0].get_ylim()) == VALLEY.window
    assert "(diverged)" in figure.axes[1].lines[0].get_label()


def test_what_leaves_for_far_away_is_drawn_ten_windows_away():
    runs = dict(script.compare(VALLEY, {"away": sgd(lr=0.9)}, steps=40))
    assert runs["away"].path[:, 1].abs().max() > 1000
    left, right = script.draw(VALLEY, runs).axes
    drawn = torch.tensor(left.lines[1].get_ydata())
    (_, (low, high)) = VALLEY.window
    assert drawn.max() == pytest.approx(high + 10 * (high - low))
    assert drawn.min() == pytest.approx(low - 10 * (high - low))
    window = torch.tensor(VALLEY.window, dtype=torch.float64)
    top = VALLEY.formula(torch.cartesian_prod(*window)).max().item()
    assert max(right.lines[0].get_ydata()) == pytest.approx(10 * top)
    assert right.get_ylim() == (pytest.approx(1e-8 * top), pytest.approx(2 * top))


def test_a_saddle_is_marked_and_its_losses_drawn_as_they_are():
    surface = SURFACES["saddle"]
    runs = dict(script.compare(surface, {"SGD": sgd(lr=0.05)}, steps=10))
    left, right = script.draw(surface, runs).axes
    (mark,) = [line for line in left.lines if line.get_marker() == "X"]
    assert mark.get_xydata().tolist() == [[0, 0]]
    assert not any(line.get_marker() == "*" for line in left.lines)
    torch.testing.assert_close(torch.tensor(right.lines[0].get_ydata()), runs["SGD"].losses)
    assert right.get_ylim() == (-4, 4)  # x² - y² over the window
    assert not left.xaxis.get_gridlines()[0].get_visible()
    runs = dict(script.compare(surface, {"SGD": sgd(lr=0.3)}, steps=60))
    right = script.draw(surface, runs).axes[1]
    assert min(right.lines[0].get_ydata()) == -4 - 9 * 8  # ten windows below, out of sight


def test_a_rate_that_goes_to_minus_infinity_is_not_the_best():
    ((_, run),) = script.compare(SURFACES["saddle"], {"a": optimizers.SGD}, tune=["a"], steps=800)
    assert run.diverged_at is None


def test_a_movie_has_at_most_a_hundred_frames_and_a_rest():
    for steps, moving in ((9, 9), (250, 84)):
        movie = script.animate(VALLEY, dict(script.compare(VALLEY, steps=steps)))
        assert len(list(movie.new_frame_seq())) == moving + 12
        movie._draw_was_started = True  # it is not to be shown


def test_a_gallery_of_one_has_one_row():
    figure = script.draw_gallery({"bowl": dict(script.compare(SURFACES["bowl"], steps=2))})
    assert len(figure.axes) == 1
    assert figure.get_figheight() == 4.5


def test_the_gallery_has_a_panel_per_surface(workdir, capsys):
    assert run_main("--surface", "all", "--csv", "a.csv") == 0
    out = capsys.readouterr().out
    assert all(f"{name}: {surface.lesson}" in out for name, surface in SURFACES.items())
    header, *rows = (workdir / "a.csv").read_text().splitlines()
    assert header == "surface,optimizer,step,x,y,loss"
    assert len(rows) == len(SURFACES) * 5 * 6
    runs = {name: dict(script.compare(SURFACES[name], steps=3)) for name in SURFACES}
    figure = script.draw_gallery(runs)
    assert [axes.get_title() for axes in figure.axes] == list(SURFACES)
    assert all(axes.collections for axes in figure.axes)  # contours
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(runs["bowl"])


def test_tuning_prefers_paths_that_stay_in_the_window():
    surface = SURFACES["rosenbrock"]
    for maker in (optimizers.Adam, optimizers.RMSprop):
        ((_, run),) = script.compare(surface, {"a": maker}, tune=["a"])
        assert script.left_at(run.path, surface.window) is None
        assert run.losses[-1] < run.losses[0]


@pytest.mark.parametrize("side", [1, -1])
def test_a_rate_that_leaves_the_window_is_not_the_best(side, monkeypatch):
    # At 0.45 each step multiplies y by 1 - 0.45·4 = -0.8: down at once, but over to the other side.
    monkeypatch.setattr(script, "RATES", [0.01, 0.45])
    window = (-3, 1) if side == 1 else (-1, 3)

    def best_lr(window):
        surface = SURFACES["bowl"]._replace(window=((-6, 3), window))
        return script.best_lr(surface, (-5.0, -2.0 * side), optimizers.SGD, torch.zeros(10, 2))

    assert best_lr(window) == 0.01
    assert best_lr((-3, 3)) == 0.45


def test_of_rates_that_all_go_wrong_the_best_is_one_that_stays_finite(monkeypatch):
    for rates in ([1e300, 10.0, 1e200], [10.0, 1e300]):
        monkeypatch.setattr(script, "RATES", rates)
        assert script.best_lr(VALLEY, VALLEY.start, optimizers.SGD, torch.zeros(4, 2)) == 10


def test_from_a_session_a_surface_without_a_rate_is_tuned():
    runs = dict(script.compare(SURFACES["beale"], steps=20))
    assert None not in {run.lr for run in runs.values()}
    assert {run.lr for run in dict(script.compare(VALLEY, steps=2)).values()} == {None}
    figure = script.draw(VALLEY, script.compare(VALLEY, steps=3))
    assert [line.get_label() for line in figure.axes[1].lines][1] == "Momentum 0.5"


def test_an_optimizer_that_fails_half_way_is_a_row(workdir, capsys, homework):
    homework(FAILS)
    assert run_main("--optimizers", "homework.Fails(lr=0.1)", "Adam", "--csv", "a.csv") == 1
    assert "failed at step 3: RuntimeError: boom\n" in capsys.readouterr().out
    labels = [row.split(",")[0] for row in (workdir / "a.csv").read_text().splitlines()[1:]]
    assert labels.count("homework.Fails(lr=0.1)") == 3
    assert labels.count("Adam") == 6


def test_an_optimizer_that_fails_while_it_is_tuned_is_a_row(workdir, capsys, homework):
    homework(FAILS)
    assert run_main("--optimizers", "homework.Fails", "Adam", "--tune", "--csv", "a.csv") == 1
    assert "failed at step 3: RuntimeError: boom\n" in capsys.readouterr().out
    labels = [row.split(",")[0] for row in (workdir / "a.csv").read_text().splitlines()[1:]]
    assert (labels.count("homework.Fails"), labels.count("Adam")) == (3, 6)


@pytest.mark.parametrize("n_more", [0, 2])
def test_an_interrupted_gallery_shows_what_is_finished(n_more, workdir, capsys, monkeypatch):
    whole = script.compare

    def compare(surface, *args, **kwargs):
        for i, item in enumerate(whole(surface, *args, **kwargs)):
            if surface is SURFACES["rosenbrock"] and i == n_more:  # the third
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(script, "compare", compare)
    assert run_main("--surface", "all", "--csv", "a.csv", "--lr", "0.1") == 130
    rows = [row.split(",")[:2] for row in (workdir / "a.csv").read_text().splitlines()[1:]]
    assert len({tuple(row) for row in rows}) == 10 + n_more
    assert (workdir / "compare_paths.png").exists()


def test_a_step_that_moves_nothing_is_told(workdir, capsys, homework):
    homework(STILL)
    assert run_main("--optimizers", "homework.Still(lr=0.1)", "Adam") == 0
    assert capsys.readouterr().out.count("moved nothing") == 1


def test_a_start_outside_the_window_widens_it(workdir):
    window = script.window_around(VALLEY, (10.0, 0.0))
    assert window[0][0] == VALLEY.window[0][0]
    assert window[0][1] == pytest.approx(10 + 0.1 * 8.5)  # a tenth of the width
    assert window[1] == VALLEY.window[1]
    below = script.window_around(VALLEY, (0.0, -7.0))
    assert below[1] == (pytest.approx(-7 - 0.1 * 5), VALLEY.window[1][1])
    assert below[0] == VALLEY.window[0]
    assert run_main("--start", "-7.5", "1e1") == 0


def test_a_surface_without_a_minimum(workdir, capsys):
    assert run_main("--surface", "saddle", "--steps", "40") == 0
    assert " -                -  optimizers.SGD" in capsys.readouterr().out
    surface = SURFACES["saddle"]
    figure = script.draw(surface, dict(script.compare(surface)))
    assert figure.axes[1].get_yscale() == "linear"


# ---------------------------------------------------------------- animation


def test_the_gif_shows_the_race(workdir):
    assert run_main("--animate", "race.gif", "--steps", "8") == 0
    with Image.open(workdir / "race.gif") as movie:
        assert movie.n_frames >= 8
        first = movie.convert("RGB").tobytes()
        movie.seek(movie.n_frames - 1)
        assert movie.convert("RGB").tobytes() != first


def test_an_animation_opens_no_window_of_its_own(workdir):
    assert run_main("--animate", "race.gif", "--steps", "2") == 0
    assert len(plt.get_fignums()) == 1  # the still figure's


def test_each_frame_draws_the_paths_so_far():
    runs = dict(script.compare(VALLEY, steps=9))
    movie = script.animate(VALLEY, runs)
    numbers = list(movie.new_frame_seq())
    left = movie._fig.axes[0]
    movie._func(4)
    paths = [line for line in left.lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in paths] == [5] * 5
    assert torch.equal(torch.tensor(paths[0].get_xydata()), runs["SGD"].path[:5])
    ends = [line for line in left.lines if line.get_marker() == "o"]
    assert ends[0].get_xydata().tolist() == [runs["SGD"].path[4].tolist()]
    loss = movie._fig.axes[1].lines[0]
    assert loss.get_ydata().tolist() == runs["SGD"].losses[:5].tolist()
    movie._func(numbers[-1])
    assert len(paths[0].get_xdata()) == 10
    movie._draw_was_started = True  # it is not to be shown


def test_the_page_is_self_contained(workdir):
    assert run_main("--animate", "race.html", "--steps", "4") == 0
    page = (workdir / "race.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert page.count("data:image/jpeg;base64,") >= 4
    for title in ("Play", "Pause"):
        assert f'title="{title}"' in page
    assert 'type="range"' in page
    assert "fa-pause::before" in page


def test_an_mp4_without_ffmpeg_is_refused_in_one_line(workdir, capsys, monkeypatch):
    monkeypatch.setattr(
        animations.animation.FFMpegWriter, "isAvailable", classmethod(lambda cls: False)
    )
    assert run_main("--animate", "race.mp4") == 2
    err = capsys.readouterr().err
    assert "ffmpeg" in err
    assert err.count("\n") == 1
    assert list(workdir.iterdir()) == []


def test_an_interrupted_animation_leaves_the_figure_and_no_half_movie(workdir, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(animations.GifWriter, "finish", interrupt)
    assert run_main("--animate", "race.gif", "--steps", "3") == 130
    assert [path.name for path in workdir.iterdir()] == ["compare_paths.png"]


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
    runs = script.compare_rates(SURFACES["valley"], specs, steps=12, lrs=lrs)
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


def test_each_frame_of_the_rates_draws_all_at_one():
    specs = parse_optimizers(["SGD", "Adam", "homework=torch.optim.SGD(lr=0.2)"])
    runs = script.compare_rates(VALLEY, specs, steps=9, lrs=[1e-4, 0.2, 1e200])
    movie = script.animate_rates(VALLEY, runs)
    movie._draw_was_started = True  # it is not to be shown
    left, right = movie._fig.axes
    lines = [line for line in left.lines if line.get_marker() == "."]
    ends = [line for line in left.lines if line.get_marker() == "o"]
    for number, (lr, descents) in enumerate(runs.items()):
        movie._func(number)
        assert left.get_title() == f"lr = {lr:g}"
        for line, end, loss, run in zip(lines, ends, right.lines, descents.values(), strict=True):
            if lr < 1:
                assert torch.equal(torch.tensor(line.get_xydata()), run.path)
                assert loss.get_ydata().tolist() == run.losses.tolist()
                assert list(loss.get_xdata()) == list(range(10))
            assert end.get_xydata().tolist() == line.get_xydata()[-1:].tolist()
            assert torch.tensor(line.get_xydata()).abs().max() < 100
    assert movie.event_source.interval == 250
    assert len(list(movie.new_frame_seq())) == 3


def test_an_optimizer_that_fails_at_a_rate_ends_there():
    class Limited(torch.optim.SGD):
        def step(self, closure):
            super().step(closure)
            if any(p.abs().max() > 20 for group in self.param_groups for p in group["params"]):
                raise RuntimeError("too far")

    path = script.paths_at(VALLEY.formula, (-5, -2), Limited, torch.zeros(30, 2), [0.1, 0.9])
    assert path[:, 0].isfinite().all()
    expected = plain_path(partial(torch.optim.SGD, lr=0.9), 2)  # the third step fails: |y| = 35
    torch.testing.assert_close(path[:3, 1], expected)
    assert path[3:, 1].isnan().all()
    run = script.compare_rates(VALLEY, {"it": Spec("it", "it", Limited, {}, ())}, lrs=[0.1, 0.9])
    assert (run[0.1]["it"].steps, run[0.9]["it"].steps) == (50, 3)


def test_the_page_of_rates_has_a_frame_for_each(workdir):
    words = ["--optimizers", "SGD", "Adam", "--steps", "4", "--animate-rates"]
    assert run_main(*words, "rates.html") == 0
    page = (workdir / "rates.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == len(script.RATES) <= 100
    assert 'type="range"' in page


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--surface", "rosenbrok"], "did you mean rosenbrock"),
        (["--surface", "qqq"], "known: bowl, valley"),
        (["--start", "nan", "0"], "nan"),
        (["--start", "1", "inf"], "inf"),
        (["--start", "1"], "--start"),
        (["--surface", "rosenbrock", "--start", "1e200", "0"], "is not finite around"),
        (["--steps", "0"], "--steps"),
        (["--noise", "-1"], "--noise"),
        (["--lr", "0"], "--lr"),
        (["--lr", "0.1", "--tune"], "--tune"),
        (["--target", "0"], "--target"),
        (["--surface", "all", "--start", "0", "0"], "--start"),
        (["--surface", "all", "--animate", "a.gif"], "--animate"),
        (["--surface", "all", "--animate-rates", "a.gif"], "--animate-rates"),
        (["--animate", "a.gif", "--animate-rates", "a.gif"], "same file"),
        (["--animate", "a.avi"], "a.avi"),
        (["--animate", "nowhere/a.gif"], "nowhere"),
        (["--animate", "a.gif", "--csv", "./a.gif"], "same file"),
        (["--optimizers", "optimizers.Adamm"], "did you mean Adam"),
        (["--optimizers", "optimizers.Adam(betas=(1, 1))"], "Invalid betas"),
        (["--optimizers", "SparseAdam"], "SparseAdam"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys):
    assert_refused(script.main, ["--no-show", "--steps", "5", *words], message, workdir, capsys)
