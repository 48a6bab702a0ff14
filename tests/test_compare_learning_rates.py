"""Many seeds and learning rates: the numbers, and what is said of them."""

import csv
import math
import re
from dataclasses import replace
from functools import partial

from lab.command_line.specs import parse_optimizer, parse_optimizers
from lab.pictures.curves import named_lines
from lab.pictures.looks import looks_of
from lab.training.metrics import Metric
from lab.training.runs import Training
from lab.training.train import IN_TURN

import pytest
import torch
from conftest import (
    SMALL,
    SmallNet,
    assert_refused,
    exit_status,
    made_up_sweep,
    small_data,
    textbook_training,
)
from matplotlib.colors import to_hex
from torch.nn.functional import mse_loss

import compare_learning_rates as script
from data import parabola
from tasks import TASKS

FAST = ["--no-show", "--epochs", "2", "--task", "parabola(samples=64)", "--batch-size", "32"]
FAST += ["--seeds", "3", "--judges", "4", "--lr-count", "3"]
PARABOLA = TASKS["parabola"]
SHORT = replace(PARABOLA, make_data=partial(parabola, samples=64), epochs=2, batch_size=32)


def run_main(*words):
    return exit_status(script.main, [*FAST, *words])


def test_each_number_is_that_of_the_textbooks_loop():
    specs = parse_optimizers(["SGD(momentum=0.8)", "Adam()"])
    task = replace(SMALL, epochs=2, batch_size=50)
    for label, result in script.compare(specs, task, [0.003, 0.03], [7, 8]):
        assert {0.003, 0.03} <= set(result.lrs)
        for r, lr in enumerate(result.lrs):
            for k, seed in enumerate((7, 8)):
                losses, net = textbook_training(
                    small_data(seed)[0], SmallNet, parse_optimizer(label, lr), mse_loss, seed, 2, 50
                )
                ends = [
                    mse_loss(net(x), y).item() for x, y in (d.tensors for d in small_data(seed))
                ]
                assert result.final_losses[r, k].item() == pytest.approx(ends[0], rel=1e-3)
                assert result.held_out_losses[r, k].item() == pytest.approx(ends[1], rel=1e-3)
                assert result.losses[:, r, k].tolist() == pytest.approx(losses, rel=1e-3)


def test_company_does_not_change_the_numbers():
    settings = {"task": replace(SMALL, epochs=2), "lrs": [0.01, 0.1], "seeds": range(3)}
    alone = dict(script.compare(parse_optimizers(["Adam"]), **settings))
    company = dict(
        script.compare(parse_optimizers(["SGD", "LBFGS(max_iter=2)", "Adam"]), **settings)
    )
    assert torch.equal(alone["Adam"].losses, company["Adam"].losses)
    assert torch.equal(alone["Adam"].final_losses, company["Adam"].final_losses)
    assert not company["LBFGS(max_iter=2)"].runs.stacked


# ---------------------------------------------------------------- what the numbers say


def test_the_sentences_follow_from_the_numbers(monkeypatch):
    monkeypatch.setattr(Training, "metric", lambda *_: None)
    few = {"seeds": 10, "spread": 0.001, "judges": 10}
    sweeps = {
        "narrow": made_up_sweep([5.0, 1.0, 5.0], **few),
        "wide": made_up_sweep([1.0, 1.0, 1.2], **few),
        "worse": made_up_sweep([90.0, 80.0, 7.0], **few),
    }
    head, worse, same, forgiving, ends = script.conclusions(sweeps)
    assert head == (
        "At the best rates, over 10 seeds that chose none (exact signed-rank intervals, 95% for 3 "
        "pairs at once):"
    )
    assert worse == ("Worse: worse than narrow, 7 times [7, 7]; worse than wide, 7 times [7, 7].")
    assert same == "Equal within 10 %: narrow and wide."
    assert forgiving == (
        "Most forgiving of a badly chosen rate: wide. While the rate grows 100-fold, the loss "
        "stays within 1.5 times the best of all."
    )
    assert "wide, worse, which has grown by 3 decades." in ends
    assert "narrow" not in ends
    sweeps["narrow"].judged.held_out_losses = torch.tensor([1.0, 1.2] * 5)
    _, _, unknown, *_ = script.conclusions(sweeps)
    assert re.fullmatch(r"Not known: narrow and wide \(about \d+ seeds would tell\)\.", unknown)
    assert "Equal within 50 %: narrow and wide." in script.conclusions(sweeps, equal=0.5)


def test_an_accuracy_is_judged_by_the_share_of_errors_and_another_metric_by_itself(monkeypatch):
    sweeps = {label: made_up_sweep([2.0, 1.0, 2.0], judges=10) for label in "ab"}
    for label, right in (("a", 0.9), ("b", 0.8)):
        monkeypatch.setattr(sweeps[label], "measured", lambda _, x=right: torch.full((10,), x))
    metrics = {
        "accuracy": Metric("accuracy", ".1%", None, chances=lambda x: x),
        "own": Metric("own", ".4g", None),
    }
    told = {}
    for name, metric in metrics.items():
        monkeypatch.setattr(Training, "metric", lambda *_, metric=metric: metric)
        told[name] = script.conclusions(sweeps)[2:4]
    assert told == {
        "accuracy": ["By the share of errors:", "Worse: b than a, by 0.1 [0.1, 0.1]."],
        "own": ["By the own:", "Higher: a than b, by 0.1 [0.1, 0.1]."],
    }


def test_who_fails_at_every_rate_is_not_praised_as_forgiving():
    flat = made_up_sweep([0.61] * 5)  # as SGD on two spirals
    steep = made_up_sweep([0.5, 0.1, 0.033, 0.04, 0.5])
    (sentence,) = script.forgiving_in_words({"SGD": flat, "Adam": steep})
    assert "rate: Adam. While the rate grows 10-fold" in sentence
    steep = made_up_sweep([0.5, 0.1, 0.033, 0.05, 0.5])  # just above 1.5 times
    assert script.forgiving_in_words({"SGD": flat, "Adam": steep}) == []  # a single rate
    fine = made_up_sweep([1.0] * 5, [1e-4, 1e-3, 1e-2, 0.1, 1.0])
    (sentence,) = script.forgiving_in_words({"a": fine, "b": fine})
    assert "rate: a, b. While the rate grows 10,000-fold" in sentence
    below = made_up_sweep([-1.0, 1.0])
    assert script.forgiving_in_words({"a": below, "b": fine}) == []


def test_what_diverged_at_every_rate_is_told_and_compared_with_nothing(workdir):
    sweeps = {"lost": made_up_sweep([math.inf, math.inf]), "fine": made_up_sweep([1.0, 2.0])}
    sentences = script.conclusions(sweeps)
    assert sentences[0] == "lost diverged at every rate."
    assert not any("lost" in sentence for sentence in sentences[1:])
    script.draw(sweeps).savefig("a.png")
    script.draw({"lost": sweeps["lost"]}).savefig("b.png")
    assert script.conclusions({"lost": sweeps["lost"]}) == sentences[:1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
def test_of_a_grid_that_was_cut_short_nothing_is_said_that_rests_on_all_of_it(error):
    sweeps = {
        "a": made_up_sweep([1.0, 1.0, 1.2], judges=10),
        "b": made_up_sweep([9.0, 8.0, 7.0]),
        "lost": made_up_sweep([math.inf, math.inf]),
        "one": made_up_sweep([math.inf, 1.0, math.inf]),
    }
    said = " ".join(script.conclusions(sweeps))
    for words in ("lost diverged", "forgiving", "end of the grid for a, b", "one is the only"):
        assert words in said
    for label in ("b", "lost", "one"):  # the first one was whole
        sweeps[label].runs.error = error
    assert script.conclusions(sweeps) == [
        "The best rate still lies at an end of the grid for a, which has grown by 3 decades."
    ]
    sweeps["b"].runs.error = None
    assert "forgiving" not in " ".join(script.conclusions(sweeps))
    assert script.steps_to(sweeps["b"], 1e-9).isinf().all()
    sweeps["b"].runs.error = error
    assert script.steps_to(sweeps["b"], 1e-9) is None  # and not "never"
    assert (script.steps_to(sweeps["b"], 1e9) == 4).all()


def test_with_too_few_seeds_it_says_how_many_would_do():
    sweeps = {k: made_up_sweep([3.0, 1.0 + i, 2.0], judges=5) for i, k in enumerate("abcd")}
    assert script.conclusions(sweeps)[0] == (
        "Nothing is known: 5 judges are too few for a test; 8 would do."
    )


def test_flattery_is_said_where_it_shows():
    result = made_up_sweep([2.0, 3.0], seeds=4, judges=3)
    assert script.flattery_in_words({"a": result}) == []
    result.judged.held_out_losses = torch.tensor([9.0, 3.0, 1.0])
    (sentence,) = script.flattery_in_words({"a": result})
    assert sentence == (  # 3 on the seeds that did not choose, 2 on those that did
        "The held-out losses are those of seeds that did not choose the rate. On the seeds that "
        "did, they look lower: by 33% for a."
    )
    (sentence,) = script.flattery_in_words({"a": result, "b": result})
    assert sentence.endswith("lower: by 33% for a, 33% for b.")
    assert script.flattery_in_words({"a": made_up_sweep([2.0, 3.0])}) == []  # nothing judged


def test_flattery_of_less_than_a_hundredth_is_not_said():
    for honest, said in ((1.009, 0), (1.011, 1)):
        result = made_up_sweep([1.0, 2.0], seeds=4, judges=3)
        result.judged.held_out_losses = torch.full((3,), honest, dtype=torch.float64)
        assert len(script.flattery_in_words({"a": result})) == said


def test_one_optimizer_or_one_seed_allows_no_comparison():
    assert script.conclusions({"a": made_up_sweep([3.0, 1.0, 2.0])}) == []
    one_seed = {label: made_up_sweep([3.0, 1.0, 2.0], seeds=1) for label in "ab"}
    assert script.conclusions(one_seed) == []


# ---------------------------------------------------------------- what comes out


def test_the_table_and_the_csv(workdir, capsys):
    assert run_main("--csv", "rates.csv", "--seed", "4") == 0
    out = capsys.readouterr().out
    with (workdir / "rates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    lrs = [1e-4, 1e-2, 1.0]
    for label, result in script.compare(None, SHORT, lrs, [4, 5, 6], range(7, 11)):
        *mine, a, b, c, d = [row for row in rows if row["optimizer"] == label]
        assert {row["stage"] for row in mine} == {"chosen"}
        others = [a, b, c, d]
        assert {(row["stage"], float(row["lr"])) for row in others} == {("judged", result.best_lr)}
        assert [int(row["seed"]) for row in others] == [7, 8, 9, 10]
        judged = torch.tensor([float(row["held_out_loss"]) for row in others])
        losses = result.final_losses, result.held_out_losses
        for key, each in zip(("final_loss", "held_out_loss"), losses, strict=True):
            assert [float(row[key]) for row in mine] == each.flatten().tolist()
        assert set(lrs) <= set(result.lrs)
        assert [int(row["seed"]) for row in mine] == [4, 5, 6] * len(result.lrs)
        assert [float(row["lr"]) for row in mine] == [lr for lr in result.lrs for _ in range(3)]
        best = result.held_out_losses.median(1).values
        line = next(line for line in out.splitlines() if line.startswith(label + " "))
        assert f" {result.lrs[best.argmin()]:.3g} " in line
        assert float(line.split("]")[1].split("[")[0]) == pytest.approx(
            judged.quantile(0.5).item(), rel=6e-4
        )
        assert "{:.3g} to {:.3g}".format(*result.good_lrs()) in line


def test_a_row_worked_by_hand():
    result = made_up_sweep([2.0, 1.0], [0.1, 1.0], seeds=4, judges=4)
    result.judged.held_out_losses = torch.tensor([4.0, 5, 4, 5])
    columns = script.columns_of(parse_optimizers(["SGD"]), replace(SMALL, target=1.5), False)
    row = {column.title: column.told(column.cell("SGD", result)) for column in columns}
    assert row["loss"] == "0.5000 [0.500, 0.500]"  # half of what is made up
    assert row["held-out loss"] == "4.500 [4.00, 5.00]"
    assert (row["best lr"], row["good rates"]) == ("1", "1 to 1")
    assert row["steps to 1.5"] == "4 [4, 4]"  # an epoch; the loss of each step is the same
    columns = script.columns_of(parse_optimizers(["SGD"]), replace(SMALL, target=0.5), False)
    row = {column.title: column.told(column.cell("SGD", result)) for column in columns}
    assert row["steps to 0.5"] == "never"


def test_the_same_command_gives_the_same_bytes(workdir):
    assert run_main("--csv", "one.csv") == run_main("--csv", "two.csv") == 0
    assert (workdir / "one.csv").read_bytes() == (workdir / "two.csv").read_bytes()


def test_of_classes_the_table_has_the_accuracy_at_the_best_rate(workdir, capsys):
    words = ["--task", "logistic", "--epochs", "1", "--optimizers", "SGD", "--batch-size", "50"]
    words += ["--lr-range", "0.01", "1", "--lr-count", "3", "--seeds", "4", "--seed", "0"]
    words += ["--judges", "4"]
    assert exit_status(script.main, ["--no-show", *words]) == 0
    head, row, *_ = capsys.readouterr().out.splitlines()
    assert " accuracy" in head
    task = replace(TASKS["logistic"], epochs=1, batch_size=50)
    sgd = {"SGD": parse_optimizer("SGD")}
    ((_, result),) = script.compare(sgd, task, (0.01, 0.1, 1.0), range(4), range(4, 8))
    x, y = task.make_data(6)[1].tensors
    k = 2  # the net of seed 6 at the best rate
    assert result.at_best.trainings[k].lr == result.best_lr
    right = (result.at_best.predict(x, k).argmax(1) == y).double().mean().item()
    metric = result.runs.trainings[k].metric(result.runs.task)
    assert result.measured(metric)[2].item() == pytest.approx(right)
    quarters = torch.tensor([0.25, 0.5, 0.75]).double()
    low, median, high = result.measured(metric).double().quantile(quarters).tolist()
    assert f" {median:.1%} [{low:.1%}, {high:.1%}]" in row


def test_the_figure_marks_best_rates_and_divergence():
    sweeps = {
        "SGD": made_up_sweep([3.0, 1.0, math.inf], [0.1, 1.0, 10.0]),
        "Adam": made_up_sweep([2.0, 0.5, 4.0], [0.1, 1.0, 10.0]),
    }
    looks = looks_of(sweeps)
    figure = script.draw(sweeps)
    left, right = figure.axes
    assert left.get_xscale() == left.get_yscale() == "log"
    marks = {to_hex(line.get_color()): line.get_xydata()[0].tolist() for line in left.lines
             if line.get_marker() == "o"}  # fmt: skip
    assert marks == {
        to_hex(looks["SGD"]["color"]): [1.0, 1.0],
        to_hex(looks["Adam"]["color"]): [1.0, 0.5],
    }
    lines = [line for line in left.lines if len(line.get_xdata()) == 3]
    curves = {line.get_label(): line for line in named_lines(left)}
    thin = [line for line in lines if line not in curves.values()]
    assert [line.get_ydata()[0] for line in thin] == [1.5, 1.0]  # the training set's
    for line, curve in zip(thin, curves.values(), strict=True):
        assert line.get_linewidth() == curve.get_linewidth() / 2
        assert line.get_color() == curve.get_color()
    assert curves["Adam"].get_xydata().tolist() == [[0.1, 2.0], [1.0, 0.5], [10.0, 4.0]]
    assert curves["SGD"].get_xydata().tolist()[:2] == [[0.1, 3.0], [1.0, 1.0]]
    (cross,) = [c for c in left.collections if len(c.get_sizes()) == 3]
    assert [size > 0 for size in cross.get_sizes()] == [False, False, True]
    assert to_hex(cross.get_edgecolor()[0]) == to_hex(looks["SGD"]["color"])
    # From a little below the lowest quartile to three times the loss at the start.
    assert left.get_ylim() == (pytest.approx(0.8 * 0.25), pytest.approx(3 * 3))
    assert right.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "SGD, lr=1",
        "Adam, lr=1",
        *("training set", "best rate", "some diverged", "off the axis", "each mini-batch"),
    ]
    assert [line.get_label() for line in named_lines(right)] == ["SGD, lr=1", "Adam, lr=1"]
    assert figure._supxlabel.get_text() == (
        "5 seeds (0 to 4), batch size 32, right: means of 4 steps, at the best rates"
    )
    for sweep in sweeps.values():
        sweep.runs.steps_per_epoch = 1  # of full batches
    caption = script.draw(sweeps)._supxlabel.get_text()
    assert caption.endswith("batch size 32, right: at the best rates")


def test_what_is_trained_one_by_one_is_said(workdir, capsys):
    assert run_main("--optimizers", "SGD", "LBFGS(max_iter=2)", "--epochs", "1") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count(IN_TURN) == 1
    assert f"LBFGS(max_iter=2): {IN_TURN} (ValueError: LBFGS doesn't support" in out


def interrupt(items, total, unit):
    """A progress during which Ctrl-C comes, after two items."""
    for number, item in enumerate(items):
        if number == 2:
            raise KeyboardInterrupt
        yield item


def test_the_sweep_that_was_interrupted_is_the_last_one():
    sweeps = script.compare(None, SHORT, [0.01, 0.1], range(3), progress=lambda name: interrupt)
    label, result = next(sweeps)
    assert (label, len(result.losses)) == ("SGD", 2)
    assert result.interrupted
    assert "interrupted at step 3" in result.note
    with pytest.raises(KeyboardInterrupt):
        next(sweeps)


def test_an_optimizer_that_fails_leaves_its_rates_that_are_complete(workdir, capsys, homework):
    homework(
        "import torch\n"
        "class Fails(torch.optim.SGD):\n"
        "    def step(self, closure=None):\n"
        "        if self.param_groups[0]['lr'] > 0.5 and len(self.state):\n"
        "            raise RuntimeError('boom')\n"
        "        self.state['calls'] = True\n"
        "        return super().step(closure)\n"
    )
    assert run_main("--optimizers", "homework.Fails", "Adam", "--csv", "a.csv") == 1
    out = capsys.readouterr().out
    assert "failed at step 2 of seed" in out
    assert "RuntimeError: boom" in out
    labels = [row.split(",")[0] for row in (workdir / "a.csv").read_text().splitlines()]
    assert labels.count("homework.Fails") == 2 * 3
    assert labels.count("Adam") >= 3 * 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizers", "Adam(lr=0.1)"], "names its own lr"),
        (["--lr-range", "1", "0.1"], "--lr-range"),
        (["--lr-range", "1", "1"], "--lr-range"),
        (["--lr-range", "0", "1"], "--lr-range"),
        (["--lr-range", "0.1"], "--lr-range"),
        (["--lr-range", "0.1", "inf"], "inf"),
        (["--lr-count", "1"], "--lr-count"),
        (["--lr-range", "1", "1.0000001"], "too narrow"),
        (["--lr-count", "0"], "--lr-count"),
        (["--seeds", "0"], "--seeds"),
        (["--seeds", "9", "--seed", str(2**64 - 3)], "--seeds"),
        (["--device", "cuda:99"], "--device"),
        (["--device", "toaster"], "toaster"),
        (["--optimizers", "Adma"], "did you mean"),
        (["--optimizers", "SparseAdam"], "SparseAdam does not support dense gradients"),
        (["--optimizers", "Muon"], "Muon only supports 2D"),
        (["--epochs", "0"], "--epochs"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys):
    assert_refused(script.main, [*FAST, *words], message, workdir, capsys)
