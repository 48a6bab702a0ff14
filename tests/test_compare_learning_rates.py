"""Many seeds and learning rates: the numbers, and what is said of them."""

import csv
import math
from functools import partial
from itertools import pairwise

from lab import plotting
from lab.specs import parse_optimizer, parse_optimizers
from lab.stacking import IN_TURN
from lab.trainings import Runs, Training

import pytest
import torch
from conftest import SmallNet, assert_refused, exit_status, small_data, textbook_training
from matplotlib.colors import to_hex

import compare_learning_rates as script
import settings
from data import make_dataset

FAST = ["--no-show", "--epochs", "2", "--samples", "64", "--batch-size", "32"]
FAST += ["--seeds", "3", "--lr-count", "3"]


def run_main(*words):
    return exit_status(script.main, [*FAST, *words])


def made_up(medians, lrs=None, seeds=5, spread=0.0):
    """Runs made up so that each rate has this median; infinite where it diverged."""
    lrs = lrs or [10.0 ** (i - len(medians) + 1) for i in range(len(medians))]
    noise = spread * torch.linspace(-1, 1, seeds)
    final = (torch.tensor(medians).unsqueeze(1) + noise).flatten().double()
    every = [Training(seed, None, lr) for lr in lrs for seed in range(seeds)]
    return Runs(every, final.expand(8, -1), final, SmallNet(), {}, 4, lrs[0])


def sweep(*args, **kwargs):
    return script.Sweep(made_up(*args, **kwargs))


def test_the_grid_is_even_in_decades():
    lrs = script.learning_rates(1e-4, 1, 9)
    assert lrs[0] == 1e-4
    assert lrs[-1] == 1
    assert [b / a for a, b in pairwise(lrs)] == pytest.approx([10**0.5] * 8, rel=1e-5)


def test_each_number_is_that_of_the_textbooks_loop():
    specs = parse_optimizers(["SGD(momentum=0.8)", "Adam()"])
    runs = dict(
        script.compare(specs, [0.003, 0.03], small_data, SmallNet, [7, 8], epochs=2, batch_size=50)
    )
    for label, run in runs.items():
        result = script.Sweep(run)
        assert result.lrs == [0.003, 0.03]
        for r, lr in enumerate(result.lrs):
            for k, seed in enumerate((7, 8)):
                losses, net = textbook_training(
                    small_data(seed), SmallNet, lambda p, label=label, lr=lr: parse_optimizer(
                        label, lr)(p), settings.LOSS, seed, 2, 50
                )  # fmt: skip
                x, y = small_data(seed).tensors
                final = settings.LOSS(net(x), y).item()
                assert result.final_losses[r, k].item() == pytest.approx(final, rel=1e-3)
                assert result.losses[:, r, k].tolist() == pytest.approx(losses, rel=1e-3)


def test_company_does_not_change_the_numbers():
    settings = {"lrs": [0.01, 0.1], "make_data": small_data, "make_net": SmallNet}
    settings |= {"seeds": range(3), "epochs": 2}
    alone = dict(script.compare(parse_optimizers(["Adam"]), **settings))
    company = dict(
        script.compare(parse_optimizers(["SGD", "LBFGS(max_iter=2)", "Adam"]), **settings)
    )
    assert torch.equal(alone["Adam"].losses, company["Adam"].losses)
    assert torch.equal(alone["Adam"].final_losses, company["Adam"].final_losses)
    assert not company["LBFGS(max_iter=2)"].stacked


def test_rates_that_are_not_complete_are_left_out():
    runs = made_up([3.0, 2.0, 1.0])
    runs.trainings = runs.trainings[:13]  # of 5 seeds at each rate
    runs.losses, runs.final_losses = runs.losses[:, :13], runs.final_losses[:13]
    result = script.Sweep(runs)
    assert result.lrs == [0.01, 0.1]
    assert result.final_losses.shape == (2, 5)
    assert result.best == 1


# ---------------------------------------------------------------- what the numbers say


def test_the_best_rate_and_the_good_ones_around_it():
    result = sweep([9.0, 1.4, 1.0, 1.49, 1.6, 1.2])
    assert result.best == 2
    assert script.good_rates(result) == (1e-4, 1e-2)  # the gap at 1.6 ends it
    assert script.good_rates(sweep([1.0, 2.0, math.inf])) == (0.01, 0.01)
    assert script.good_rates(sweep([2.0, 2.9, 3.1])) == (0.01, 0.1)
    assert script.good_rates(sweep([3.1, 2.9, 2.0])) == (0.1, 1.0)


def test_each_seed_is_judged_at_the_rate_that_the_other_half_chose():
    result = sweep([2.0, 1.0], seeds=4)
    result.final_losses = torch.tensor([[1.0, 5, 1, 5], [4.0, 2, 4, 2]])
    # Seeds 0 and 2 are best at the first rate, 1 and 3 at the second: each gets the other's.
    assert script.judged(result).tolist() == [4, 5, 4, 5]
    one = sweep([2.0, 1.0], seeds=1)
    assert script.judged(one).tolist() == [1.0]


def test_the_sentences_follow_from_the_numbers():
    sweeps = {
        "narrow": sweep([5.0, 1.0, 5.0], seeds=10, spread=0.01),
        "wide": sweep([1.0, 1.0, 1.2], seeds=10, spread=0.01),
        "worse": sweep([90.0, 80.0, 7.0], seeds=10, spread=0.01),
    }
    ties, forgiving, ends = script.conclusions(sweeps)
    assert ties.startswith("Not to be told apart at their best rates, over 10 seeds (")
    assert ties.endswith(": narrow and wide.")
    assert "rate: wide, within 1.5 times the best loss while the rate grows 100-fold" in forgiving
    assert "wide, worse" in ends
    assert "narrow" not in ends
    sweeps["narrow"] = sweep([5.0, 2.0, 5.0], seeds=10, spread=0.01)
    assert script.conclusions(sweeps)[0].endswith(": none.")


def test_what_diverged_at_every_rate_is_told_and_compared_with_nothing(workdir):
    runs = {"lost": made_up([math.inf, math.inf]), "fine": made_up([1.0, 2.0])}
    sentences = script.conclusions({label: script.Sweep(run) for label, run in runs.items()})
    assert sentences[0] == "lost diverged at every rate."
    assert not any("lost" in sentence for sentence in sentences[1:])
    script.draw(runs).savefig("a.png")
    script.draw({"lost": runs["lost"]}).savefig("b.png")
    assert script.conclusions({"lost": script.Sweep(runs["lost"])}) == sentences[:1]


def test_with_too_few_seeds_it_says_how_many_would_do():
    sweeps = {label: sweep([3.0, 1.0 + i, 2.0]) for i, label in enumerate("abcd")}
    assert script.conclusions(sweeps)[0] == (
        "Not to be told apart at their best rates, over 5 seeds: any two, as these are too few "
        "seeds for a test; 8 would do."
    )


def test_flattery_is_said_where_it_shows():
    result = sweep([2.0, 1.0], seeds=4)
    assert script.flattery_in_words({"a": result}) == []
    result.final_losses = torch.tensor([[1.0, 5, 1, 5], [4.0, 2, 4, 2]])
    result.median, result.best = torch.tensor([3.0, 3.0]), 0
    (sentence,) = script.flattery_in_words({"a": result})
    assert sentence == (
        "a would look 50% better if its rate were judged on the seeds that chose it."
    )


def test_flattery_of_less_than_a_hundredth_is_not_said():
    for honest, said in ((1.009, 0), (1.011, 1)):
        result = sweep([2.0, 1.0], seeds=4)
        result.final_losses = torch.full((2, 4), honest, dtype=torch.float64)
        result.median = torch.ones(2, dtype=torch.float64)
        assert len(script.flattery_in_words({"a": result})) == said


def test_a_named_difference_is_a_false_alarm_in_few_tables():
    generator = torch.Generator().manual_seed(0)
    named = 0
    for _ in range(100):  # four optimizers that are the same, but for luck
        sweeps = {}
        for label in "abcd":
            sweeps[label] = sweep([3.0, 1.0, 1.01, 2.0], seeds=10)
            noise = 0.1 * torch.randn(sweeps[label].final_losses.shape, generator=generator)
            sweeps[label].final_losses = sweeps[label].final_losses + noise
        ties = script.conclusions(sweeps)[0]
        named += ties.count(" and ") < 6
    assert named <= 10


def test_one_optimizer_or_one_seed_allows_no_comparison():
    assert script.conclusions({"a": sweep([3.0, 1.0, 2.0])}) == []
    one_seed = {label: sweep([3.0, 1.0, 2.0], seeds=1) for label in "ab"}
    assert script.conclusions(one_seed) == []


# ---------------------------------------------------------------- what comes out


def test_the_table_and_the_csv(workdir, capsys):
    assert run_main("--csv", "rates.csv", "--seed", "4") == 0
    out = capsys.readouterr().out
    with (workdir / "rates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    assert len(rows) == 4 * 3 * 3
    lrs = [1e-4, 1e-2, 1.0]
    data = partial(make_dataset, n_samples=64)
    for label, run in script.compare(None, lrs, data, seeds=[4, 5, 6], epochs=2, batch_size=32):
        mine = [row for row in rows if row["optimizer"] == label]
        assert [float(row["final_loss"]) for row in mine] == run.final_losses.tolist()
        assert [int(row["seed"]) for row in mine] == [4, 5, 6] * 3
        assert [float(row["lr"]) for row in mine] == [lr for lr in lrs for _ in range(3)]
        result = script.Sweep(run)
        best = result.final_losses.median(1).values
        judged = script.judged(result).median()
        line = next(line for line in out.splitlines() if line.startswith(label + " "))
        assert f" {lrs[best.argmin()]:.3g} " in line
        assert f" {judged:.5f} [" in line
        assert "{:.3g} to {:.3g}".format(*script.good_rates(result)) in line


def test_the_same_command_gives_the_same_bytes(workdir):
    assert run_main("--csv", "one.csv") == run_main("--csv", "two.csv") == 0
    assert (workdir / "one.csv").read_bytes() == (workdir / "two.csv").read_bytes()


def test_the_figure_marks_best_rates_and_divergence():
    sweeps = {
        "SGD": made_up([3.0, 1.0, math.inf], [0.1, 1.0, 10.0]),
        "Adam": made_up([2.0, 0.5, 4.0], [0.1, 1.0, 10.0]),
    }
    figure = script.draw(sweeps)
    figure.canvas.draw()
    left, right = figure.axes
    assert left.get_xscale() == left.get_yscale() == "log"
    marks = {to_hex(line.get_color()): line.get_xydata()[0].tolist() for line in left.lines
             if line.get_marker() == "o"}  # fmt: skip
    assert marks == {
        to_hex(plotting.COLORS["SGD"]): [1.0, 1.0],
        to_hex(plotting.COLORS["Adam"]): [1.0, 0.5],
    }
    curves = {line.get_label(): line for line in left.lines if len(line.get_xdata()) == 3}
    assert curves["Adam"].get_xydata().tolist() == [[0.1, 2.0], [1.0, 0.5], [10.0, 4.0]]
    assert curves["SGD"].get_xydata().tolist()[:2] == [[0.1, 3.0], [1.0, 1.0]]
    crosses = [c for c in left.collections if len(c.get_sizes()) == 3]
    assert [[size > 0 for size in cross.get_sizes()] for cross in crosses] == [
        [False, False, True],
        [False, False, False],
    ]
    # From a little below the lowest quartile to three times the loss at the start.
    assert left.get_ylim() == (pytest.approx(0.8 * 0.5), pytest.approx(3 * 3))
    assert right.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "SGD, lr=1",
        "Adam, lr=1",
    ]
    assert [line.get_xdata()[0] for line in right.lines] == [1, 1]
    assert [line.get_label() for line in right.lines] == ["SGD, lr=1", "Adam, lr=1"]


def test_what_is_trained_one_by_one_is_said(workdir, capsys):
    assert run_main("--optimizers", "SGD", "LBFGS(max_iter=2)", "--epochs", "1") == 0
    out = capsys.readouterr().out
    assert out.count(IN_TURN) == 1
    assert f"LBFGS(max_iter=2): {IN_TURN}\n" in out


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
    assert (labels.count("homework.Fails"), labels.count("Adam")) == (2 * 3, 3 * 3)


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
