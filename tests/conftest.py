"""What the tests of the scripts share."""

import importlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from lab.command_line.parser import Parser
from lab.command_line.types import finite_float
from lab.outcome import no_progress
from lab.training import machine, train, way
from lab.training.runs import Runs, Training, trainings_of
from lab.training.sweeps import Sweep
from lab.training.train import train_in_turn

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import settings
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from tasks import Task

pytest.register_assert_rewrite("small_files", "steps")
settings.register_profile(
    "no clock, no files", parent=settings.default, deadline=None, database=None
)
settings.load_profile("no clock, no files")

# There is a process of tests for each core. With threads of their own, which wait for each other at
# every operation, they would stand in each other's way.
torch.set_num_threads(1)


def pytest_collection_finish():
    """Import what a test writes anew, though of the same second; the tests themselves are kept."""
    sys.dont_write_bytecode = True


PATIENCE = 300  # seconds: a process that takes longer hangs, however busy the machine is

posix_only = pytest.mark.skipif(
    os.name != "posix", reason="Windows has other signals, no sh, and no ps"
)


@pytest.fixture(autouse=True)
def _no_windows():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture(autouse=True)
def _small_stacks(monkeypatch):
    """Have two nets be a stack, though in turn they are quicker: what holds of many is shown so."""
    monkeypatch.setattr(way, "MIN_NETS", 2)


@pytest.fixture
def two_threads(monkeypatch):
    """A machine of two processors, whose user has chosen no number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(machine, "DEFAULT_THREADS", 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def homework(workdir, monkeypatch):
    """Write a file of homework into the working directory."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(source, name="homework"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (workdir / f"{name}.py").write_text(source)

    yield write
    sys.modules.pop("homework", None)


@pytest.fixture
def unrendered(monkeypatch):
    """Figures that are drawn, but not rendered, which would take most of the time."""
    monkeypatch.setattr(
        plt.Figure, "savefig", lambda self, path, **style: Path(path).write_bytes(b"\x89PNG")
    )


@pytest.fixture
def small_file(workdir, unrendered, monkeypatch):
    """Write a user's file into the working directory; what it does to this process is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before, dtype = set(sys.modules), torch.get_default_dtype()

    def write(source, name="b"):
        Path(f"{name}.py").write_text(source)
        importlib.invalidate_caches()

    yield write
    torch.set_default_dtype(dtype)
    torch.set_default_device(None)
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None)
        if path and Path(path).is_relative_to(workdir):
            del sys.modules[name]


@pytest.fixture
def parser(workdir):
    """A script's parser, with an option of its own."""
    parser = Parser("What for?", "  python script.py", "figure.png")
    parser.add("--start", finite_float, 0.0, "a number")
    return parser


def exit_status(main, words):
    """Return the exit status of a script's main, whichever way it ends."""
    try:
        return main(words)
    except SystemExit as stop:
        return stop.code


def assert_refused(main, words, message, workdir, capsys):
    """Assert exit status 2, one line on stderr with `message` in it, and nothing written."""
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    assert exit_status(main, words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert {path: path.read_bytes() for path in workdir.iterdir()} == before


class SmallNet(torch.nn.Module):
    """A net that stays as it is, whatever a learner makes of models.py."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(1, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)
        )

    def forward(self, x):
        return self.layers(x)


def small_data(seed, samples=100):
    """Return data sets that stay as they are, whatever a learner makes of data.py."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n_samples):
        x = 2 * torch.rand(n_samples, 1, generator=generator) - 1
        return TensorDataset(x, (3 * x).sin() + 0.1 * torch.randn(x.shape, generator=generator))

    return draw(samples), draw(40)


SMALL = Task(small_data, SmallNet, mse_loss, epochs=6, batch_size=32, target=0.2)


def textbook_training(dataset, make_net, make_optimizer, loss_function, seed, epochs, batch_size):
    """Return the losses of a training as every tutorial writes it, and the net."""
    loader = DataLoader(
        dataset, batch_size, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    torch.manual_seed(seed)
    net = make_net()
    optimizer = make_optimizer(net.parameters())
    losses = []
    for _ in range(epochs):
        for x, y in loader:

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = loss_function(net(x), y)
                loss.backward()
                return loss

            losses.append(optimizer.step(closure).item())
    return losses, net


def small_trainings(lrs=(None,), seeds=range(3, 7)):
    return trainings_of(SMALL, seeds, lrs)


def assert_like_alone(runs, task, trainings, make_optimizer):
    """Assert that each of the runs has the numbers that it has alone, to rounding."""
    close = {"rtol": 2e-3, "atol": 1e-5}
    for k, training in enumerate(trainings):
        alone = train_in_turn(task, [training], make_optimizer, no_progress)
        torch.testing.assert_close(
            torch.tensor(runs.history(k)), torch.tensor(alone.history(0)), **close
        )
        torch.testing.assert_close(runs.final_losses[k], alone.final_losses[0], **close)
        torch.testing.assert_close(runs.held_out_losses[k], alone.held_out_losses[0], **close)
        for name, value in alone.weights.items():
            torch.testing.assert_close(runs.weights[name][k], value[0], **close)
    assert runs.steps_per_epoch == alone.steps_per_epoch


def start_script(name, *words, shell=None, env=None, **streams):
    """Start a script as its own process, without a screen, and with Ctrl-C working.

    In a shell's background job SIGINT is ignored, and children inherit that. `shell` is a command
    whose $0 and $@ are the words.
    """
    command = [sys.executable, str(Path(__file__).parents[1] / name), *words]
    if os.name == "posix":
        streams["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        ["sh", "-c", shell, *command] if shell else command,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"} | streams,
        env=without_a_screen() | {"PYTHONIOENCODING": "utf-8"} | (env or {}),
    )


def without_a_screen():
    """Return the environment of a machine without a screen, whose user has chosen no backend."""
    return {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}


def made_up(medians, lrs=None, seeds=5, spread=0.0):
    """Runs made up so that each rate has this median; infinite where it diverged."""
    lrs = lrs or [10.0 ** (i - len(medians) + 1) for i in range(len(medians))]
    noise = spread * torch.linspace(-1, 1, seeds)
    final = (torch.tensor(medians).unsqueeze(1) + noise).flatten().double()
    every = [Training(seed, None, None, lr) for lr in lrs for seed in range(seeds)]
    return Runs(SMALL, every, final.expand(8, -1), final / 2, final, {}, 4, lrs[0])


def made_up_sweep(medians, lrs=None, seeds=5, spread=0.0, judges=0):
    """A sweep made up likewise; as many judges have the losses that the best rate has."""
    runs = made_up(medians, lrs, seeds, spread)
    sweep = Sweep(runs)
    if not judges:
        return sweep
    judging = made_up([min(medians)], [sweep.best_lr], judges, spread)
    judging.trainings = [replace(t, seed=t.seed + seeds) for t in judging.trainings]
    return Sweep(runs, judging)


# Two files of homework: one whose optimizer fails at its third step, one whose moves nothing.
FAILS = """
import torch


class Fails(torch.optim.SGD):
    def step(self, closure=None):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 3:
            raise RuntimeError("boom")
        return super().step(closure)
"""
STILL = """
import torch


class Still(torch.optim.SGD):
    def step(self, closure=None):
        return closure()
"""


@pytest.fixture
def compiled(monkeypatch):
    """List, for each stack that is trained, whether its steps were to be compiled."""
    seen, train_stack = [], train.train_stack

    def look(task, trainings, make_optimizer, progress, compiled, every_epoch):
        seen.append(compiled)
        return train_stack(task, trainings, make_optimizer, progress, False, every_epoch)

    monkeypatch.setattr(train, "train_stack", look)
    return seen
