"""Batch, stochastic and mini-batch gradient descent against loops written out."""

import csv
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import FAILS, SMALL, SmallNet, assert_refused, exit_status, small_data
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

import compare_batch_sizes as script
from data import parabola
from tasks import TASKS

FAST = ["--no-show", "--epochs", "2", "--task", "parabola(samples=64)"]
SHORT = replace(TASKS["parabola"], make_data=partial(parabola, samples=64), epochs=2)


def run_main(*words):
    return exit_status(script.main, [*FAST, *words])


def loss_of(net, dataset):
    x, y = dataset.tensors
    with torch.no_grad():
        return mse_loss(net(x), y).item()


def linear_net():
    return torch.nn.Linear(1, 1)


def sgd(params):
    return torch.optim.SGD(params, lr=0.01)


@pytest.mark.parametrize("batch_size", [100, 16, 1])
def test_losses_are_those_of_a_plain_loop(batch_size):
    def adam(params):
        return torch.optim.Adam(params, lr=0.01)

    ((_, run),) = script.compare(adam, replace(SMALL, epochs=3), [batch_size], seed=5)
    dataset, held_out = small_data(5)
    torch.manual_seed(5)
    net = SmallNet()
    optimizer = adam(net.parameters())
    loader = DataLoader(
        dataset, batch_size, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    expected, updates = [[loss_of(net, dataset)], [loss_of(net, held_out)]], 0
    for _ in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            optimizer.step()
            updates += 1
        expected[0].append(loss_of(net, dataset))
        expected[1].append(loss_of(net, held_out))
    assert [run.losses, run.held_out_losses] == expected
    assert run.updates_per_epoch == updates / 3
    assert run.steps == updates
    assert run.seconds[0] == 0
    assert run.seconds == sorted(run.seconds)
    assert len(run.seconds) == 4


def test_every_batch_size_starts_at_the_same_loss():
    runs = dict(script.compare(sgd, replace(SMALL, epochs=1), ("full", 8, 1, 999)))
    assert len({run.losses[0] for run in runs.values()}) == 1
    assert {size: run.updates_per_epoch for size, run in runs.items()} == {100: 1, 8: 13, 1: 100}


def test_gradient_noise_is_that_of_sampling_without_replacement():
    torch.manual_seed(0)
    net, (dataset, _) = SmallNet(), small_data(0, 1000)
    each = torch.stack([script.gradient(SMALL, net, *dataset[i : i + 1]) for i in range(1000)])
    full = each.mean(0)
    torch.testing.assert_close(
        full, script.gradient(SMALL, net, *dataset.tensors), rtol=1e-3, atol=1e-5
    )
    variance = (each - full).square().sum(1).mean()
    for batch_size in (1, 4, 32, 250):
        share = (1000 - batch_size) / 999 / batch_size
        expected = (variance * share).sqrt().item() / full.norm().item()
        noise = script.gradient_noise(SMALL, net, dataset, batch_size)
        assert noise == pytest.approx(expected, rel=0.15)
    assert script.gradient_noise(SMALL, net, dataset, 1000) == pytest.approx(0, abs=1e-6)


def test_gradient_noise_counts_whole_batches_only():
    torch.manual_seed(0)
    net, (dataset, _) = SmallNet(), small_data(0, 33)
    full = script.gradient(SMALL, net, *dataset.tensors)
    # Each whole batch leaves out one sample: how far that takes the gradient can be listed.
    rows = [[j for j in range(33) if j != i] for i in range(33)]
    left_out = torch.stack([script.gradient(SMALL, net, *dataset[row]) for row in rows]) - full
    expected = left_out.square().sum(1).mean().sqrt() / full.norm()
    noise = script.gradient_noise(SMALL, net, dataset, 32)
    assert noise == pytest.approx(expected.item(), rel=0.2)


def test_the_names_of_the_lesson():
    runs = script.compare(sgd, replace(SMALL, epochs=1), ("full", 32, 1))
    names = [script.name_of(size, run) for size, run in runs]
    assert names == ["BGD (100)", "MBGD (32)", "SGD (1)"]


def test_the_table_the_figure_and_the_csv(workdir, capsys):
    assert run_main("--csv", "a.csv") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line[:10].strip() for line in out[2:5]] == ["BGD (64)", "MBGD (32)", "SGD (1)"]
    assert [line.split()[2] for line in out[2:5]] == ["1", "2", "64"]
    assert (workdir / "compare_batch_sizes.png").exists()
    with (workdir / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    runs = dict(script.compare(None, SHORT, (64, 32, 1)))
    for size, run in runs.items():
        mine = [row for row in rows if row["batch_size"] == str(size)]
        assert [float(row["loss"]) for row in mine] == run.losses
        assert [float(row["held_out_loss"]) for row in mine] == run.held_out_losses
        assert [row["epoch"] for row in mine] == ["0", "1", "2"]
    figure = script.draw(runs)
    by_epoch, by_second = figure.axes
    for i, (size, run) in enumerate(runs.items()):
        assert by_epoch.lines[i].get_label() == script.name_of(size, run)
        assert list(by_epoch.lines[i].get_ydata()) == run.losses
        assert list(by_second.lines[i].get_xdata()) == run.seconds
    assert (by_epoch.get_xlabel(), by_second.get_xlabel()) == (
        "Epochs",
        "Seconds of training, from epoch 1 on",
    )
    assert (by_epoch.get_xscale(), by_second.get_xscale()) == ("linear", "log")
    losses = [loss for run in runs.values() for loss in run.losses]
    for axes in figure.axes:
        assert axes.get_yscale() == "log"
        low, high = axes.get_ylim()
        assert 0.5 * min(losses) < low < min(losses) <= max(losses) < high < 2 * max(losses)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["BGD (64)", "MBGD (32)", "SGD (1)"]
    again = script.draw(iter(runs.items()))  # as from `compare`
    assert len(again.axes[0].lines) == 3


def test_any_task_has_its_batch_sizes_compared(workdir, capsys):
    words = ["--task", "spirals(samples=40)", "--epochs", "1", "--optimizer", "Adam(lr=0.01)"]
    assert exit_status(script.main, ["--no-show", *words, "--batch-sizes", "full", "10"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Adam(lr=0.01), 1 epochs of 40 samples\n")
    assert "\nBGD (40) " in out
    assert "\nMBGD (10) " in out


def test_a_diverging_run_is_a_result(workdir, capsys):
    assert run_main("--optimizer", "SGD(lr=1e30)", "--epochs", "9") == 0
    assert capsys.readouterr().out.count("diverged at step") == 3

    def wild(params):
        return torch.optim.SGD(params, lr=1e30)

    runs = dict(script.compare(wild, replace(SMALL, make_net=linear_net, epochs=12), (8,)))
    assert runs[8].diverged_at <= 13
    assert len(runs[8].losses) == 2
    assert not math.isfinite(runs[8].losses[-1])
    assert "(diverged)" in script.draw(runs).axes[0].lines[0].get_label()


def test_a_last_step_to_infinity_is_divergence_too():

    def once(params):
        return torch.optim.SGD(params, lr=1e30)

    ((_, run),) = script.compare(once, replace(SMALL, make_net=linear_net, epochs=3), ("full",))
    assert run.diverged_at == 2
    assert run.steps == 1


def test_an_optimizer_that_fails_half_way_is_a_row(workdir, capsys, homework):
    homework(FAILS)
    assert run_main("--optimizer", "homework.Fails", "--csv", "a.csv") == 1
    out = capsys.readouterr().out
    assert out.count("failed at step 3: RuntimeError: boom (homework.py, line 9)\n") == 2
    sizes = [row.split(",")[0] for row in (workdir / "a.csv").read_text().splitlines()[1:]]
    assert [sizes.count(size) for size in ("64", "32", "1")] == [3, 2, 1]


def interrupt(items, total, unit):
    """A progress during which Ctrl-C comes, after two items."""
    for number, item in enumerate(items):
        if number == 2:
            raise KeyboardInterrupt
        yield item


def test_the_run_that_was_interrupted_is_the_last_one():
    task = replace(SMALL, epochs=9)
    runs = script.compare(sgd, task, (50, 10), progress=lambda name: interrupt)
    size, run = next(runs)
    assert (size, run.steps, len(run.losses)) == (50, 4, 3)  # two epochs, and the start
    assert run.interrupted
    assert run.note == "interrupted at step 5"
    with pytest.raises(KeyboardInterrupt):
        next(runs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-sizes", "0"], "--batch-sizes"),
        (["--batch-sizes", "half"], "half"),
        (["--batch-sizes"], "--batch-sizes"),
        (["--batch-sizes", "full", "64"], "twice"),
        (["--batch-sizes", "99", "64"], "twice"),
        (["--optimizer", "Adma"], "did you mean"),
        (["--optimizer", "Muon"], "Muon only supports 2D"),
        (["--lr", "0"], "--lr"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys):
    assert_refused(script.main, [*FAST, *words], message, workdir, capsys)


def cells(run):
    """Return the cells of a run's row but for its name, and its note."""
    return [*(column.told(column.cell(32, run)) for column in script.COLUMNS[1:]), run.note]


def test_a_row_worked_by_hand():
    losses, held_out = [1.0, 0.5, 0.25], [1.1, 0.6, 0.35]
    run = script.BatchSizeRun(32, 0.25, losses, held_out, [0.0, 0.5, 2.0], 64)
    assert cells(run) == ["32", "1000", "0.2500", "0.3500", "0.2500", ""]
    run.diverged_at = 7
    assert cells(run)[2:] == ["diverged", "diverged", "0.2500", "diverged at step 7"]
    begun = script.BatchSizeRun(32, 0.25, [1.0], [1.1], [0.0], 3, stopped="interrupted at step 4")
    assert cells(begun) == ["32", "-", "1.000", "1.100", "0.2500", "interrupted at step 4"]
