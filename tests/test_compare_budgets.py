"""Budgets: each number as plain loops and all orders have it, each sentence true of the numbers."""

import csv
import itertools
import math
import re
from dataclasses import replace

from lab.command_line.spaces import parse_spaces
from lab.command_line.specs import parse_optimizer
from lab.outcome import Outcome
from lab.training.trials import Trial, Trials

import pytest
import torch
from conftest import SMALL, assert_refused, exit_status, textbook_training
from torch.nn.functional import mse_loss

import compare_budgets as script
from compare_budgets import Place, Table, compare, conclusions, draw
from tasks import TASKS

ONE = replace(SMALL, epochs=2)
TWO = replace(SMALL, make_data=lambda seed: SMALL.make_data(seed + 100), epochs=1, batch_size=10)
CLASSES = replace(TASKS["logistic"], epochs=1)
PROBLEMS = """
from test_compare_budgets import CLASSES, ONE, TWO
"""
SPACE = "mine=SGD(lr=log(0.01, 1), momentum=0 or 0.9)"
KEYS = "untuned", "half of all orders"
FEW = ["--no-show", "--jobs", "1", "--trials", "4", "--seeds", "3", "--seed", "5"]


def plain_losses(task, written, seed):
    """Return final and held-out loss of a loop written apart; infinite if it diverged."""
    train_set, held_out = task.make_data(seed)
    make_optimizer = parse_optimizer(written)
    _, net = textbook_training(
        train_set, task.make_net, make_optimizer, mse_loss, seed, task.epochs, task.batch_size
    )
    losses = [mse_loss(net(x), y).item() for x, y in (train_set.tensors, held_out.tensors)]
    return [loss if math.isfinite(loss) else math.inf for loss in losses]


def guess(task, seed):
    """Return the held-out loss of the mean of all targets."""
    train_set, held_out = task.make_data(seed)
    y = held_out.tensors[1]
    return mse_loss(train_set.tensors[1].mean().expand_as(y), y).item()


def best_of_all_orders(losses, k):
    """Return the mean over all orders of the best of k; losses (trials, seeds), as lists."""
    ends = []
    for seed in range(3):
        for order in itertools.permutations(losses, k):
            best = min(order, key=lambda row: row[seed])
            others = [loss for s, loss in enumerate(best) if s != seed]
            ends.append(sum(others) / len(others))
    return sum(ends) / len(ends)


def test_every_number_of_table_and_csv_is_that_of_plain_loops(
    workdir, capsys, homework, monkeypatch
):
    homework(PROBLEMS, name="problems")
    monkeypatch.setattr(script, "RATES", 1)
    names = {"problems.ONE": ONE, "problems.TWO": TWO}
    words = ["--tasks", *names, "--optimizers", SPACE, "Adam", "--csv", "a.csv"]
    assert exit_status(script.main, [*FEW, *words]) == 0
    out = capsys.readouterr().out.splitlines()
    with open("a.csv", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    trials = [*"1234", "rate 1", "default"]
    places = [(task, label) for task in names for label in ("mine", "Adam")]
    assert [(r["task"], r["optimizer"], r["trial"], r["seed"]) for r in rows] == [
        (*place, trial, seed) for place in places for trial in trials for seed in "567"
    ]
    for number, (name, label) in enumerate(places):
        mine = [row for row in rows if (row["task"], row["optimizer"]) == (name, label)]
        for row in mine:
            losses = [float(row[key]) for key in ("final_loss", "held_out_loss")]
            alone = plain_losses(names[name], row["settings"], int(row["seed"]))
            assert losses == pytest.approx(alone, rel=1e-2)
        limits = [guess(names[name], seed) for seed in (5, 6, 7)]
        by_trial = {
            trial: [min(float(row["held_out_loss"]), limit) for row, limit in zip(
                (row for row in mine if row["trial"] == trial), limits, strict=True)]
            for trial in trials
        }  # fmt: skip
        task, optimizer, untuned, one, four, _ = out[1 + number].split()
        assert (task, optimizer) == (name, label)
        drawn = [by_trial[k] for k in "1234"]
        assert float(untuned) == pytest.approx(sum(by_trial["default"]) / 3, rel=1e-3)
        assert float(one) == pytest.approx(best_of_all_orders(drawn, 1), rel=1e-3)
        assert float(four) == pytest.approx(best_of_all_orders(drawn, 4), rel=1e-3)
    # The settings are the same on all tasks, and the Sobol points of the seed.
    settings = [[row["settings"] for row in rows if row["task"] == task] for task in names]
    assert settings[0] == settings[1]
    places = torch.quasirandom.SobolEngine(2, scramble=True, seed=5).draw(4)
    for row, (lr, momentum) in zip(rows[::3], places.tolist(), strict=False):
        keywords = parse_optimizer(row["settings"]).keywords
        assert keywords["lr"] == pytest.approx(10 ** (-2 + 2 * lr), rel=5e-3)
        assert keywords["momentum"] == (0 if momentum < 0.5 else 0.9)


# ---------------------------------------------------------------- made-up results


def made_up(drawn, rates=(), default=None, places=None):
    """Return results of two seeds, which agree, with the trials' held-out losses as given."""
    trials = [
        Trial(
            f"{k}",
            f"SGD(lr={k})",
            None,
            place=(places or torch.linspace(0, 1, len(drawn)).tolist())[k - 1 : k],
        )
        for k in range(1, len(drawn) + 1)
    ]
    trials += [Trial(f"rate {k}", "", None) for k in range(1, len(rates) + 1)]
    trials += [Trial("default", "", None)] * (default is not None)
    losses = [*drawn, *rates, *([default] if default is not None else [])]
    losses = torch.tensor(losses, dtype=torch.float64).unsqueeze(1).repeat(1, 2)
    return Trials(trials, [0, 1], losses, losses)


SPACES = parse_spaces(["A=SGD(lr=log(1, 2))", "B=SGD(lr=log(1, 2))"])
RESULTS = {  # the best known is 1 on x and 10 on y
    Place("x", "A"): made_up([8.0, 2.0], rates=[4.0, 2.0], default=16.0),
    Place("x", "B"): made_up([4.0, 4.0], rates=[1.0, 4.0], default=4.0),
    Place("y", "A"): made_up([40.0, 10.0], rates=[20.0, 20.0], default=80.0),
    Place("y", "B"): made_up([40.0, 40.0], rates=[80.0, 80.0], default=90.0),
}


def test_factors_of_a_table_worked_out_by_hand():
    table = Table(RESULTS)
    assert table.best == {"x": 1, "y": 10}
    # A with one: (8 + 2) / 2 = 5 times, 25 / 10 = 2.5 times; with two: 2 and 1 times. B: 4 and 4.
    assert table.factors["A"].tolist() == pytest.approx([12.5**0.5, 2**0.5])
    assert table.factors["B"].tolist() == pytest.approx([4, 4])
    assert table.logs("A", "rate").exp()[:, 1].tolist() == pytest.approx([2, 2])
    assert table.logs("A", "default").exp()[:, 0].tolist() == pytest.approx([16, 8])


def test_each_sentence_is_true_of_a_made_up_table():
    said = "\n".join(conclusions(RESULTS, SPACES))
    for sentence in (
        "With 1 trial, times the best known, as a geometric mean over 2 tasks: A 3.54, B 4.",
        "With 2 trials, times the best known, as a geometric mean over 2 tasks: A 1.41, B 4.",
        "A is first from 1 trial on, and the whole order stays from 1 trial on.",
        "(in brackets, on how many of 2 it ever does): A never (1), B never (0).",
        "Untuned, as the library has them, times the best known: A 11.3, B 6.",
        "The best of 2 rates, all else as it is by default, against the best of 2 and of 2 "
        "settings: A 2 against 1.41 and 1.41, B 2.83 against 4 and 4.",
        "A: 1.41 (1 at random 3.54, 1 rate 2.45). Try, in this order: SGD(lr=2).",
    ):
        assert sentence in said
    assert "explains" not in said  # of one dimension


def test_an_order_that_changes_is_said_to():
    results = dict(RESULTS)
    for task, factor in (("x", 1), ("y", 10)):
        results[Place(task, "B")] = made_up([3 * factor] * 2)
        results[Place(task, "A")] = made_up([9 * factor, 1 * factor])
    said = " ".join(conclusions(results, SPACES))
    assert "With 1 trial, times the best known, as a geometric mean over 2 tasks: B 3, A 5." in said
    assert "A is first from 2 trials on, and the whole order stays from 2 trials on." in said
    assert (
        "takes so many trials, as a median over tasks (in brackets, on how many of 2 it ever "
        in said
    )
    assert "A 2 (2), B never (0)" in said


def test_eight_tasks_are_enough_for_a_test_over_them():
    results = {}
    for k in range(8):
        results[Place(f"t{k}", "A")] = made_up([1.0 + k / 100] * 2)
        results[Place(f"t{k}", "B")] = made_up([2.0 + k] * 2)
    said = conclusions(results, SPACES)
    assert (
        "By a signed-rank test over the tasks, worse than the best: B; best or equal to it: A."
        in said[0]
    )
    few = {place: result for place, result in results.items() if place.task < "t5"}
    assert "signed-rank" not in conclusions(few, SPACES)[0]


def said_of(log_loss, n_trials=64):
    """Return what is said of trials whose log-loss is such a function of the places in a space."""
    spaces = parse_spaces(["A=SGD(lr=log(1, 2), weight_decay=0 or log(1e-5, 3))"])
    places = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(n_trials).double()
    trials = [Trial(f"{k}", "", None, place=tuple(p)) for k, p in enumerate(places.tolist())]
    losses = log_loss(*places.T).exp().unsqueeze(1).repeat(1, 2)
    return conclusions({Place("t", "A"): Trials(trials, [0, 1], losses, losses)}, spaces)


def test_what_mattered_is_said_of_a_known_function():
    (sentence,) = [said for said in said_of(lambda x, y: 3 * x - 4 * y) if "explains" in said]
    (decay, lr) = map(int, re.search(r"A: weight_decay (\d+)%, lr (\d+)%", sentence).groups())
    assert (decay, lr) == (pytest.approx(64, abs=9), pytest.approx(36, abs=9))


def test_of_one_dimension_or_of_few_trials_nothing_is_said_to_matter():
    results = {Place("x", "A"): made_up(torch.linspace(1, 2, 32).tolist())}
    one = conclusions(results, parse_spaces(["A=SGD(lr=log(1, 2))"]))
    for said, n in ((one, 0), (said_of(lambda x, y: x, 15), 0), (said_of(lambda x, y: x, 16), 1)):
        assert " ".join(said).count("alone explains") == n


def test_a_space_that_is_too_narrow_is_said_to_be():
    wider = (
        "Should be wider, as the best settings lie at an end (in brackets, on how many of 1 tasks)"
    )
    assert f"{wider}: A weight_decay=3 (1)." in said_of(lambda x, y: -y)
    assert f"{wider}: A lr=1 (1)." in said_of(lambda x, y: x)
    none = "No space ends where its best settings are."
    assert none in said_of(lambda x, y: y)  # a weight decay of 0 is no end
    assert none in said_of(lambda x, y: (x - 0.5) ** 2 + y)


# ---------------------------------------------------------------- truths


def ends(spaces, task, trials=16, seeds=range(4)):
    """Return the losses of the best of all trials as each seed has it: (label: (seeds,))."""
    results = dict(compare(parse_spaces(spaces), {"t": task}, trials, seeds))
    table = Table(results)
    return {
        place.optimizer: (table.curve(place)[-1].item(), table.band(place)[:, -1].tolist())
        for place in results
    }


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("SGD(lr=log(0.01, 1))", "SGD(lr=log(0.01, 1), momentum=0 or 1 - log(0.01, 1))"),
        # Adam's step is lr / eps times the mean of gradients, where eps is large: Momentum's.
        ("SGD(lr=log(0.01, 1), momentum=0.9)", "Adam(lr=log(1e3, 1e6), eps=1e5)"),
    ],
)
def test_a_space_that_contains_another_ends_no_worse(inner, outer):
    task = replace(TASKS["scales"], epochs=4)
    found = ends([f"inner={inner}", f"outer={outer}"], task)
    (_, (_, high)), (loss, _) = found["inner"], found["outer"]
    assert loss <= 1.05 * high


def test_a_space_of_one_point_has_a_level_curve():
    results = dict(compare(parse_spaces(["SGD(lr=0.1)", "Adam"]), {"t": ONE}, 4, range(3)))
    table = Table(results)
    alone = [min(plain_losses(ONE, "SGD(lr=0.1)", seed)[1], guess(ONE, seed)) for seed in range(3)]
    assert table.curve(Place("t", "SGD(lr=0.1)")).tolist() == pytest.approx(
        [sum(alone) / 3] * 4, rel=1e-3
    )
    assert table.band(Place("t", "SGD(lr=0.1)")).shape == (2, 4)
    assert draw(results).axes


# ---------------------------------------------------------------- figure, refusals, ends


def test_the_figure_has_a_panel_a_task_and_one_over_all():
    figure = draw(RESULTS)
    assert [axes.get_title() for axes in figure.axes] == ["All 2, geometric mean", "x", "y"]
    means, *tasks = figure.axes
    curves = {
        line.get_label(): line.get_ydata() for line in means.lines if len(line.get_xdata()) > 1
    }
    assert list(curves["A"]) == pytest.approx([12.5**0.5, 2**0.5])
    assert [list(line.get_ydata()) for line in tasks[1].lines] == [[2.5, 1.0], [4.0, 4.0]]
    untuned = [line.get_ydata()[0] for line in means.lines if len(line.get_xdata()) == 1]
    assert untuned == pytest.approx([128**0.5, 6])
    assert [text.get_text() for text in figure.legends[0].texts] == ["A", "B", *KEYS]
    assert [axes.get_xticks().tolist() for axes in figure.axes] == [[1, 2]] * 3


def test_a_figure_of_nothing_is_empty():
    (axes,) = draw({Place("x", "A"): Outcome(error=ValueError("no"))}).axes
    assert not axes.lines


def test_losses_that_are_not_above_zero_are_drawn_as_they_are():
    results = {Place("x", "A"): made_up([0.0, -1.0]), Place("y", "A"): made_up([4.0, 2.0])}
    figure = draw(results)
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss", "Times the best known"]
    assert list(figure.axes[0].lines[0].get_ydata()) == [-0.5, -1]
    assert Table(results).tasks == ["y"]


def test_a_task_whose_losses_straddle_zero_counts_in_no_sentence():
    straddling = made_up([4.0, 2.0, 3.0], rates=[5.0], default=1.0)
    straddling.held_out_losses[1] = torch.tensor([-3.0, 8.0])  # the mean of each trial is above 0
    places = [("x", "A"), ("y", "A"), ("x", "B"), ("y", "B")]
    fine = made_up([8.0, 2.0, 4.0], rates=[4.0], default=16.0)
    results = {Place(*place): straddling if place[0] == "x" else fine for place in places}
    table = Table(results)
    assert table.best["x"] == 1
    assert table.tasks == ["y"]
    said = " ".join(conclusions(results, SPACES))
    assert "geometric mean over 1 task: A 2.33, B 2.33." in said
    assert "nan" not in said
    figure = draw(results)
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss", "Times the best known"]
    straddling.held_out_losses[1] = torch.tensor([1e-3, 8.0])
    assert Table(results).tasks == ["x", "y"]


def test_a_metric_is_in_the_csv(workdir, homework):
    homework(PROBLEMS, name="problems")
    names = "problems.CLASSES", "problems.ONE"
    words = ["--tasks", *names, "--optimizers", "SGD(lr=0.1)", "--csv", "a.csv"]
    assert exit_status(script.main, [*FEW, *words]) == 0
    with open("a.csv", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert {row["metric"] == "" for row in rows if row["task"] == names[1]} == {True}
    assert all(0.5 < float(row["metric"]) <= 1 for row in rows if row["task"] == names[0])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seeds", "1"], "--seeds wants at least 2"),
        (["--optimizers", "Adam(lr=log(1, 0.1))"], "LOW below HIGH"),
        (["--optimizers", "SGD(lr=0.1, momentum=0.5 or -1)"], "momentum=-1) cannot be"),
        (["--optimizers", "Adom"], "did you mean Adam"),
        (["--tasks", "spirls"], "did you mean spirals"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(words, says, workdir, capsys):
    assert_refused(script.main, ["--tasks", "parabola", *words], says, workdir, capsys)


def test_an_optimizer_that_fails_has_no_numbers_and_spoils_none(workdir, capsys, homework):
    homework(
        "import torch\n"
        "class Bad(torch.optim.SGD):\n"
        "    def __init__(self, params, lr=0.1):\n"
        "        super().__init__(params, lr=lr)\n"
        "        self.steps = 0\n"
        "    def step(self, closure=None):\n"
        "        self.steps += 1\n"
        "        if self.steps > 3: raise RuntimeError('tired')\n"
        "        return super().step(closure)\n"
    )
    homework(PROBLEMS, name="problems")
    words = [
        "--tasks",
        "problems.ONE",
        "--optimizers",
        "homework.Bad",
        "SGD(lr=0.1)",
        "--csv",
        "a.csv",
    ]
    assert exit_status(script.main, [*FEW, *words]) == 1
    out, err = capsys.readouterr()
    assert "RuntimeError: tired" in out
    assert "Traceback" not in err
    with open("a.csv", newline="") as file:  # noqa: PTH123
        assert {row["optimizer"] for row in csv.DictReader(file)} == {"SGD(lr=0.1)"}
