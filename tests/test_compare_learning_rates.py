"""Many seeds and learning rates: the numbers, and what is said of them."""

import csv
import math
from itertools import pairwise

import pytest
import torch
from conftest import assert_refused, exit_status
from matplotlib.colors import to_hex

import cli
import compare_learning_rates as script
import compare_optimizers
import plotting
from data import make_dataset

FAST = ["--no-show", "--epochs", "2", "--samples", "64", "--seeds", "3", "--lr-count", "3"]


def run_main(*words):
    return exit_status(script.main, [*FAST, *words])


def sweep(medians, lrs=None, seeds=5, spread=0.0):
    """A sweep made up so that each rate has this median; infinite where it diverged."""
    lrs = lrs or [10.0 ** (i - len(medians) + 1) for i in range(len(medians))]
    noise = spread * torch.linspace(-1, 1, seeds)
    final = torch.tensor(medians).unsqueeze(1) + noise
    losses = final.unsqueeze(0).expand(8, -1, -1)
    return script.Sweep(lrs, losses, final, 4, 0.0, True)


def test_the_grid_is_even_in_decades():
    lrs = script.learning_rates(1e-4, 1, 9)
    assert lrs[0] == 1e-4
    assert lrs[-1] == 1
    assert [b / a for a, b in pairwise(lrs)] == pytest.approx([10**0.5] * 8, rel=1e-5)


def test_the_default_is_the_tutorials_four_at_nine_rates_and_ten_seeds():
    specs = cli.parse_optimizers(script.OPTIMIZERS)
    presets = cli.parse_optimizers(cli.PRESETS)
    assert {k: v.call for k, v in specs.items()} == {k: v.call for k, v in presets.items()}
    assert (script.LR_RANGE, script.LR_COUNT, script.SEEDS) == ((1e-4, 1.0), 9, 10)
    settings = (script.EPOCHS, script.BATCH_SIZE, script.N_SAMPLES, script.NOISE)
    assert settings == (12, 32, 1000, 0.1)


def test_each_number_is_that_of_the_plain_comparison():
    specs = cli.parse_optimizers(["Momentum", "Adam"])
    sweeps = dict(script.compare(specs, [0.003, 0.03], seeds=2, seed=7, epochs=2, n_samples=100))
    for label, result in sweeps.items():
        for r, lr in enumerate(result.lrs):
            for k in range(2):
                maker = cli.parse_optimizers([label], lr)
                dataset = make_dataset(100, 0.1, seed=7 + k)
                ((_, run),) = compare_optimizers.compare(maker, dataset, epochs=2, seed=7 + k)
                assert result.final_losses[r, k].item() == pytest.approx(run.final_loss, rel=1e-3)
                assert result.losses[:, r, k].tolist() == pytest.approx(run.losses, rel=1e-3)


def test_company_does_not_change_the_numbers():
    settings = {"lrs": [0.01, 0.1], "seeds": 3, "epochs": 2, "n_samples": 64}
    alone = dict(script.compare(cli.parse_optimizers(["Adam"]), **settings))
    company = dict(
        script.compare(cli.parse_optimizers(["SGD", "LBFGS(max_iter=2)", "Adam"]), **settings)
    )
    assert torch.equal(alone["Adam"].losses, company["Adam"].losses)
    assert torch.equal(alone["Adam"].final_losses, company["Adam"].final_losses)
    assert not company["LBFGS(max_iter=2)"].stacked


# ---------------------------------------------------------------- what the numbers say


def test_the_best_rate_and_the_good_region_around_it():
    result = sweep([9.0, 1.4, 1.0, 1.49, 1.6, 1.2])
    assert result.best == 2
    assert script.good_region(result) == pytest.approx(2)  # the gap at 1.6 ends it
    assert script.good_region(sweep([1.0, 2.0, math.inf])) == 0


def test_the_interval_of_a_difference_is_paired():
    generator = torch.Generator().manual_seed(0)
    hard = 10 * torch.rand(20, generator=generator)  # seeds differ by far more than optimizers
    low, high = script.difference_interval(hard + 0.1, hard)
    assert (low, high) == pytest.approx((0.1, 0.1), abs=1e-5)
    noise = torch.randn(20, generator=generator)
    low, high = script.difference_interval(hard + noise, hard)
    assert low <= noise.median() <= high
    assert low < 0 < high
    low, high = script.difference_interval(torch.full((5,), math.inf), torch.ones(5))
    assert low > 1e20


def test_the_interval_covers_the_true_median_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    zeros, inside = torch.zeros(15), 0
    for _ in range(200):
        low, high = script.difference_interval(torch.randn(15, generator=generator), zeros, 500)
        inside += low <= 0 <= high
    assert 0.88 <= inside / 200 <= 0.995


def test_the_sentences_follow_from_the_numbers():
    sweeps = {
        "narrow": sweep([5.0, 1.0, 5.0], spread=0.01),
        "wide": sweep([1.0, 1.0001, 1.2], spread=0.01),
        "worse": sweep([90.0, 80.0, 7.0], spread=0.01),
    }
    ties, forgiving, ends = script.conclusions(sweeps)
    assert "narrow and wide" in ties
    assert "worse" not in ties
    assert "rate: wide, within 1.5 times the best loss over 2.0 decades" in forgiving
    assert "wide, worse" in ends
    assert "narrow" not in ends
    sweeps["narrow"] = sweep([5.0, 2.0, 5.0], spread=0.01)
    assert script.conclusions(sweeps)[0].endswith(": none.")


def test_one_optimizer_or_one_seed_allows_no_comparison():
    assert script.conclusions({"a": sweep([3.0, 1.0, 2.0])}) == []
    one_seed = {"a": sweep([3.0, 1.0, 2.0], seeds=1), "b": sweep([3.0, 1.0, 2.0], seeds=1)}
    assert script.conclusions(one_seed) == []


# ---------------------------------------------------------------- what comes out


def test_the_table_and_the_csv(workdir, capsys):
    assert run_main("--csv", "rates.csv", "--seed", "4") == 0
    out = capsys.readouterr().out
    with (workdir / "rates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    assert len(rows) == 4 * 3 * 3
    settings = {"lrs": [1e-4, 1e-2, 1.0], "seeds": 3, "seed": 4, "epochs": 2, "n_samples": 64}
    for label, result in script.compare(**settings):
        mine = [row for row in rows if row["optimizer"] == label]
        assert [float(row["final_loss"]) for row in mine] == result.final_losses.flatten().tolist()
        assert [int(row["seed"]) for row in mine] == [4, 5, 6] * 3
        assert [float(row["lr"]) for row in mine] == [
            lr for lr in settings["lrs"] for _ in range(3)
        ]
        best = result.final_losses.median(1).values
        line = next(line for line in out.splitlines() if line.startswith(label + " "))
        assert f"{result.lrs[best.argmin()]:.3g}" in line
        assert f"{best.min():.5f}" in line


def test_the_same_command_gives_the_same_bytes(workdir):
    assert run_main("--csv", "one.csv") == run_main("--csv", "two.csv") == 0
    assert (workdir / "one.csv").read_bytes() == (workdir / "two.csv").read_bytes()


def test_the_figure_marks_best_rates_and_divergence():
    sweeps = {
        "SGD": sweep([3.0, 1.0, math.inf], [0.1, 1.0, 10.0]),
        "Adam": sweep([2.0, 0.5, 4.0], [0.1, 1.0, 10.0]),
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
    crosses = [c for c in left.collections if len(c.get_sizes()) == 3]
    assert [[size > 0 for size in cross.get_sizes()] for cross in crosses] == [
        [False, False, True],
        [False, False, False],
    ]
    assert left.get_ylim()[1] >= 3  # what did not diverge is not hidden either
    assert [line.get_label() for line in right.lines] == ["SGD, lr=1", "Adam, lr=1"]


def test_what_is_trained_one_by_one_is_said(workdir, capsys):
    assert run_main("--optimizers", "SGD", "LBFGS(max_iter=2)", "--epochs", "1") == 0
    out = capsys.readouterr().out
    assert out.count("trained net by net") == 1
    assert cli.ONE_BY_ONE.format("LBFGS(max_iter=2)") in out


def test_an_interruption_saves_what_is_finished(workdir, capsys, monkeypatch):
    whole = script.compare

    def compare(*args, **kwargs):
        for i, item in enumerate(whole(*args, **kwargs)):
            if i == 2 and len(args[0]) > 1:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(script, "compare", compare)
    assert run_main("--csv", "a.csv") == 130
    assert {row.split(",")[0] for row in (workdir / "a.csv").read_text().splitlines()[1:]} == {
        "SGD",
        "Momentum",
    }
    assert (workdir / "compare_learning_rates.png").exists()


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
