"""Paths down surfaces: the script, and what it says of them."""

import csv
import math
import re

from lab.pictures import animations
from lab.training.descent import LRS, left_at

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import FAILS, STILL, assert_refused, exit_status
from PIL import Image

import compare_paths as script
import optimizers
from surfaces import SURFACES

VALLEY = SURFACES["valley"]


def sgd(**options):
    return lambda params: optimizers.SGD(params, **options)


def run_main(*words):
    return exit_status(script.main, ["--no-show", "--steps", "5", *words])


def test_the_default_makes_the_lesson_visible():
    runs = dict(script.compare(VALLEY))
    sgd_path = runs["SGD"].path
    assert (sgd_path[1:8, 1] * sgd_path[:7, 1] < 0).all()  # zigzag across
    assert runs["Momentum 0.5"].losses[-1] < 1e-3 * runs["SGD"].losses[-1]
    adagrad = runs["Adagrad"].path.diff(dim=0).norm(dim=1)
    assert (adagrad.diff() < 0).all()  # each step shorter than the last
    reached = {label: script.steps_to(VALLEY, run, 0.01) for label, run in runs.items()}
    assert reached["RMSprop"] < reached["SGD"] < reached["Adagrad"] == math.inf
    runs["Adagrad"].stop(KeyboardInterrupt(), 51)
    assert script.steps_to(VALLEY, runs["Adagrad"], 0.01) is None  # and not "never"
    assert runs["Adam"].path[:, 0].max() > 1  # momentum carries it past the minimum


def test_from_a_session_a_surface_without_a_rate_is_tuned():
    runs = dict(script.compare(SURFACES["beale"], steps=20))
    assert None not in {run.lr for run in runs.values()}
    assert {run.lr for run in dict(script.compare(VALLEY, steps=2)).values()} == {None}
    figure = script.draw(VALLEY, script.compare(VALLEY, steps=3))
    assert [line.get_label() for line in figure.axes[1].lines][1] == "Momentum 0.5"


# ---------------------------------------------------------------- what comes out


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
    assert re.search(rf"^Adam +{lr:.3g} ", out, re.MULTILINE)
    assert re.search("^mine +0.125 ", out, re.MULTILINE)
    assert "In full: Adam=optimizers.Adam(); mine=optimizers.SGD(lr=0.125)\n" in out
    labels = [line.get_label() for line in script.draw(VALLEY, runs).axes[1].lines]
    assert labels == [f"Adam, lr={lr:.3g}", "mine, lr=0.125"]


def test_the_target_is_a_height_above_the_minimum_wherever_that_lies():
    raised = VALLEY._replace(formula=lambda point: VALLEY.formula(point) + 5)
    steps = []
    for surface in (VALLEY, raised):
        ((_, run),) = script.compare(surface, {"SGD": sgd(lr=0.4)})
        steps.append(script.steps_to(surface, run, 0.01))
    assert steps == [34, 34]  # as docs/paths.md says


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
        x, y, loss, from_minimum, steps = line.rpartition("  (")[2].split()
        assert float(x.strip(",")) == pytest.approx(run.path[-1, 0].item(), abs=6e-5)
        assert float(y.strip(")")) == pytest.approx(run.path[-1, 1].item(), abs=6e-5)
        assert float(loss) == pytest.approx(run.losses[-1].item(), rel=6e-4)
        assert float(from_minimum) == pytest.approx(distance, rel=6e-4)
        assert steps == (str(below[0]) if below else "never")


def test_leaving_for_infinity_is_a_result_and_the_axes_stay(workdir, capsys):
    specs = ["wild=optimizers.SGD(lr=1e9)", "away=optimizers.SGD(lr=0.6)", "Adam"]
    assert run_main("--steps", "60", "--optimizers", *specs, "--csv", "a.csv") == 0
    out = capsys.readouterr().out
    runs = dict(script.compare(VALLEY, {"wild": sgd(lr=1e9), "away": sgd(lr=0.6)}, steps=60))
    assert f"diverged at step {runs['wild'].diverged_at}" in out
    outside = [abs(y) > 3 or y > 2 for y in runs["away"].path[:, 1].tolist()]
    assert f"left the window at step {outside.index(True)}" in out
    swings = {"back": sgd(lr=0.6, momentum=0.5)}  # out of the window, and home again
    assert left_at(dict(script.compare(VALLEY, swings))["back"].path, VALLEY.window) == 1
    assert run_main("--optimizers", "optimizers.SGD(lr=0.6, momentum=0.5)") == 0
    assert "left the window" not in capsys.readouterr().out
    figure = script.draw(VALLEY, runs)
    figure.canvas.draw()
    assert (figure.axes[0].get_xlim(), figure.axes[0].get_ylim()) == VALLEY.window
    assert "(diverged)" in figure.axes[1].lines[0].get_label()


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
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:5] == list(runs["bowl"])
    assert sorted(names[5:]) == ["end", "minimum", "saddle", "start"]


def test_an_optimizer_that_fails_half_way_is_a_row(workdir, capsys, homework):
    homework(FAILS)
    assert run_main("--optimizers", "homework.Fails(lr=0.1)", "Adam", "--csv", "a.csv") == 1
    assert "failed at step 3: RuntimeError: boom (homework.py, line 9)\n" in capsys.readouterr().out
    labels = [row.split(",")[0] for row in (workdir / "a.csv").read_text().splitlines()[1:]]
    assert labels.count("homework.Fails(lr=0.1)") == 3
    assert labels.count("Adam") == 6


def test_an_optimizer_that_fails_while_it_is_tuned_is_a_row(workdir, capsys, homework):
    homework(FAILS)
    assert run_main("--optimizers", "homework.Fails", "Adam", "--tune", "--csv", "a.csv") == 1
    assert "failed at step 3: RuntimeError: boom (homework.py, line 9)\n" in capsys.readouterr().out
    labels = [row.split(",")[0] for row in (workdir / "a.csv").read_text().splitlines()[1:]]
    assert (labels.count("homework.Fails"), labels.count("Adam")) == (3, 6)


def interrupt(items, total, unit):
    """A progress during which Ctrl-C comes, after two items."""
    for number, item in enumerate(items):
        if number == 2:
            raise KeyboardInterrupt
        yield item


def test_the_path_that_was_interrupted_is_the_last_one():
    runs = script.compare(VALLEY, steps=9, progress=lambda name: interrupt)
    label, run = next(runs)
    assert (label, run.steps) == ("SGD", 2)
    assert torch.equal(run.path, dict(script.compare(VALLEY, steps=9))["SGD"].path[:3])
    assert run.interrupted
    with pytest.raises(KeyboardInterrupt):
        next(runs)


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


def test_a_start_outside_the_window_is_taken(workdir):
    assert run_main("--start", "-7.5", "1e1") == 0


def test_a_step_that_moves_nothing_is_told(workdir, capsys, homework):
    homework(STILL)
    assert run_main("--optimizers", "homework.Still(lr=0.1)", "Adam") == 0
    assert capsys.readouterr().out.count("moved nothing") == 1


def test_a_surface_without_a_minimum(workdir, capsys):
    assert run_main("--surface", "saddle", "--steps", "40") == 0
    head = capsys.readouterr().out.splitlines()[1]
    assert head.split() == ["optimizer", "lr", "end", "loss"]  # no column that says nothing
    surface = SURFACES["saddle"]
    figure = script.draw(surface, dict(script.compare(surface)))
    assert figure.axes[1].get_yscale() == "linear"


# ---------------------------------------------------------------- animations


def test_the_gif_shows_the_race(workdir):
    assert run_main("--animate", "race.gif", "--steps", "8") == 0
    with Image.open(workdir / "race.gif") as animation:
        assert animation.n_frames >= 8
        first = animation.convert("RGB").tobytes()
        animation.seek(animation.n_frames - 1)
        assert animation.convert("RGB").tobytes() != first


def test_an_animation_opens_no_window_of_its_own(workdir):
    assert run_main("--animate", "race.gif", "--steps", "2") == 0
    assert len(plt.get_fignums()) == 1  # the still figure's


def test_the_page_is_self_contained(workdir):
    assert run_main("--animate", "race.html", "--steps", "4") == 0
    page = (workdir / "race.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert page.count("data:image/jpeg;base64,") >= 4
    for title in ("Play", "Pause"):
        assert f'title="{title}"' in page
    assert 'type="range"' in page
    assert "fa-pause::before" in page


def test_the_page_of_rates_has_a_frame_for_each(workdir):
    words = ["--optimizers", "SGD", "Adam", "--steps", "4", "--animate-rates"]
    assert run_main(*words, "rates.html") == 0
    page = (workdir / "rates.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == len(LRS) <= 100
    assert 'type="range"' in page


def test_an_mp4_without_ffmpeg_is_refused_in_one_line(workdir, capsys, monkeypatch):
    monkeypatch.setattr(
        animations.animation.FFMpegWriter, "isAvailable", classmethod(lambda cls: False)
    )
    assert run_main("--animate", "race.mp4") == 2
    err = capsys.readouterr().err
    assert "ffmpeg" in err
    assert err.count("\n") == 1
    assert list(workdir.iterdir()) == []


def test_an_interrupted_animation_leaves_the_figure_and_no_half_file(workdir, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(animations.GifWriter, "finish", interrupt)
    assert run_main("--animate", "race.gif", "--steps", "3") == 130
    assert [path.name for path in workdir.iterdir()] == ["compare_paths.png"]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--surface", "rosenbrok"], "did you mean rosenbrock"),
        (["--surface", "qqq"], "known: bowl, valley"),
        (["--start", "nan", "0"], "nan"),
        (["--start", "1", "inf"], "inf"),
        (["--start", "1"], "--start"),
        (["--surface", "rosenbrock", "--start", "1e200", "0"], "is not finite at"),
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
