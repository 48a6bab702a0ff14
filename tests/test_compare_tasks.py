"""Optimizers over tasks: each number as plain loops have it, each sentence true of the numbers."""

import csv
import math
import random
from collections import Counter
from dataclasses import replace

from lab.command_line import options, types
from lab.command_line.specs import parse_optimizer
from lab.outcome import Outcome
from lab.pictures.looks import looks_of
from lab.training.jobs import TaskResult

import numpy as np
import pytest
import torch
from conftest import (
    FAILS,
    SMALL,
    assert_refused,
    exit_status,
    made_up,
    made_up_sweep,
    textbook_training,
)
from matplotlib.colors import to_hex
from scipy import stats
from torch.nn.functional import mse_loss

import compare_tasks as script
from compare_tasks import Place, Table, conclusions
from tasks import TASKS

ONE = replace(SMALL, epochs=2)
TWO = replace(SMALL, make_data=lambda seed: SMALL.make_data(seed + 100), epochs=1, batch_size=10)
SPECS = ["SGD=SGD()", "Momentum=SGD(momentum=0.9)", "Adam=Adam()"]
LRS = 0.01, 0.1, 1.0
PROBLEMS = """
from test_compare_tasks import ONE, TWO
"""


# ---------------------------------------------------------------- plain loops


def plain_losses(task, spec, lr, seed):
    """Return final and held-out loss of a loop written apart; infinite if it diverged."""
    train_set, held_out = task.make_data(seed)

    def make_optimizer(params):
        return parse_optimizer(spec, lr)(params)

    _, net = textbook_training(
        train_set, task.make_net, make_optimizer, mse_loss, seed, task.epochs, task.batch_size
    )
    losses = [mse_loss(net(x), y).item() for x, y in (train_set.tensors, held_out.tensors)]
    return [loss if math.isfinite(loss) else math.inf for loss in losses]


def test_every_number_of_table_and_csv_is_that_of_plain_loops(workdir, capsys, homework):
    homework(PROBLEMS, name="problems")
    names = {"problems.ONE": ONE, "problems.TWO": TWO}
    words = ["--tasks", *names, "--optimizers", *SPECS, "--seeds", "2", "--seed", "5"]
    words += [
        "--judges",
        "3",
        "--lr-range",
        "0.01",
        "1",
        "--lr-count",
        "3",
        "--jobs",
        "1",
        "--csv",
        "a.csv",
    ]
    assert exit_status(script.main, ["--no-show", *words]) == 0
    out = capsys.readouterr().out.splitlines()
    with open("a.csv", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    calls = {spec.partition("=")[0]: spec.partition("=")[2] for spec in SPECS}
    places = [(task, label) for task in names for label in calls]
    assert list(dict.fromkeys((row["task"], row["optimizer"]) for row in rows)) == places
    for number, (name, label) in enumerate(places):
        all_mine = [row for row in rows if (row["task"], row["optimizer"]) == (name, label)]
        mine = [row for row in all_mine if row["stage"] == "chosen"]
        lrs = list(dict.fromkeys(float(row["lr"]) for row in mine))
        assert set(LRS) <= set(lrs)
        held_out = torch.zeros(len(lrs), 2, dtype=torch.float64)
        for row in mine:
            lr, seed = float(row["lr"]), int(row["seed"])
            losses = [float(row[key]) for key in ("final_loss", "held_out_loss")]
            assert losses == pytest.approx(
                plain_losses(names[name], calls[label], lr, seed), rel=1e-2
            )
            held_out[lrs.index(lr), seed - 5] = losses[1]
        assert len(mine) == 2 * len(lrs)
        call = parse_optimizer(calls[label]).call
        assert call in (label, f"{label}()") or call in " ".join(out)
        task, optimizer, best, median, *_ = out[1 + number].split()
        assert (task, optimizer) == (name, label)
        assert float(best) == pytest.approx(lrs[held_out.mean(1).argmin()], rel=1e-2)
        judged = [row for row in all_mine if row["stage"] == "judged"]
        assert all_mine == mine + judged
        assert [int(row["seed"]) for row in judged] == [7, 8, 9]
        best_lr = lrs[held_out.mean(1).argmin()]
        losses = []
        for row in judged:
            assert float(row["lr"]) == best_lr
            both = [float(row[key]) for key in ("final_loss", "held_out_loss")]
            alone = plain_losses(names[name], calls[label], best_lr, int(row["seed"]))
            assert both == pytest.approx(alone, rel=1e-2)
            losses.append(both[1])
        assert float(median) == pytest.approx(sorted(losses)[1], rel=1e-3)
        at_default = [plain_losses(names[name], calls[label], None, seed)[1] for seed in (5, 6)]
        default = out[1 + number].split("]")[1].split()[0]
        assert float(default) == pytest.approx(sum(at_default) / 2, rel=1e-3)


def is_above(differences, share):
    """Whether so many differences lie above 0 for sure, by SciPy's signed-rank test."""
    differences = np.array(differences)
    found = stats.wilcoxon(differences, method="exact")
    ranks = stats.rankdata(abs(differences))
    return found.pvalue <= share and ranks[differences > 0].sum() > ranks.sum() / 2


def words_of(losses):
    """Return "equal", "worse" or "not known" of lists of losses, beside the best, by SciPy."""
    share = 0.05 / (len(losses) - 1)

    def above(a, b, limit=1.0):
        pairs = zip(losses[a], losses[b], strict=True)
        return is_above([math.log(x) - math.log(limit * y) for x, y in pairs], share)

    rivals = [a for a in losses if not any(above(a, b) for b in losses if b != a)]
    words = {}
    for a in losses:
        # b, 1.1 times as bad, is above a: so a is less than 10 % worse
        is_equal = all(above(b, a, 1 / 1.1) for b in rivals if b != a)
        words[a] = "equal" if is_equal else "not known" if a in rivals else "worse"
    return words


def test_every_verdict_is_the_one_that_scipy_reads_from_the_csv(workdir, capsys, homework):
    homework(PROBLEMS, name="problems")
    words = ["--tasks", "problems.ONE", "problems.TWO", "--optimizers", *SPECS, "--seeds", "2"]
    words += ["--judges", "12", "--lr-range", "0.1", "1", "--lr-count", "2", "--csv", "a.csv"]
    assert exit_status(script.main, ["--no-show", "--jobs", "1", *words]) == 0
    out = " ".join(capsys.readouterr().out.split())
    losses = {}
    with open("a.csv", newline="") as file:  # noqa: PTH123
        for row in csv.DictReader(file):
            if row["stage"] == "judged":
                columns = losses.setdefault(row["task"], {})
                columns.setdefault(row["optimizer"], []).append(float(row["held_out_loss"]))
    found = [words_of(columns) for columns in losses.values()]
    assert len(found) == 2
    for label in found[0]:
        n = Counter(each[label] for each in found)
        assert f"{label} is best or equal within 10 % on {n['equal']}, worse on {n['worse']}" in out
    assert len({word for each in found for word in each.values()}) > 1
    n = sum(Counter(each.values())["not known"] for each in found)
    assert (f"Not known: {n} of 6." in out) == (n > 0)


def test_from_a_session_tasks_are_passed_as_they_are():
    optimizers = {"SGD": parse_optimizer("SGD")}
    results = dict(script.compare(optimizers, {"mine": ONE}, LRS, range(3), range(3, 6)))
    assert list(results) == [("mine", "SGD")]
    assert str(next(iter(results))) == "SGD on mine"
    assert len(script.draw(results).axes) == 3


# ---------------------------------------------------------------- what the numbers say


def result(medians, default=None, seeds=10, spread=0.001, lrs=None):
    """A result made up so that each rate has this median; `default` is the loss at its own."""
    default_losses = None if default is None else torch.full((seeds,), float(default))
    return TaskResult(made_up_sweep(medians, lrs, seeds, spread, seeds), 0.01, default_losses)


LOST_WORKER = Outcome(error=ConnectionError(), stopped="failed")


def results_of(**rows):
    """Return made-up results, a row a task: of optimizers a, b, c, ..."""
    return {
        Place(task, label): each
        for task, row in rows.items()
        for label, each in zip("abcdefg", row, strict=False)
    }


def test_where_all_tie_each_is_best_everywhere():
    row = [result([3.0, 1.0, 2.0]) for _ in range(3)]
    head, *each, costs, rates = conclusions(results_of(one=row, two=row))
    assert head == (
        "Beside the best of each of 2 tasks, judged by 10 seeds that chose no rate (exact "
        "signed-rank intervals, 95% for 2 pairs at once, for each task):"
    )
    assert each == [
        f"{label} is best or equal within 10 % on 2, worse on 0, not known on 0." for label in "abc"
    ]
    assert costs == (
        "Always to take one costs, against the lowest loss of each task, as a geometric mean over "
        "2 tasks [95 %, by a bootstrap over the tasks]: a 1 times [1, 1], b 1 times [1, 1], "
        "c 1 times [1, 1]."
    )
    assert rates == (
        "Within a factor of ten of its best rate, an optimizer's loss varies by 3 times; among the "
        "optimizers, each at its best rate, by 1 times (medians over tasks)."
    )


def test_where_one_dominates_it_is_named():
    good, bad = result([3.0, 1.0, 3.0]), result([9.0, 4.0, 9.0], spread=0.004)
    worst = result([9.0, 5.0, 9.0], spread=0.005)
    head, a, b, costs, rates = conclusions(
        results_of(one=[bad, good], two=[worst, good], three=[bad, good])
    )
    assert "95% for one pair" in head
    assert a == (
        "a is best or equal within 10 % on 0, worse on 3 (at most 5 times [5, 5], on two), not "
        "known on 0."
    )
    assert b == "b is best or equal within 10 % on 3, worse on 0, not known on 0."
    assert "]: b 1 times [1, 1], a 4.31 times [4, 5]." in costs  # the third root of 80
    assert "varies by 2.62 times; among the optimizers, each at its best rate, by 4 times" in rates


def test_what_is_not_known_is_told_with_the_seeds_that_it_would_take():
    open_one = result([3.0, 1.0, 2.0])
    open_one.sweep.judged.held_out_losses = torch.tensor([0.95, 1.3] * 5).double()
    results = results_of(one=[result([3.0, 1.0, 2.0]), open_one])
    _, a, b, unknown, *_ = conclusions(results)
    assert a.startswith("a is best or equal within 10 % on 1")  # b is at most 5 % lower
    assert b == "b is best or equal within 10 % on 0, worse on 0, not known on 1."
    n = Table(results).verdict(Place("one", "b")).seeds
    assert unknown == (
        "Not known: 1 of 2. So many judges, about, would settle them, by the spread seen: b on one "
        f"({n})."
    )
    assert conclusions(results, equal=0.5)[2].startswith("b is best or equal within 50 % on 1")
    # One that diverges on a seed is not settled by any number.
    for each, last in zip(results.values(), (1.0, math.inf), strict=True):
        each.sweep.judged.held_out_losses = torch.tensor([1.0] * 9 + [last])
    assert conclusions(results)[3].endswith("by the spread seen: b on one.")


def test_the_cost_of_one_for_all_tasks_is_that_of_a_plain_bootstrap():
    ratios = torch.tensor([[1.0, 2.0], [1.0, 8.0], [4.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    means, lows, highs = script.costs(ratios).tolist()
    assert means == pytest.approx([4**0.25, 16**0.25])
    generator = random.Random(1)
    for k in range(2):
        logs = ratios[:, k].log().tolist()
        means = sorted(sum(generator.choices(logs, k=4)) / 4 for _ in range(20_000))
        assert math.log(lows[k]) == pytest.approx(means[500], abs=0.03)
        assert math.log(highs[k]) == pytest.approx(means[-501], abs=0.03)
    lost = script.costs(torch.tensor([[1.0], [math.inf]], dtype=torch.float64))
    assert lost.flatten().tolist() == [math.inf, 1, math.inf]


def test_what_diverges_everywhere_is_told_and_loses_without_bounds():
    lost = result([math.inf, math.inf, math.inf], default=1.0)
    fine = result([3.0, 1.0, math.inf], default=2.0)
    first, _, a, _, costs, rates, default = conclusions(
        results_of(one=[lost, fine], two=[lost, fine])
    )
    assert first == "At every rate diverged: a on one, a on two."
    cut_short = result([math.inf])
    cut_short.error = KeyboardInterrupt()
    assert conclusions(results_of(one=[cut_short, fine])) == []
    assert "worse on 2 (at most inf times" in a
    assert "b 1 times [1, 1], a more than any factor (it diverges)" in costs
    assert "an optimizer's loss varies by more than any factor (it diverges)" in rates
    assert "each at its best rate, by more than any factor" in rates
    assert default.endswith("as a median: a (lr=0.01) 0 times, b (lr=0.01) 2 times.")


def test_where_all_diverge_on_a_task_none_is_worse():
    lost, good, bad = result([math.inf] * 3), result([3.0, 1.0, 2.0]), result([3.0, 2.0, 3.0])
    table = Table(results_of(one=[lost, lost], two=[good, bad]))
    assert table.ratios.tolist() == [[1.0, 1.0], [1.0, pytest.approx(2.0)]]


def test_a_best_rate_at_the_end_of_the_grid_is_as_good_as_any():
    rates = conclusions(results_of(one=[result([1.0, 2.0, 3.0]), result([3.0, 2.0, 1.0])]))[-1]
    assert "loss varies by 2 times" in rates  # one of three rates is more than ten times off


def test_the_default_rate_has_its_cost():
    results = results_of(
        one=[result([3.0, 1.0, 2.0], default=4.0), result([3.0, 1.0, 2.0])],
        two=[result([3.0, 1.0, 2.0], default=8.0), result([3.0, 1.0, 2.0])],
    )
    *_, default = conclusions(results)
    assert default == (
        "The loss at the default rate, against that at the best, as a median: a (lr=0.01) 6 times."
    )


def test_with_too_few_seeds_it_says_how_many_would_do():
    row = [result([3.0, 1.0, 2.0], seeds=4) for _ in range(4)]  # three pairs: 2 / 2**7 < 0.05 / 3
    assert conclusions(results_of(one=row))[0] == (
        "Nothing is known: 4 judges are too few for a test; 7 would do."
    )


def test_only_tasks_that_are_complete_count():
    good, bad = result([3.0, 1.0, 2.0]), result([3.0, 2.0, 3.0])
    failed = replace(bad, error=ValueError())
    head, a, b, *_ = conclusions(
        results_of(one=[good, bad], two=[bad, LOST_WORKER], three=[bad], four=[bad, failed])
    )
    assert "best of each of 1 tasks" in head
    assert "a is best or equal within 10 % on 1," in a
    assert "b is best or equal within 10 % on 0, worse on 1" in b
    assert conclusions(results_of(one=[good, LOST_WORKER])) == []
    assert conclusions(results_of(one=[good])) == []  # nothing to compare it with


def test_each_cell_has_its_verdict_beside_the_best_of_its_row():
    near, far, lost = result([3.0, 1.0, 2.0]), result([3.0, 1.5, 2.0]), result([math.inf] * 3)
    near.sweep.judged.held_out_losses[:] = torch.tensor([1.0, 1.2] * 5)
    table = Table(results_of(one=[result([3.0, 1.0, 2.0]), near, far, lost]))
    words = [table.verdict(place).word for place in table.row("one")]
    assert words == ["equal", "not known", "worse", "worse"]
    assert table.ratios[0].tolist() == pytest.approx([1, 1.0954, 1.5, math.inf], rel=2e-3)


def test_best_is_not_who_is_surely_worse_than_another():
    # b has the lower median, 15 and not 15.5; but on 24 of 30 seeds a is lower, and by more.
    a, b = result([3.0, 1.0, 2.0], seeds=30), result([3.0, 1.0, 2.0], seeds=30)
    seeds = torch.arange(30, dtype=torch.float64)
    a.sweep.judged.held_out_losses = 1.0 + seeds
    b.sweep.judged.held_out_losses = 1.5 * (1.0 + seeds)
    b.sweep.judged.held_out_losses[15:21] = 15.0
    table = Table(results_of(one=[a, b]))
    assert [table.verdict(place).word for place in table.row("one")] == ["equal", "worse"]
    assert table.medians.tolist() == [[15.5, 15.0]]
    assert table.ratios[0, 0] == 1 < table.ratios[0, 1]


def test_losses_that_are_not_above_zero_have_no_ratios():
    row = [result([3.0, -1.0, 2.0]), result([3.0, 1.0, 2.0])]
    table = Table(results_of(one=row))
    assert table.ratios.isnan().all()
    assert len(conclusions(results_of(one=row))) == 3  # what does not need them
    script.draw(results_of(one=row)).canvas.draw()


# ---------------------------------------------------------------- the figure


def test_performance_profiles_worked_by_hand():
    # On three tasks: a is best, twice and four times the best, b the other way round but once lost.
    ratios = torch.tensor([[1.0, 2.0], [2.0, 1.0], [4.0, math.inf]])
    shares = script.profile(ratios, torch.tensor([1.0, 2.0, 3.9, 4.0, 100.0]))
    third = pytest.approx(1 / 3)
    assert shares[:, 0].tolist() == [third, pytest.approx(2 / 3), pytest.approx(2 / 3), 1, 1]
    assert shares[:, 1].tolist() == [third, *[pytest.approx(2 / 3)] * 4]


@pytest.fixture
def figure():
    good, bad, lost = (result(m) for m in ([3.0, 1.0, 2.0], [300.0, 20.0, 30.0], [math.inf] * 3))
    return script.draw(
        results_of(one=[good, bad], two=[bad, good], three=[lost, good], four=[good, LOST_WORKER])
    )


def test_the_table_has_each_loss_darker_the_worse_it_is(figure):
    table, *_ = figure.axes
    texts = [text.get_text() for text in table.texts]
    assert texts == [
        "1.00\n1.00×",
        "=",
        "20.0\n20.0×",
        "",
        "20.0\n20.0×",
        "",
        "1.00\n1.00×",
        "=",
        *("diverged", "", "1.00\n1.00×", "=", "1.00\n1.00×", "="),
    ]
    assert [text.get_text() for text in table.get_yticklabels()] == ["one", "two", "three", "four"]
    assert [text.get_text() for text in table.get_xticklabels()] == ["a", "b"]
    shades = table.images[0].get_array()
    assert shades[0, 0] == shades[1, 1] == 0 < shades[0, 1] == shades[1, 0] < shades[2, 0]
    assert shades[0, 1] == pytest.approx(math.log10(20))
    assert shades[2, 0] == pytest.approx(math.log10(script.DARKEST))
    ground = [table.images[0].cmap(table.images[0].norm(shade))[:3] for shade in (0, 2)]
    assert sum(ground[0]) > sum(ground[1])
    colors = {text.get_text(): text.get_color() for text in table.texts}
    assert (colors["1.00\n1.00×"], colors["diverged"]) == ("black", "white")


def test_the_optimizers_are_named_above_their_columns_and_no_line_is_in_the_way(figure):
    table, _, key = figure.axes
    ticks = table.xaxis.get_tick_params()
    assert (ticks["labeltop"], ticks["labelbottom"]) == (True, False)
    assert not table.get_frame_on()
    assert not any(line.get_visible() for line in table.get_xgridlines())
    assert [text.get_text() for text in key.get_yticklabels()] == ["1×", "10×", "100×"]
    assert key.get_ylim() == (0, 2)


def test_a_profile_begins_at_the_best(figure):
    assert figure.axes[1].get_xlim() == (1, script.DARKEST)


def test_the_figure_grows_with_the_table():
    row = [result([3.0, 1.0, 2.0])] * 5
    small = script.draw(results_of(**dict.fromkeys("abcdefg", row[:2]))).get_size_inches()
    large = script.draw(results_of(**dict.fromkeys("abcdefgpqrstu", row))).get_size_inches()
    assert (large > small).all()


def test_rates_that_a_schedule_moves_have_a_panel_of_their_own():
    still, moved = result([3.0, 1.0, 2.0]), result([3.0, 1.0, 2.0])
    still.lr_history, moved.lr_history = [0.1, 0.1, 0.1], [0.4, 0.2, 0.1]
    plain = script.draw(results_of(one=[still, still]))
    figure = script.draw(results_of(one=[still, moved]))
    rates = figure.axes[-1]
    assert [list(line.get_ydata()) for line in rates.lines] == [still.lr_history, moved.lr_history]
    assert len(figure.axes) == len(plain.axes) + 1
    assert figure.get_figheight() == pytest.approx(plain.get_figheight() + 1.2)


def test_the_default_grid_holds_the_rates_that_are_torchs_defaults():
    lrs = script.learning_rates(*script.LR_RANGE, script.LR_COUNT)
    assert {0.001, 0.01} < set(lrs)


def test_the_profiles_are_those_of_the_complete_tasks(figure):
    _, profiles, _ = figure.axes
    a, b = profiles.lines  # ratios of a: 1, 20, infinite; of b: 20, 1, 1
    assert a.get_xdata().tolist() == pytest.approx([1, 20, script.DARKEST])
    assert a.get_ydata().tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert b.get_ydata().tolist() == pytest.approx([2 / 3, 1, 1])
    assert a.get_drawstyle() == "steps-post"
    assert a._dash_pattern != b._dash_pattern  # for prints in grey
    assert profiles.get_xscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert to_hex(a.get_color()) == to_hex(looks_of(["a", "b"])["a"]["color"])


# ---------------------------------------------------------------- the command line


FAST = [
    "--no-show",
    "--jobs",
    "1",
    "--seeds",
    "2",
    "--judges",
    "2",
    "--lr-count",
    "2",
    "--lr-range",
    "0.01",
    "0.1",
]


def test_an_optimizer_that_fails_half_way_is_a_row(workdir, capsys, homework):
    homework(FAILS)
    words = ["--tasks", "logistic(samples=64)", "--optimizers", "homework.Fails", "SGD"]
    assert exit_status(script.main, [*FAST, *words, "--csv", "a.csv"]) == 1
    out = capsys.readouterr().out
    assert "failed at step 3 of seed" in out
    assert "RuntimeError: boom" in out
    assert (workdir / "compare_tasks.png").exists()
    assert (workdir / "a.csv").read_text().count(",SGD,") >= 4


def test_a_lost_worker_leaves_a_row_without_numbers():
    columns, place = script.columns_of(["one"], ["a"]), Place("one", "a")
    cells = [column.told(column.cell(place, LOST_WORKER)) for column in columns]
    assert cells == ["one", "a", "-", "-", "-", "-"]
    whole = result([2.0, 1.0, 3.0], default=4.0, spread=0.0)
    cells = [column.told(column.cell(place, whole)) for column in columns]
    assert cells[2:5] == ["0.1", "1.000 [1.00, 1.00]", "4.000"]


def test_of_all_tasks_those_that_cannot_be_had_are_left_out(workdir, capsys, monkeypatch):
    def lacks(name):
        raise FileNotFoundError(name)

    for name in list(TASKS):
        if name not in ("terrain", "logistic"):
            monkeypatch.delitem(TASKS, name)
    monkeypatch.setattr("matplotlib.cbook.get_sample_data", lacks)
    assert exit_status(script.main, [*FAST, "--optimizers", "SGD"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("left out: task terrain: its data cannot be made: ValueError: this matpl")
    assert err.count("\n") == 1
    assert "\nlogistic" in out
    assert_refused(script.main, [*FAST, "--tasks", "terrain"], "no sample data", workdir, capsys)


def test_the_list_of_tasks_is_shown(workdir, capsys):
    assert exit_status(script.main, ["--tasks", "list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(TASKS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "spiral"], "did you mean spirals"),
        (["--tasks", "logistic(size=3)"], "have no 'size'"),
        (["--tasks"], "--tasks"),
        (["--tasks", "logistic", "--optimizers", "Adam(lr=0.1)"], "names its own lr"),
        (["--tasks", "logistic", "--optimizers", "Adma"], "did you mean"),
        (["--tasks", "logistic", "--optimizers", "Muon"], "Muon only supports 2D"),
        (["--tasks", "logistic", "--lr-range", "1", "0.1"], "--lr-range"),
        (["--tasks", "logistic", "--seeds", "100000000"], "--seeds 100000000"),
        (["--jobs", "0"], "--jobs"),
        (["--dask", "nonsense"], "not an address"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys):
    assert_refused(script.main, [*FAST, *words], message, workdir, capsys)


def test_without_its_package_dask_is_refused_with_what_to_install(workdir, capsys, monkeypatch):
    monkeypatch.setattr(types.importlib.util, "find_spec", lambda name: None)
    words = ["--dask", "tcp://127.0.0.1:8786"]
    assert_refused(script.main, [*FAST, *words], "pip install distributed", workdir, capsys)


def test_there_is_a_job_a_core_by_default(monkeypatch):
    assert script.make_parser().get_default("jobs") == options.n_cores()
    monkeypatch.delattr(options.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(options.os, "cpu_count", lambda: 7)
    assert options.n_cores() == 7


def test_what_is_made_up_here_is_what_it_says():
    assert made_up([2.0], seeds=3).held_out_losses.tolist() == [2.0] * 3


def test_a_cell_without_a_factor_is_as_light_as_the_best_and_its_loss_stands_in_the_middle():
    below_0 = result([-1.0, -2.0, -1.0]), result([-3.0, -1.0, -1.0])
    axes = script.draw(results_of(one=below_0, two=[result([1.0] * 3), result([500.0] * 3)])).axes
    shades = axes[0].images[0].get_array().tolist()
    assert shades == [[0, 0], [0, pytest.approx(2.0)]]  # powers of ten, at most 100 times
    places = {text.get_text(): text.get_position() for text in axes[0].texts}
    assert all(abs(x - round(x)) < 0.1 for text, (x, _) in places.items() if "\n" in text)
