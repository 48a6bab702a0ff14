"""The tenths of the classes, each optimizer at its own best rate, and what becomes of the rare."""

import csv
import math
from dataclasses import replace

from lab.command_line.specs import parse_optimizers
from lab.training.runs import trainings_of

import pytest
import torch
from conftest import assert_refused, exit_status
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

import compare_classes as script
import data
from tasks import zipf

SHORT = replace(zipf, epochs=5)


def test_the_classes_come_up_in_proportion_to_one_over_their_number():
    dataset, held_out = data.zipf(3, samples=20_000, classes=50, features=2)
    x, y = dataset.tensors
    shares = torch.bincount(y, minlength=50) / len(y)
    expected = 1 / torch.arange(1.0, 51)
    torch.testing.assert_close(shares, expected / expected.sum(), atol=0.008, rtol=0)
    assert 0 <= x.min() < 0.01
    assert 0.99 < x.max() <= 1
    assert abs(x[y == 0].mean() - x[y > 4].mean()) < 0.03  # x does not tell the class
    assert not torch.equal(x, held_out.tensors[0])


def test_tenths_hold_each_sample_once_the_most_frequent_classes_first():
    y = torch.tensor([5] * 2 + [7] * 9 + [0] * 5 + [3] * 2 + [1] * 2)
    dataset = TensorDataset(torch.arange(20.0).unsqueeze(1), y)
    task = replace(zipf, make_data=lambda seed: (dataset, dataset))
    (training,) = trainings_of(task, [0])
    tenths = script.tenths_of(task, training)
    assert [part.tolist() for _, part in tenths] == [
        *([[7, 7]] * 4),
        [7, 0],
        *([[0, 0]] * 2),
        *([1, 1], [3, 3], [5, 5]),  # as many of each: by their numbers
    ]
    seen = torch.cat([x for x, _ in tenths]).flatten()
    assert seen.sort().values.tolist() == list(range(20))
    assert all(torch.equal(y[x.flatten().long()], part) for x, part in tenths)


def test_each_has_its_best_rate_by_the_training_loss_and_the_losses_of_a_plain_loop():
    ((label, run),) = script.compare({"SGD": torch.optim.SGD}, SHORT, [1e-4, 0.3, 1e4], seed=3)
    assert (label, run.lr) == ("SGD", 0.3)
    assert list(run.tried) == [1e-4, 0.3, 1e4]
    assert min(run.tried.values()) == run.tried[0.3] == run.loss
    dataset, _ = data.zipf(3)
    x, y = dataset.tensors
    torch.manual_seed(3)
    net = nn.Linear(100, 100)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    counts = torch.bincount(y)
    classes = sorted(range(len(counts)), key=lambda k: (-counts[k], k))
    order = torch.cat([(y == k).nonzero().flatten() for k in classes])
    means = []
    for step in range(6):
        each = cross_entropy(net(x), y, reduction="none")
        means.append(each[order].view(10, 100).mean(1).detach())
        if step < 5:
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()
    torch.testing.assert_close(run.losses, torch.stack(means).double(), rtol=1e-4, atol=1e-5)
    assert run.loss == pytest.approx(means[-1].mean().item(), rel=1e-4)


def test_its_own_rate_is_the_one_that_an_optimizer_has():
    optimizers = parse_optimizers(["SGD(lr=0.2)", "SGD"])
    found = dict(script.compare(optimizers, SHORT, [0.1]))
    assert [run.lr for run in found.values()] == [0.2, 0.1]
    assert script.rows(found)[0]["rarest tenth"] == found["SGD(lr=0.2)"].losses[-1, -1].item()


# ---------------------------------------------------------------- the lesson

# The best rate of each on half decades, of most seeds: `python compare_classes.py`.
RATES = {"SGD": 0.316, "SGD(momentum=0.9)": 0.316, "Adam()": 0.1}


def test_adam_learns_the_rare_tenth_by_heart_and_neither_sgd_nor_momentum_does():
    ends = {}
    for text, lr in RATES.items():
        optimizers = parse_optimizers([text])
        runs = [next(script.compare(optimizers, zipf, [lr], seed))[1] for seed in range(4)]
        ends[text] = torch.stack([run.losses[-1] for run in runs])
    for text in ("SGD", "SGD(momentum=0.9)"):
        assert (ends[text][:, 0] < 2.5).all()  # the commonest tenth
        assert (ends[text][:, -1] > 4).all()  # the rarest, from 4.7 at the start
        assert (ends[text][:, -1] > 8 * ends["Adam()"][:, -1]).all()
    assert (ends["Adam()"][:, -1] < 0.5).all()


# ---------------------------------------------------------------- the figure and the command line


def test_a_panel_an_optimizer_and_a_curve_a_tenth():
    found = dict(script.compare(None, SHORT, [0.1, 0.3]))
    figure = script.draw(found, "a caption")
    assert [axes.get_title()[:3] for axes in figure.axes] == ["SGD", "Mom", "Ada"]
    for axes, run in zip(figure.axes, found.values(), strict=True):
        lines = [line for line in axes.lines if str(line.get_label()).startswith("tenth")]
        assert len(lines) == 10
        assert list(lines[-1].get_ydata()) == run.losses[:, -1].tolist()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == "tenth 1 (commonest)"
    assert names[9] == "tenth 10 (rarest)"


def test_the_sentences_and_what_diverged():
    losses = torch.tensor([[4.0, 5.0], [1.0, 6.0]])
    runs = {
        "SGD": script.Tenths(0.1, 3.0, losses),
        "Wild": script.Tenths(9.0, math.inf, losses * math.inf),
    }
    assert script.conclusions(runs) == [
        "SGD takes the commonest tenth from 4.00 to 1.00, the rarest from 5.00 to 6.00."
    ]
    assert script.draw(runs)


def test_the_table_the_figure_and_the_csv(workdir, capsys):
    words = ["--no-show", "--epochs", "4", "--lr-range", "0.1", "0.3", "--lr-count", "2"]
    assert exit_status(script.main, [*words, "--optimizers", "SGD", "--csv", "a.csv"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\nSGD " in out
    assert "SGD takes the commonest tenth from" in out
    assert (workdir / "compare_classes.png").exists()
    with (workdir / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(script.CSV_HEADER)
    assert len(rows) == 5 * 10


def test_ctrl_c_keeps_what_is_done():
    def interrupt(items, total, unit):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    def progress(name):
        return interrupt if name == "SGD, lr=0.3" else lambda items, *_: items

    found = []
    runs = script.compare(None, SHORT, [0.1, 0.3], progress=progress)
    with pytest.raises(KeyboardInterrupt):
        found.extend(runs)
    ((label, run),) = found
    assert label == "SGD"
    assert run.stopped == "interrupted at step 3"
    assert script.draw(found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "parabola"], "task parabola: its targets are no classes"),
        (["--task", "zipf"], "unknown task 'zipf'"),
        (["--optimizers", "Adma"], "did you mean"),
        (["--lr-range", "1", "0.1"], "--lr-range wants LOW below HIGH"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys):
    assert_refused(script.main, ["--no-show", *words], message, workdir, capsys)
