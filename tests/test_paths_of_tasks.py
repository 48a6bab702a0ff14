"""compare_paths.py --task: what it draws, prints and saves, and what it refuses."""

import csv
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

from lab.command_line.specs import parse_optimizers
from lab.pictures import planes as pictures
from lab.pictures import style
from lab.pictures.looks import looks_of
from lab.training import planes
from lab.training.planes import landscape, survey

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import FAILS, SMALL, assert_refused, exit_status
from matplotlib.colors import to_hex

import compare_paths as script

SPECS = ["SGD(lr=0.1)", "RMSprop(lr=0.01)", "Adam(lr=0.05)"]
MINE = "from conftest import SMALL as mine\n"


@pytest.fixture(autouse=True)
def _few_nets(monkeypatch):
    monkeypatch.setattr(planes, "SIDE", 12)


@pytest.fixture(scope="module")
def scene():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "SIDE", 12)
        patch.setattr(planes, "LEAST_SIDE", 6)
        scene = landscape(dict(script.compare_on(SMALL, parse_optimizers(SPECS), 3)))
        list(survey(scene))
    return scene


def color_of(scene, label):
    return to_hex(looks_of(scene.paths)[label]["color"])


def lines_of(axes, color):
    return [line for line in axes.lines if to_hex(line.get_color()) == color]


def run_main(*words):
    return exit_status(script.main, ["--no-show", "--seed", "3", *words])


# ---------------------------------------------------------------- the figure


def test_a_path_is_drawn_whole_and_thinner_where_it_is_farther_from_the_plane(scene):
    plane = pictures.draw(scene).axes[0]
    farthest = max(path.distances.max() for path in scene.paths.values())
    for label, path in scene.paths.items():
        full = looks_of(scene.paths)[label]["linewidth"]
        pieces = {}  # (a point, the next one): how wide the line between them is
        for line in lines_of(plane, color_of(scene, label)):
            if line.get_marker() == "None":
                for one, two in pairwise(map(tuple, line.get_xydata().tolist())):
                    if one[0] == one[0] and two[0] == two[0]:  # no gap
                        pieces[one, two] = line.get_linewidth() / full
        feet = [tuple(foot) for foot in path.feet.tolist()]
        assert pieces.keys() == {*pairwise(feet)}
        for k, pair in enumerate(pairwise(feet)):
            away = max(path.distances[k], path.distances[k + 1]) / farthest
            wide = 1.4 if away <= 0.05 else 0.9 if away <= 0.35 else 0.55 if away <= 0.7 else 0.3
            assert pieces[pair] == pytest.approx(wide)
        drawn = [pieces[pair] for pair in pairwise(feet)]
        stretches = 1 + sum(one != two for one, two in pairwise(drawn))
        lines = [
            line for line in lines_of(plane, color_of(scene, label)) if len(line.get_xdata()) > 1
        ]
        gaps = sum(math.isnan(x) for line in lines for x in line.get_xdata())
        assert gaps == stretches  # or dashes would begin anew at each step
    names = [text.get_text() for text in plane.figure.legends[0].get_texts()]
    assert {"path in the plane", f"path {farthest:.2g} from it", "start"} <= {*names}


def test_an_end_is_full_only_where_it_is_in_the_plane(scene):
    plane = pictures.draw(scene).axes[0]
    for label, path in scene.paths.items():
        color = color_of(scene, label)
        (dot,) = (line for line in lines_of(plane, color) if line.get_marker() == "o")
        assert dot.get_xydata()[0].tolist() == path.feet[-1].tolist()
        is_corner = label in scene.through
        assert (dot.get_markerfacecolor() != "none") == is_corner
        assert dot.get_label() == style.once("end" if is_corner else "end, not in the plane")
    (start,) = (line for line in plane.lines if line.get_marker() == "s")
    assert start.get_xydata()[0].tolist() == [0, 0]
    assert start.get_markerfacecolor() != "none"
    over = [line.get_zorder() for line in plane.lines if line.get_marker() == "o"]
    under = [line.get_zorder() for line in plane.lines if line.get_marker() == "None"]
    assert max(under) < start.get_zorder() < min(over)


def test_a_start_beside_the_plane_is_hollow_and_a_part_is_drawn_as_it_is():
    scene = landscape(dict(script.compare_on(SMALL, parse_optimizers(SPECS), 3)), SPECS)
    figure = pictures.draw(scene)  # nothing has been computed
    assert len(figure.axes) == 3
    assert not figure.axes[0].collections
    (start,) = (line for line in figure.axes[0].lines if line.get_marker() == "s")
    assert start.get_markerfacecolor() == "none"
    one, other = (f"the end of {label}" for label in SPECS[:2])
    assert figure.axes[0].get_xlabel() == f"From {one} towards {other}"
    assert "nets" not in figure._supxlabel.get_text()


def test_each_number_is_drawn_against_steps(scene):
    _, losses, distances, wall = pictures.draw(scene).axes
    for label, path in scene.paths.items():
        color = color_of(scene, label)
        own, below = lines_of(losses, color)
        assert own.get_xdata().tolist() == path.steps
        assert own.get_ydata().tolist() == path.losses.tolist()
        assert below.get_ydata().tolist() == path.losses_below.tolist()
        assert below.get_linewidth() < own.get_linewidth()
        assert below.get_zorder() < own.get_zorder()
        (far,) = lines_of(distances, color)
        assert far.get_ydata().tolist() == path.distances.tolist()
    straight, matched = wall.lines
    assert straight.get_ydata().tolist() == scene.wall.straight.losses.tolist()
    assert matched.get_ydata().tolist() == scene.wall.matched.losses.tolist()
    assert straight.get_linestyle() != matched.get_linestyle()
    widths = {line.get_linewidth() for line in (straight, matched)}
    assert widths == {look["linewidth"] for look in looks_of(scene.paths).values()}
    assert wall.get_xlabel() == f"From the end of {SPECS[0]} to the end of {SPECS[2]}"


def test_lines_of_equal_loss_have_their_numbers_and_the_caption_names_all(scene):
    figure = pictures.draw(scene)
    (contours,) = (c for c in figure.axes[0].collections if hasattr(c, "levels"))
    low, high = scene.heights.min(), scene.heights.max()
    assert ((contours.levels > low.item()) & (contours.levels < high.item())).all()
    assert figure.axes[0].texts
    assert figure._supxlabel.get_text().replace("\n", " ") == (
        "seed 3, batch size 32, plane through the start, the end of SGD(lr=0.1) and the end of "
        "Adam(lr=0.05), 12 × 12 nets"
    )
    (left, right), (low, high) = scene.window
    assert figure.axes[0].get_xlim() == (left, right)
    assert figure.axes[0].get_ylim() == (low, high)


@pytest.mark.parametrize(
    ("low", "high", "is_log"), [(1.0, 9.0, False), (2.0, 30.0, True), (-1.0, 99.0, False)]
)
def test_contours_are_at_equal_ratios_over_more_than_a_decade(low, high, is_log, scene):
    _, axes = plt.subplots()
    heights = torch.linspace(low, high, 144, dtype=torch.float64).reshape(12, 12)
    heights[3, 4] = torch.nan
    pictures.draw_heights(axes, replace(scene, heights=heights))
    (contours,) = (c for c in axes.collections if hasattr(c, "levels"))
    levels = torch.tensor(contours.levels)
    assert len(levels) == 12
    steps = levels.log().diff() if is_log else levels.diff()
    torch.testing.assert_close(steps, steps[:1].expand(11), rtol=1e-4, atol=1e-6)
    assert levels[0] > low
    assert 0.8 * high < levels[-1] < high


@pytest.mark.parametrize("ratio", [2.0, 50.0])
def test_losses_have_a_logarithmic_axis_over_more_than_a_decade(ratio):
    _, axes = plt.subplots()
    own = torch.tensor([ratio, 1.0, 2.0])
    path = SimpleNamespace(losses=own, losses_below=torch.tensor([1e9, torch.nan, 1.0]))
    axes.plot(own)
    pictures.limit_losses(axes, SimpleNamespace(calm={"SGD": path}))
    assert axes.get_yscale() == "log"  # the plane below has ten times as much
    assert axes.get_ylim() == pytest.approx((0.8, 12.5 * ratio))  # and what is above that is cut
    path.losses_below = None
    _, axes = plt.subplots()
    axes.plot(own)
    pictures.limit_losses(axes, SimpleNamespace(calm={"SGD": path}))
    assert axes.get_yscale() == ("linear" if ratio == 2 else "log")
    limits = (0, 1.05 * ratio) if ratio == 2 else (0.8, 1.25 * ratio)
    assert axes.get_ylim() == pytest.approx(limits)


def test_a_frame_shows_what_was_there_by_its_step(scene):
    animation = pictures.animate(scene)
    figure = animation._fig
    plane, losses, distances, _ = figure.axes
    for number in (0, 7, 24, 30):
        animation._func(number)
        step = min(number, 24)
        assert plane.get_title() == f"Step {step}"
        for label, path in scene.paths.items():
            color = color_of(scene, label)
            for axes, numbers in ((losses, path.losses), (distances, path.distances)):
                line = lines_of(axes, color)[0]
                assert line.get_ydata().tolist() == numbers[: step + 1].tolist()
                assert line.get_visible()
            drawn = [line for line in lines_of(plane, color) if line.get_marker() == "None"]
            rows = [row for line in drawn for row in line.get_xydata().tolist()]
            points = {(x, y) for x, y in rows if x == x}
            seen = {tuple(foot) for foot in path.feet[: step + 1].tolist()}
            assert points <= seen
            assert len(points) >= len(seen) - 1  # a first point alone is no piece
            (dot,) = (line for line in lines_of(plane, color) if line.get_marker() == "o")
            assert dot.get_xydata()[0].tolist() == path.feet[step].tolist()
            off = path.distances[step] > 1e-6
            assert (dot.get_markerfacecolor() == "none") == off
    animation._draw_was_started = True  # it is not to be shown


def test_what_diverges_leaves_the_axes_and_its_mark_comes_when_it_does():
    specs = ["away=SGD(lr=5)", *SPECS]
    scene = landscape(dict(script.compare_on(SMALL, parse_optimizers(specs), 3)))
    animation = pictures.animate(scene)
    _, losses, distances = animation._fig.axes
    calm = [scene.paths[label] for label in SPECS]
    assert losses.get_ylim()[1] <= 10.5 * max(path.losses.max() for path in calm)
    assert distances.get_ylim()[1] == pytest.approx(1.05 * max(p.distances.max() for p in calm))
    for axes, numbers in ((losses, "losses"), (distances, "distances")):
        top = axes.get_ylim()[1]
        (mark,) = (line for line in axes.lines if line.get_label() == style.once("off the axis"))
        outside = (getattr(scene.paths["away"], numbers) > top).tolist().index(True)
        for step in (outside - 1, outside):
            animation._func(step)
            assert len(mark.get_xdata()) == (step == outside)
    animation._draw_was_started = True  # it is not to be shown
    names = [text.get_text() for text in pictures.draw(scene).legends[0].get_texts()]
    assert "away, lr=5 (diverged)" in names or "away (diverged)" in names


# ---------------------------------------------------------------- the script


@pytest.mark.usefixtures("unrendered")
def test_the_table_the_sentences_and_the_csv(workdir, capsys, homework):
    homework(MINE)
    words = ["--task", "homework.mine", "--plane", "Adam(lr=0.05)", "RMSprop(lr=0.01)"]
    assert run_main(*words, "--optimizers", *SPECS, "--csv", "a.csv") == 0
    out = capsys.readouterr().out
    scene = landscape(runs := dict(script.compare_on(SMALL, parse_optimizers(SPECS), 3)), words[3:])
    list(survey(scene))
    flat = " ".join(out.split())
    assert out.splitlines()[0].split() == ["optimizer", "lr", "loss", "moved"]
    for label, run in runs.items():
        (row,) = re.findall(rf"^{re.escape(label)} +(\S+) +(\S+) +(\S+)$", out, re.MULTILINE)
        expected = [run.lr, run.losses[-1], run.moved]
        assert [float(cell) for cell in row] == pytest.approx(expected, rel=6e-4)
    assert "through the start, the end of Adam(lr=0.05) and the end of RMSprop(lr=0.01)." in flat
    far = [path.distances.max().item() for path in scene.paths.values()]
    told = re.search(r"paths from it: (.*?)\. ", flat)[1].split(", ")
    assert [float(cell.split()[-1]) for cell in told] == pytest.approx(far, rel=6e-3, abs=1e-9)
    sgd = scene.paths["SGD(lr=0.1)"]
    own, below = re.search(
        r"SGD\(lr=0.1\) is not where it is drawn: it ends at (\S+), "
        r"the plane below it has (\S+)\. ",
        flat,
    ).groups()
    assert float(own) == pytest.approx(sgd.losses[-1].item(), rel=6e-4)
    assert float(below) == pytest.approx(sgd.losses_below[-1].item(), rel=6e-4)
    before, after = (script.wall_in_words(line.losses) for line in scene.wall[:2])
    assert (
        "Straight from the end of Adam(lr=0.05) to the end of RMSprop(lr=0.01): "
        f"{before} ({after} once hidden units are matched)."
    ) in flat
    with Path("a.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == script.PLANE_HEADER
    told = [["" if cell is None else str(cell) for cell in row] for row in scene.rows()]
    assert rows == told
    assert out.splitlines()[-2:] == ["saved compare_paths.png", "saved a.csv"]


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(("words", "lr"), [([], script.LR), (["--lr", "0.25"], 0.25)])
def test_a_rate_is_that_of_all_without_one_of_their_own(words, lr, workdir, capsys, homework):
    homework(MINE)
    optimizers = ["--optimizers", "SGD", "mine=SGD(lr=0.125)", "--epochs", "1"]
    assert run_main("--task", "homework.mine", *optimizers, *words) == 0
    rows = re.findall(r"^(SGD|mine) +(\S+)", capsys.readouterr().out, re.MULTILINE)
    assert rows == [("SGD", f"{lr:g}"), ("mine", "0.125")]


def test_a_wall_in_words():
    losses = torch.zeros(51, dtype=torch.float64)
    assert script.wall_in_words(losses) == "no wall"
    losses[10] = 1.25
    assert script.wall_in_words(losses) == "a wall of 1.25 at 20% of the way"


def test_one_that_is_in_the_plane_is_where_it_is_drawn():
    scene = landscape(dict(script.compare_on(SMALL, parse_optimizers(SPECS[:2]), 3)))
    list(survey(scene))
    assert not any("is not where it is drawn" in line for line in script.conclusions(scene))


def test_the_paths_start_from_the_same_weights_as_in_every_script():
    runs = dict(script.compare_on(SMALL, parse_optimizers(SPECS), 5))
    first, *others = (run.seen[0] for run in runs.values())
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    assert [*dict(script.compare_on(SMALL, seed=5))] == [*script.OPTIMIZERS]


@pytest.mark.usefixtures("unrendered")
def test_what_cannot_be_matched_is_said_and_axes_turn(workdir, capsys, homework):
    homework(MINE)
    assert run_main("--task", "homework.mine", "--optimizers", *SPECS, "--rotate") == 0
    assert "(not matched: the net's hidden units cannot change places)" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.usefixtures("unrendered")
def test_one_that_fails_and_one_that_diverges_are_rows(workdir, capsys, homework):
    homework(MINE + FAILS)
    specs = ["homework.Fails(lr=0.1)", "away=SGD(lr=1e9)", "Adam(lr=0.05)"]
    assert run_main("--task", "homework.mine", "--optimizers", *specs, "--csv", "a.csv") == 1
    out = capsys.readouterr().out
    assert "failed at step 3: RuntimeError: boom (homework.py, line " in out
    assert re.search(r"^away +1e\+09 +diverged .*diverged at step \d", out, re.MULTILINE)
    assert "the end of homework.Fails(lr=0.1) and the end of Adam(lr=0.05)" in " ".join(out.split())
    assert "away is not where" not in out
    labels = [row.split(",")[0] for row in Path("a.csv").read_text().splitlines()[1:]]
    assert labels.count("Adam(lr=0.05)") == 25
    assert labels.count('"homework.Fails(lr=0.1)') + labels.count("homework.Fails(lr=0.1)") == 3


def test_a_page_has_a_frame_for_each_look_and_a_slider(workdir, homework, monkeypatch):
    homework(MINE)
    monkeypatch.setattr(planes, "LOOKS", 3)
    monkeypatch.setattr(pictures, "REST_FRAMES", 1)
    assert run_main("--task", "homework.mine", "--optimizers", *SPECS, "--animate", "a.html") == 0
    page = Path("a.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 3 + 1
    assert 'type="range"' in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("when", ["second optimizer", "plane", "straight line"])
def test_after_ctrl_c_there_is_what_had_finished(when, workdir, capsys, homework, monkeypatch):
    homework(MINE)

    def interrupt(items, total, unit="", name=""):
        for k, item in enumerate(items):
            if name == {"second optimizer": "RMSprop(lr=0.01)"}.get(when, when) and k == 5:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr("lab.output.report.show_progress", interrupt)
    assert run_main("--task", "homework.mine", "--optimizers", *SPECS, "--csv", "a.csv") == 130
    out, err = capsys.readouterr()
    assert err == "interrupted: what had finished is saved\n"
    rows = [row.rsplit(",", 6) for row in Path("a.csv").read_text().splitlines()[1:]]
    labels = [label for label, *_ in rows]
    assert len({*labels}) == (2 if when == "second optimizer" else 3)
    assert all((row[-1] != "") == (when == "straight line") for row in rows)
    assert "saved compare_paths.png" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "spiral"], "did you mean spirals"),
        (["--task", "homework.mine", "--noise", "1"], "--noise goes with a surface, not with"),
        (["--task", "homework.mine", "--surface", "bowl"], "--surface goes with a surface"),
        (["--task", "homework.mine", "--start", "1", "2"], "--start goes with"),
        (["--task", "homework.mine", "--steps", "9"], "--steps goes with"),
        (["--task", "homework.mine", "--tune"], "--tune goes with"),
        (["--task", "homework.mine", "--target", "1"], "--target goes with"),
        (["--task", "homework.mine", "--animate-rates", "a.gif"], "--animate-rates goes with"),
        (["--plane", "SGD", "Adam"], "--plane goes with --task, not with a surface"),
        (["--epochs", "3"], "--epochs goes with --task"),
        (["--batch-size", "3"], "--batch-size goes with --task"),
        (["--task", "homework.mine", "--plane", "SGD", "Adm"], "'Adm'; did you mean Adam"),
        (["--task", "homework.mine", "--plane", "SGD", "SGD"], "each once"),
        (["--task", "homework.mine", "--plane", "SGD", "Adam", "Adagrad", "RMSprop"], "or three"),
        (["--task", "homework.one"], "a plane needs two weights, and the net has one"),
        (["--task", "homework.mine", "--optimizers", "SparseAdam"], "SparseAdam"),
        (["--task", "homework.mine", "--animate", "a.avi"], "a.avi"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys, homework):
    homework(
        MINE + "from dataclasses import replace\nfrom torch import nn\n"
        "one = replace(mine, make_net=lambda: nn.Linear(1, 1, bias=False))\n"
    )
    assert_refused(script.main, ["--no-show", *words], message, workdir, capsys)


@pytest.mark.usefixtures("unrendered")
def test_weights_that_do_not_fit_are_refused(workdir, capsys, homework, monkeypatch):
    homework(MINE)
    n_weights = 6 + 6 + 6 + 1
    monkeypatch.setattr(script, "check_memory", lambda options, needed: seen.append(needed))
    seen = []
    assert run_main("--task", "homework.mine", "--optimizers", *SPECS, "--epochs", "1") == 0
    assert seen == [planes.LOOKS * 4 * n_weights * 3]
