"""The main script, end to end: fair, and all that it says true."""

import csv
import math
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path

from lab.command_line.specs import parse_optimizer
from lab.pictures import curves, style
from lab.pictures.looks import looks_of
from lab.training.runs import Runs, trainings_of

import pytest
import torch
from conftest import (
    FAILS,
    SMALL,
    STILL,
    SmallNet,
    assert_refused,
    exit_status,
    small_data,
    textbook_training,
)
from matplotlib.colors import to_hex
from torch.nn.functional import mse_loss

import compare_optimizers as script
import settings
from data import parabola
from models import Net
from tasks import TASKS

FAST = ["--no-show", "--epochs", "2", "--task", "parabola(samples=64)", "--batch-size", "32"]
PARABOLA = TASKS["parabola"]
SHORT = replace(PARABOLA, make_data=partial(parabola, samples=64), epochs=2, batch_size=32)


def run_main(*words):
    return exit_status(script.main, [*FAST, *words])


def read_csv(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- fair comparison


MAKERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.01),
    "Momentum": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.8),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=0.01, alpha=0.9),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.01, betas=(0.9, 0.99)),
}
LBFGS = {
    "LBFGS": lambda params: torch.optim.LBFGS(params, max_iter=3, line_search_fn="strong_wolfe")
}


@pytest.fixture(scope="module")
def four():
    return dict(script.compare(MAKERS))


@pytest.mark.parametrize("label", [*MAKERS, *LBFGS])
def test_the_textbooks_loop_gives_the_same_losses_bit_for_bit(label, four):
    expected, net = textbook_training(
        parabola(settings.SEED)[0],
        Net,
        (MAKERS | LBFGS)[label],
        PARABOLA.loss,
        settings.SEED,
        PARABOLA.epochs,
        PARABOLA.batch_size,
    )
    run = four[label] if label in four else dict(script.compare(LBFGS))[label]
    assert run.history(0) == expected
    (x, y), (held_out_x, held_out_y) = (data.tensors for data in parabola(settings.SEED))
    assert run.final_losses.tolist() == [PARABOLA.loss(net(x), y).item()]
    assert run.held_out_losses.tolist() == [PARABOLA.loss(net(held_out_x), held_out_y).item()]


def test_neither_order_nor_company_nor_divergence_changes_a_run(four):
    makers = {
        "Adam": MAKERS["Adam"],
        "wild": lambda params: torch.optim.SGD(params, lr=1e30),
        "random": lambda params: Noisy(params, lr=0.01),
        "SGD": MAKERS["SGD"],
    }
    runs = dict(script.compare(makers))
    assert runs["Adam"].history(0) == four["Adam"].history(0)
    assert runs["SGD"].history(0) == four["SGD"].history(0)
    assert runs["wild"].diverged_at()


class Noisy(torch.optim.SGD):
    """Draws from the global generator at every step."""

    def step(self, closure=None):
        torch.randn(3)
        return super().step(closure)


def test_every_optimizer_starts_at_the_same_loss(four):
    assert len({run.history(0)[0] for run in four.values()}) == 1
    assert len({run.history(0)[1] for run in four.values()}) > 1


def test_the_seed_changes_data_and_start():
    one, other = (dict(script.compare(MAKERS, SHORT, seeds=[seed])) for seed in (1, 2))
    assert one["SGD"].history(0)[0] != other["SGD"].history(0)[0]


def test_from_a_session_with_data_and_a_net_of_ones_own():
    runs = script.compare(MAKERS, replace(SMALL, epochs=2, batch_size=50), seeds=[4])
    figure = script.draw(runs)
    lines = curves.named_lines(figure.axes[0])
    assert [line.get_label() for line in lines] == list(MAKERS)
    for label, line in zip(MAKERS, raw_lines(figure.axes[0]), strict=True):
        losses, _ = textbook_training(small_data(4)[0], SmallNet, MAKERS[label], mse_loss, 4, 2, 50)
        assert list(line.get_ydata()) == losses


def test_the_same_command_gives_the_same_bytes(workdir):
    assert run_main("--csv", "one.csv") == 0
    torch.manual_seed(99)
    assert run_main("--csv", "two.csv") == 0
    assert (workdir / "one.csv").read_bytes() == (workdir / "two.csv").read_bytes()


# ---------------------------------------------------------------- what comes out


def test_the_table_the_figure_and_the_csv(workdir, capsys):
    assert run_main("--csv", "losses.csv") == 0
    out = capsys.readouterr().out.splitlines()
    assert " ".join(out[0].split()) == (
        f"optimizer loss held-out loss steps to {PARABOLA.target:g} seconds"
    )
    assert [line.split()[0] for line in out[1:5]] == list(settings.OPTIMIZERS)
    files = ["compare_optimizers.png", "losses.csv"]
    assert sorted(path.name for path in workdir.iterdir()) == files
    rows = read_csv("losses.csv")
    for row, (label, run) in zip(out[1:5], script.compare(task=SHORT), strict=True):
        assert parse_optimizer(label, settings.LR).call in " ".join(out[5:])
        told = [float(number) for number in row.split()[1:3]]
        assert told == pytest.approx(
            [run.final_losses.item(), run.held_out_losses.item()], rel=6e-4
        )
        mine = [row for row in rows if row["optimizer"] == label]
        assert [float(row["loss"]) for row in mine] == run.history(0)
        assert [int(row["step"]) for row in mine] == [1, 2, 3, 4]
        assert {row["seed"] for row in mine} == {str(settings.SEED)}


@pytest.mark.parametrize("seeds", ["1", "3"])
def test_of_classes_the_table_has_the_accuracy_too(seeds, workdir, capsys):
    words = ["--task", "spirals", "--epochs", "2", "--optimizers", "Adam", "--seeds", seeds]
    assert exit_status(script.main, ["--no-show", *words]) == 0
    head, row, *_ = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()).startswith("optimizer loss held-out loss accuracy")
    task = replace(TASKS["spirals"], epochs=2)
    seeds = range(settings.SEED, settings.SEED + int(seeds))
    ((_, run),) = script.compare({"Adam": parse_optimizer("Adam", settings.LR)}, task, seeds)
    accuracy = run.measured(run.trainings[0].metric(task)).median()
    assert f" {accuracy:.1%} " in f"{row} "


def test_steps_to_target_average_an_epoch(four):
    run = four["Adam"]
    losses, window = run.history(0), run.steps_per_epoch
    target = statistics.mean(losses[-window:]) * 1.5
    step = int(script.steps_to(run, target))
    assert statistics.mean(losses[step - window : step]) < target
    assert step == window or statistics.mean(losses[step - window - 1 : step - 1]) >= target
    assert script.steps_to(run, 1e-9).tolist() == [math.inf]
    cut_short = replace(run, losses=run.losses[:-1], error=KeyboardInterrupt())
    assert script.steps_to(cut_short, 1e-9) is None  # and not "never"
    assert int(script.steps_to(cut_short, 1e9)) == window


def raw_lines(axes):
    return [line for line in axes.lines if line.get_label() == style.once("each mini-batch")]


def test_the_figure_shows_every_loss_behind_its_mean_over_an_epoch(four):
    figure = script.draw(four)
    (axes,) = figure.axes
    every = zip(four.items(), raw_lines(axes), curves.named_lines(axes), strict=True)
    for (label, run), raw, mean in every:
        losses = run.history(0)
        assert list(raw.get_ydata()) == losses
        window = run.steps_per_epoch
        means = [statistics.mean(losses[max(0, k - window) : k]) for k in range(1, len(losses) + 1)]
        assert list(mean.get_ydata()) == pytest.approx(means)
        for line in (raw, mean):
            assert list(line.get_xdata()) == list(range(1, len(losses) + 1))
            assert to_hex(line.get_color()) == to_hex(looks_of(four)[label]["color"])
        assert raw.get_zorder() < mean.get_zorder()
        assert raw.get_alpha() < 1
        assert raw.get_linewidth() < mean.get_linewidth()
        assert mean.get_label() == label
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Steps", "Mini-batch loss")
    assert axes.get_ylim() == (0, 0.2)  # the tutorial's
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == [*four, "each mini-batch", "off the axis"]
    caption = "parabola, seed 81, batch size 32, lr 0.01, lines: means of 32 steps"
    assert figure._supxlabel.get_text() == caption


def test_how_many_steps_a_line_is_the_mean_of_can_be_chosen(four):
    (axes,) = script.draw(four, smooth=1).axes
    assert raw_lines(axes) == []
    for line, run in zip(curves.named_lines(axes), four.values(), strict=True):
        assert list(line.get_ydata()) == run.history(0)
    (axes,) = script.draw(four, smooth=5).axes
    mean = statistics.mean(four["SGD"].history(0)[95:100])
    assert curves.named_lines(axes)[0].get_ydata()[99] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("x", "length", "name"),
    [
        ("steps", lambda run: 1, "Steps"),
        ("epochs", lambda run: 1 / 32, "Epochs"),
        ("seconds", lambda run: run.seconds / 384, "Seconds of training a net"),
    ],
)
def test_losses_are_drawn_against_steps_epochs_or_seconds(x, length, name, four):
    (axes,) = script.draw(four, x=x).axes
    for line, run in zip(curves.named_lines(axes), four.values(), strict=True):
        expected = [length(run) * step for step in range(1, 385)]
        assert list(line.get_xdata()) == pytest.approx(expected)
    assert axes.get_xlabel() == name


def test_the_axis_of_losses_is_logarithmic_where_it_is_asked_for_before_or_after(four):
    (asked,) = script.draw(four, log=True).axes
    (later,) = script.draw(four).axes
    later.set_yscale("log")
    for axes in (asked, later):
        low, high = axes.get_ylim()
        for line in curves.named_lines(axes):
            y = line.get_ydata()
            assert axes.get_yscale() == "log"
            assert ((low <= y) & (y <= high)).mean() > 0.95
        assert high / low < 1e4


def test_losses_after_each_epoch_are_in_figure_and_csv(workdir):
    words = ["--held-out", "--seeds", "3", "--optimizers", "SGD", "Adam", "--csv", "a.csv"]
    assert run_main(*words) == 0
    seeds = range(settings.SEED, settings.SEED + 3)
    two = {label: MAKERS[label] for label in ("SGD", "Adam")}
    runs = dict(script.compare(two, SHORT, seeds, held_out=True))
    rows = read_csv("a.csv")
    assert list(rows[0]) == ["optimizer", "seed", "epoch", "loss", "held_out_loss"]
    assert len(rows) == 2 * 3 * 2
    for row in rows:
        k, epoch = int(row["seed"]) - settings.SEED, int(row["epoch"]) - 1
        epochs = runs[row["optimizer"]].epochs
        assert float(row["loss"]) == epochs.losses[epoch, k]
        assert float(row["held_out_loss"]) == epochs.held_out[epoch, k]
    (axes,) = script.draw(runs, x="epochs").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Epochs", "Held-out loss")
    thin = [line for line in axes.lines if line.get_label() == style.once("training set")]
    for line, other, run in zip(curves.named_lines(axes), thin, runs.values(), strict=True):
        assert list(line.get_xdata()) == list(other.get_xdata()) == [1, 2]
        assert list(line.get_ydata()) == run.epochs.held_out.median(1).values.tolist()
        assert list(other.get_ydata()) == run.epochs.losses.median(1).values.tolist()
        assert other.get_linewidth() < line.get_linewidth()
    plain = dict(script.compare(two, SHORT, seeds))
    assert torch.equal(plain["Adam"].losses, runs["Adam"].losses)  # nothing else changes


def made_up(*histories, final=0.5):
    losses = torch.tensor(histories, dtype=torch.float64).T
    finals = torch.tensor([final] * len(histories), dtype=torch.float64)
    every = trainings_of(SMALL, range(len(histories)))
    return Runs(SMALL, every, losses, finals, finals, {}, 2, None)


def test_the_loss_axis_is_the_tutorials_or_what_the_curves_need():
    def limits(*runs):
        axes = script.draw({str(i): run for i, run in enumerate(runs)}).axes[0]
        return axes.get_yscale(), *axes.get_ylim()

    assert limits(made_up([0.9, *[0.1] * 60])) == ("linear", 0, 0.2)  # nearly all of it is there
    scale, low, high = limits(made_up([0.9] * 9))
    assert scale == "linear"
    assert 0.8 < low < 0.9 < high < 1  # nothing is near zero
    scale, low, high = limits(made_up([2] * 9), made_up([0.5] * 9))
    assert (scale, low, high) == ("linear", 0, pytest.approx(2.075))
    scale, low, high = limits(made_up([9.0] * 9), made_up([0.5] * 9))
    assert scale == "log"  # more than a decade
    assert low < 0.5 < 9 < high
    wild = made_up([0.1, 5, math.inf], final=math.inf)
    assert limits(wild, made_up([0.1] * 9)) == ("linear", 0, 0.2)  # what diverges does not count,
    assert limits(wild) == ("linear", pytest.approx(0.095), pytest.approx(0.105))  # but its start
    seeds = made_up([0.1, 0.1, 2, 2], [0.1, 0.1, 3, 3], [0.1, 0.1, math.inf, math.nan])
    scale, low, high = limits(seeds)  # the median of all seeds
    assert high > 2
    scale, low, high = limits(made_up([0.1, 0.1]), made_up([1e-4, 1e-4]))
    assert scale == "log"  # or else the second would lie flat on the axis
    assert low < 1e-4 < 0.1 < high
    scale, low, high = limits(made_up([1.0, -1.0, -2.0]))
    assert scale == "linear"
    assert low < -1.5  # the mean of the last two
    assert high > 1


def test_a_diverging_run_is_a_result(workdir, capsys):
    specs = ["SGD(lr=1e30)", "Adam"]
    assert run_main("--optimizers", *specs, "--epochs", "12", "--csv", "a.csv") == 0
    row = capsys.readouterr().out.splitlines()[1]
    rows = [row for row in read_csv("a.csv") if row["optimizer"] == specs[0]]
    assert f"diverged at step {len(rows)}" in row
    assert not math.isfinite(float(rows[-1]["loss"]))
    assert all(math.isfinite(float(row["loss"])) for row in rows[:-1])


def test_a_loss_of_infinity_is_no_number(workdir, capsys):
    words = ["--seeds", "3", "--epochs", "1", "--batch-size", "256", "--task", "parabola"]
    assert run_main(*words, "--optimizers", "SGD(lr=1e30)") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[1:4] == ["diverged", "diverged", "never"]
    assert "3402823466" not in out


def test_a_batch_larger_than_the_data_is_the_full_batch(workdir):
    assert run_main("--batch-size", "9999", "--csv", "a.csv", "--optimizers", "SGD") == 0
    assert len(read_csv("a.csv")) == 2


def test_an_optimizer_that_fails_half_way_is_a_row(workdir, capsys, homework):
    homework(FAILS)
    assert run_main("--optimizers", "homework.Fails", "Adam", "--csv", "a.csv") == 1
    out = capsys.readouterr().out
    assert "failed at step 3: RuntimeError: boom (homework.py, line 9)\n" in out
    labels = [row["optimizer"] for row in read_csv("a.csv")]
    assert (labels.count("homework.Fails"), labels.count("Adam")) == (2, 4)
    assert (workdir / "compare_optimizers.png").exists()


def test_a_step_that_moves_nothing_is_told(workdir, capsys, homework):
    homework(STILL)
    for seeds in ("1", "2"):
        assert run_main("--optimizers", "homework.Still", "Adam", "--seeds", seeds) == 0
        out = capsys.readouterr().out
        assert out.count("homework.Still: its steps moved nothing") == 1
        assert "Adam: " not in out


def interrupt(items, total, unit):
    """A progress during which Ctrl-C comes, after two items."""
    for number, item in enumerate(items):
        if number == 2:
            raise KeyboardInterrupt
        yield item


def test_the_run_that_was_interrupted_is_the_last_one(four):
    runs = script.compare(MAKERS, progress=lambda name: interrupt)
    label, run = next(runs)
    assert (label, run.history(0)) == ("SGD", four["SGD"].history(0)[:2])
    assert run.interrupted
    assert run.note == "interrupted at step 3"
    with pytest.raises(KeyboardInterrupt):
        next(runs)


# ---------------------------------------------------------------- many seeds


@pytest.mark.parametrize("spec", ["Momentum", "Adam", "LBFGS(max_iter=2)"])
def test_each_of_many_seeds_has_the_numbers_it_has_alone(spec, workdir):
    assert run_main("--optimizers", spec, "--seeds", "3", "--seed", "5", "--csv", "many.csv") == 0
    many = read_csv("many.csv")
    for seed in ("5", "6", "7"):
        assert run_main("--optimizers", spec, "--seed", seed, "--csv", "one.csv") == 0
        mine = [float(row["loss"]) for row in many if row["seed"] == seed]
        assert mine == pytest.approx([float(row["loss"]) for row in read_csv("one.csv")], rel=1e-3)


def test_the_table_and_figure_of_many_seeds(workdir, capsys):
    specs = ["SGD(lr=0.01)", "wild=SGD(lr=1e30)"]
    assert run_main("--seeds", "5", "--optimizers", *specs, "--epochs", "9") == 0
    out = capsys.readouterr().out.splitlines()
    seeds = range(settings.SEED, settings.SEED + 5)
    runs = dict(script.compare({"SGD": MAKERS["SGD"]}, replace(SHORT, epochs=9), seeds))
    low, median, high = statistics.quantiles(
        runs["SGD"].final_losses.tolist(), n=4, method="inclusive"
    )
    assert f" {median:.4f} [{low:.3f}, {high:.3f}] " in out[1]
    assert "diverged" not in out[1]
    assert out[2].split()[1:4] == ["diverged", "diverged", "never"]
    assert "5 of 5 diverged, from step" in " ".join(out[2:4])
    (axes,) = script.draw(runs).axes
    (raw,), (mean,), (band,) = raw_lines(axes), curves.named_lines(axes), axes.collections
    losses = runs["SGD"].losses
    torch.testing.assert_close(torch.tensor(raw.get_ydata()), losses.median(1).values)
    third = losses[1:3].mean(0)  # an epoch has two steps
    assert mean.get_ydata()[2] == pytest.approx(third.median().item())
    corners = band.get_paths()[0].vertices.tolist()
    low, _, high = statistics.quantiles(third.tolist(), n=4, method="inclusive")
    for y in (low, high):
        assert any(corner == pytest.approx([3, y]) for corner in corners)


def test_a_seed_that_diverges_ends_there(workdir):
    specs = ["--optimizers", "SGD(lr=1e30)", "--epochs", "12"]
    assert run_main("--seeds", "2", *specs, "--csv", "many.csv") == 0
    assert run_main(*specs, "--csv", "one.csv") == 0
    mine = [row for row in read_csv("many.csv") if row["seed"] == str(settings.SEED)]
    assert len(mine) == len(read_csv("one.csv"))


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "-3"], "--epochs"),
        (["--epochs", "many"], "many"),
        (["--batch-size", "0"], "--batch-size"),
        (["--batch-size", "1.5"], "1.5"),
        (["--task", "parabola(samples=0)"], "is empty"),
        (["--task", "parabola(samples=-1)"], "its data cannot be made"),
        (["--task", f"parabola(samples={10**15})"], "memory"),
        (["--task", "parabola(noise=1e999)"], "not all finite"),
        (["--task", "parabola(noise=1+1)"], "literal"),
        (["--task", "parabola(size=3)"], "have no 'size'; known: samples, noise"),
        (["--task", "parabola(64)"], "keyword"),
        (["--task", "parabolla"], "did you mean parabola"),
        (["--task", "nowhere.task"], "nowhere"),
        (["--task", "tasks.TASK"], "did you mean Task"),
        (["--task", "models.Net"], "not a Task"),
        (["--lr", "0"], "--lr"),
        (["--lr", "-1"], "--lr"),
        (["--lr", "nan"], "nan"),
        (["--lr", "inf"], "inf"),
        (["--device", "toaster"], "toaster"),
        (["--target", "inf"], "--target: 'inf' is not a finite number"),
        (["--seed", str(2**64)], "--seed"),
        (["--seed", "1.5"], "--seed"),
        (["--optimizers"], "--optimizers"),
        (["--optimizers", "Adma"], "did you mean Adamax or Adam"),
        (["--optimizers", "SGD(speed=1)"], "SGD has no 'speed'"),
        (["--optimizers", "SGD(momentum=-1)"], "Invalid momentum value: -1"),
        (["--optimizers", "Adam(betas=0.9)"], "betas=0.9) does not work here"),
        (["--optimizers", "SGD(lr=1+1)"], "literal"),
        (["--optimizers", "SGD(lr=-1)"], "lr=-1"),
        (["--optimizers", "SGD", "SGD"], "labelled 'SGD'"),
        (["--optimizers", "SparseAdam"], "SparseAdam does not support dense gradients"),
        (["--optimizers", "Muon"], "Muon only supports 2D parameters"),
        (["--optimizers", "nowhere.Adam"], "nowhere"),
        (["--optimizers", "torch.nope"], "nope"),
        (["--optimizers", "torch.nn.Linear"], "not a torch.optim.Optimizer"),
        (["--output", "nowhere/a.png"], "nowhere/a.png"),
        (["--output", "a.xyz"], "a.xyz"),
        (["--csv", "nowhere/a.csv"], "nowhere/a.csv"),
        (["--csv", "."], "'.'"),
        (["--output", "a.png", "--csv", "./a.png"], "the same file"),
        (["--seeds", "0"], "--seeds"),
        (["--seeds", "2", "--seed", str(2**64 - 1)], "--seeds"),
        (["--colour", "red"], "--colour"),
        (["stray"], "stray"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys):
    (workdir / "compare_optimizers.png").write_text("an earlier figure")
    assert_refused(script.main, [*FAST, *words], message, workdir, capsys)
