"""The tutorial's figure, end to end."""

import csv
import math
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import assert_refused, exit_status
from matplotlib.colors import to_hex

import cli
import compare_optimizers as script
import plotting
from data import make_dataset, make_loader
from models import Net

FAST = ["--no-show", "--epochs", "2", "--samples", "64"]


def run_main(*words):
    return exit_status(script.main, [*FAST, *words])


def read_csv(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def losses(runs):
    return {label: run.losses for label, run in runs.items()}


@pytest.fixture(scope="module")
def tutorial():
    return dict(script.compare())


# ---------------------------------------------------------------- fair comparison


MAKERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.01),
    "Momentum": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.8),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=0.01, alpha=0.9),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.01, betas=(0.9, 0.99)),
}


@pytest.mark.parametrize("label", MAKERS)
def test_a_plain_loop_gives_the_same_losses_bit_for_bit(label, tutorial):
    dataset = make_dataset(1000, 0.1, seed=0)
    torch.manual_seed(0)
    net = Net(1, 20, 1)
    optimizer = MAKERS[label](net.parameters())
    loader = make_loader(dataset, batch_size=32)
    expected = []
    for _ in range(12):
        for x, y in loader:
            prediction = net(x)
            loss = torch.nn.MSELoss()(prediction, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert tutorial[label].losses == expected
    assert len(expected) == 12 * 32


def test_neither_order_nor_company_nor_divergence_changes_a_run(tutorial):
    makers = {
        "Adam": MAKERS["Adam"],
        "wild": lambda params: torch.optim.SGD(params, lr=1e6),
        "random": lambda params: Noisy(params, lr=0.01),
        "SGD": MAKERS["SGD"],
    }
    runs = dict(script.compare(makers))
    assert runs["Adam"].losses == tutorial["Adam"].losses
    assert runs["SGD"].losses == tutorial["SGD"].losses
    assert runs["wild"].diverged_at


class Noisy(torch.optim.SGD):
    """Draws from the global generator at every step."""

    def step(self, closure=None):
        torch.randn(3)
        return super().step(closure)


def test_every_optimizer_starts_at_the_same_loss(tutorial):
    assert len({run.losses[0] for run in tutorial.values()}) == 1
    assert len({run.losses[1] for run in tutorial.values()}) > 1


def test_the_seed_changes_data_and_start():
    one, other = (dict(script.compare(epochs=1, seed=seed)) for seed in (1, 2))
    assert one["SGD"].losses[0] != other["SGD"].losses[0]


def test_the_same_command_gives_the_same_bytes(workdir):
    assert run_main("--csv", "one.csv") == 0
    torch.manual_seed(99)
    assert run_main("--csv", "two.csv") == 0
    assert (workdir / "one.csv").read_bytes() == (workdir / "two.csv").read_bytes()


# ---------------------------------------------------------------- what comes out


def test_the_table_the_figure_and_the_csv(workdir, capsys):
    assert run_main("--csv", "losses.csv") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["optimizer", "call", "loss", "steps", "to", "0.02", "seconds"]
    assert [line.split()[0] for line in out[1:5]] == ["SGD", "Momentum", "RMSprop", "Adam"]
    assert "SGD(lr=0.01, momentum=0.8)" in out[2]
    assert sorted(path.name for path in workdir.iterdir()) == [
        "compare_optimizers.png",
        "losses.csv",
    ]
    runs = dict(script.compare(dataset=make_dataset(64), epochs=2))
    rows = read_csv("losses.csv")
    for label, run in runs.items():
        mine = [row for row in rows if row["optimizer"] == label]
        assert [float(row["loss"]) for row in mine] == run.losses
        assert [int(row["step"]) for row in mine] == [1, 2, 3, 4]
        assert {row["seed"] for row in mine} == {"0"}


def test_the_loss_in_the_table_is_that_of_the_whole_training_set(tutorial):
    x, y = make_dataset().tensors
    run = tutorial["Adam"]
    with torch.no_grad():
        loss = (run.net(x) - y).pow(2).mean().item()
    assert script.table_row(run, 0.02)[0] == f"{loss:.5f}"


def test_steps_to_target_average_an_epoch(tutorial):
    run = tutorial["Adam"]
    step = int(script.table_row(run, 0.02)[1])
    assert statistics.mean(run.losses[step - 32 : step]) < 0.02
    assert statistics.mean(run.losses[step - 33 : step - 1]) >= 0.02
    assert script.table_row(run, 1e-9)[1] == "-"


def test_the_figure_is_the_tutorials(tutorial):
    figure = script.draw(tutorial)
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["SGD", "Momentum", "RMSprop", "Adam"]
    for line in axes.lines:
        assert list(line.get_ydata()) == tutorial[line.get_label()].losses
        assert list(line.get_xdata()) == list(range(1, 385))
        assert to_hex(line.get_color()) == to_hex(plotting.COLORS[line.get_label()])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Steps", "Loss")
    assert axes.get_ylim() == (0, 0.2)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(tutorial)


def test_the_loss_axis_grows_only_when_it_must():
    assert script.y_top([]) == 0.2
    assert script.y_top([0.1, 0.16]) == 0.2
    assert script.y_top([0.1, 3.0]) == pytest.approx(3.6)

    def top(**runs):
        figure = script.draw(
            {k: script.Run(v, 2, final, 0.0, Net()) for k, (v, final) in runs.items()}
        )
        return figure.axes[0].get_ylim()[1]

    assert top(a=([9, 9, 0.1, 0.1], 0)) == 0.2  # only the last epoch counts,
    assert top(a=([0.1, 0.1, 2, 4], 0), b=([1, 1], 0)) == pytest.approx(3.6)  # by its median,
    assert top(a=([5, 5, math.inf], 0), b=([0.1, 0.1], 0)) == 0.2  # of what did not diverge
    assert top(a=([5, 5], math.nan)) == 0.2


def test_fit_adds_the_data_and_each_nets_curve(tutorial):
    dataset = make_dataset()
    losses_panel, fit = script.draw(tutorial, dataset).axes
    assert losses_panel.get_ylim() == (0, 0.2)
    assert fit.collections[0].get_offsets().shape == (1000, 2)
    for line, run in zip(fit.lines, tutorial.values(), strict=True):
        x = torch.tensor(line.get_xdata()).reshape(-1, 1)
        assert line.get_ydata().flatten().tolist() == run.net(x).flatten().tolist()
    one, other = ([line.get_color() for line in panel.lines] for panel in (losses_panel, fit))
    assert one == other


def test_a_diverging_run_is_a_result(workdir, capsys):
    specs = ["SGD(lr=1e6)", "Adam"]
    assert run_main("--optimizers", *specs, "--epochs", "12", "--csv", "a.csv", "--fit") == 0
    row = capsys.readouterr().out.splitlines()[1]
    rows = [row for row in read_csv("a.csv") if row["optimizer"] == specs[0]]
    assert f"diverged at step {len(rows)}" in row
    assert not math.isfinite(float(rows[-1]["loss"]))
    assert all(math.isfinite(float(row["loss"])) for row in rows[:-1])


def test_a_last_step_to_infinity_is_divergence_too():
    run = script.Run([1.0, 2.0], 2, math.nan, 0.0, Net())
    assert run.diverged_at == 3
    assert script.Run([1.0, 2.0], 2, 0.5, 0.0, Net()).diverged_at is None


def test_a_batch_larger_than_the_data_is_the_full_batch(workdir):
    assert run_main("--batch-size", "9999", "--csv", "a.csv", "--optimizers", "SGD") == 0
    assert len(read_csv("a.csv")) == 2


def test_the_settings_are_the_tutorials():
    specs = cli.parse_optimizers(script.OPTIMIZERS, script.LR)
    presets = cli.parse_optimizers(cli.PRESETS, 0.01)
    assert {k: v.call for k, v in specs.items()} == {k: v.call for k, v in presets.items()}
    names = ("EPOCHS", "BATCH_SIZE", "N_SAMPLES", "NOISE", "TARGET")
    assert [getattr(script, name) for name in names] == [12, 32, 1000, 0.1, 0.02]


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
    assert run_main("--seeds", "5", "--optimizers", "SGD", "wild=SGD(lr=1e9)") == 0
    out = capsys.readouterr().out.splitlines()
    runs = dict(script.compare_seeds(5, {"SGD": MAKERS["SGD"]}, n_samples=64, epochs=2))
    low, median, high = statistics.quantiles(
        runs["SGD"].final_losses.tolist(), n=4, method="inclusive"
    )
    assert f"{median:.5f} [{low:.5f}, {high:.5f}]" in out[1]
    assert "0%" in out[1]
    assert "- [-, -]" in out[2]
    figure = script.draw_seeds(runs)
    (line,) = figure.axes[0].lines
    expected = runs["SGD"].losses.median(1).values
    torch.testing.assert_close(torch.tensor(line.get_ydata()), expected, check_dtype=False)
    assert figure.axes[0].get_ylim() == (0, script.y_top([expected[-2:].median().item()]))


def test_a_seed_that_diverges_ends_there(workdir):
    specs = ["--optimizers", "SGD(lr=1e9)", "--epochs", "12"]
    assert run_main("--seeds", "2", *specs, "--csv", "many.csv") == 0
    assert run_main(*specs, "--csv", "one.csv") == 0
    mine = [row for row in read_csv("many.csv") if row["seed"] == "0"]
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
        (["--samples", "0"], "--samples"),
        (["--samples", str(10**15)], "memory"),
        (["--lr", "0"], "--lr"),
        (["--lr", "-1"], "--lr"),
        (["--lr", "nan"], "nan"),
        (["--lr", "inf"], "inf"),
        (["--noise", "-0.1"], "--noise"),
        (["--noise", "inf"], "--noise"),
        (["--target", "0"], "--target"),
        (["--seed", str(2**64)], "--seed"),
        (["--seed", "1.5"], "--seed"),
        (["--optimizers"], "--optimizers"),
        (["--optimizers", "Adma"], "did you mean Adamax or Adam"),
        (["--optimizers", "SGD(speed=1)"], "unexpected keyword argument 'speed'"),
        (["--optimizers", "SGD(momentum=-1)"], "Invalid momentum value: -1"),
        (["--optimizers", "Adam(betas=0.9)"], "Adam(lr=0.01, betas=0.9)"),
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
        (["--seeds", "2", "--fit"], "--fit"),
        (["--colour", "red"], "--colour"),
        (["stray"], "stray"),
    ],
)
def test_bad_input_is_refused_before_any_work(words, message, workdir, capsys):
    (workdir / "compare_optimizers.png").write_text("an earlier figure")
    assert_refused(script.main, [*FAST, *words], message, workdir, capsys)


# ---------------------------------------------------------------- interruption


def interrupt_after(n, monkeypatch):
    whole = script.compare

    def compare(*args, **kwargs):
        for i, item in enumerate(whole(*args, **kwargs)):
            if i == n and len(args[0]) > 1:  # the run, not the trial of one optimizer
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(script, "compare", compare)


def test_an_interruption_saves_what_is_finished(workdir, capsys, monkeypatch):
    interrupt_after(2, monkeypatch)
    assert run_main("--csv", "a.csv") == 130
    assert {row["optimizer"] for row in read_csv("a.csv")} == {"SGD", "Momentum"}
    assert (workdir / "compare_optimizers.png").exists()
    assert "interrupted" in capsys.readouterr().err


def test_an_interruption_before_anything_is_finished_writes_nothing(workdir, capsys, monkeypatch):
    interrupt_after(0, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["compare_optimizers.py", *FAST])
    with pytest.raises(SystemExit) as stop:
        cli.run(script.main)
    assert stop.value.code == 130
    assert list(workdir.iterdir()) == []
    assert capsys.readouterr().err == "interrupted: nothing is saved\n"


def test_a_real_process_from_elsewhere_without_a_screen_interrupted(workdir):
    command = [sys.executable, script.__file__, "--epochs", "100000", "--csv", "a.csv"]
    command += ["--optimizers", "wild=SGD(lr=1e6)", "Adam"]
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        while not (line := process.stdout.readline()).startswith("wild"):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted: what had finished is saved\n"
    assert out == "saved compare_optimizers.png\nsaved a.csv\n"
    assert {row["optimizer"] for row in read_csv("a.csv")} == {"wild"}
    assert (workdir / "compare_optimizers.png").read_bytes().startswith(b"\x89PNG")
