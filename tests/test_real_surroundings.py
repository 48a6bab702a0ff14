"""What lies around a user's file: how it is imported, the process, surfaces, losses below zero."""

import os
import random
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from lab.command_line.imports import find
from lab.output.main import run_main
from lab.pictures.curves import named_lines

import matplotlib.pyplot as plt
import numpy
import pytest
import torch
from small_files import (
    HEAD,
    assert_like_plain,
    assert_refused,
    assert_saved,
    losses_in_csv,
    objects_of,
    plain_training,
    read_csv,
    run,
)

import compare_batch_sizes
import compare_learning_rates
import compare_optimizers
import compare_paths
import compare_tasks
import settings
from data import parabola
from exercises.__main__ import main as exercises
from tasks import TASKS

ROOT = Path(compare_optimizers.__file__).parent
QUICK = ["--epochs", "1", "--optimizers", "SGD"]
LINEAR = "mine = Task(data(x, x), lambda: nn.Linear(2, 2), F.mse_loss, 2, 20)\n"
OWN = """
class Mine(torch.optim.SGD):
    def __init__(self, params, lr=0.01):
        super().__init__(params, lr, momentum=MOMENTUM)
"""

# ---------------------------------------------------------------- importing the user's file

IMPORTS = {
    "it ends the process": ("b", "b.mine", ["cannot import b", "exit", "line 2"],
                            "import sys\nsys.exit()\n"),
    "it ends it well": ("b", "b.mine", ["cannot import b", "exit"], "raise SystemExit(0)\n"),
    "it reads the command line": ("b", "b.mine", ["cannot import b", "unrecognized arguments"],
        "import argparse\nargparse.ArgumentParser().parse_args()\n"),
    "it is interrupted by its own assert": ("b", "b.mine", ["cannot import b", "line 1"],
                                            "assert 1 == 2\n"),
    # What the language of names cannot say, and how to say it.
    "a number first": ("306_optimizer", "306_optimizer.mine", ["306_optimizer.py"], ""),
    "a hyphen": ("my-file", "my-file.mine", ["my-file.py"], ""),
    "a path": ("b", "./b.mine", ["b.mine", ".py"], HEAD + LINEAR),
    "the file": ("b", "b.py", ["b.mine"], HEAD + LINEAR),
    "the file and a name": ("b", "b.py.mine", ["b.mine"], HEAD + LINEAR),
}  # fmt: skip


@pytest.mark.parametrize("option", ["--task", "--optimizers"])
@pytest.mark.parametrize("name", IMPORTS)
def test_what_cannot_be_imported_is_said_in_a_line(name, option, small_file, monkeypatch):
    module, text, words, source = IMPORTS[name]
    small_file(source, module)
    monkeypatch.setattr(sys, "argv", ["compare_optimizers.py", option, text])
    end = run(compare_optimizers, option, text)
    end.err = end.err[end.err.strip().rfind("\n") + 1 :]  # argparse in it has its own word before
    end.err = end.err.replace(text, "")  # the words are not to be those that were typed
    assert_refused(end, *words)


def test_a_name_that_is_taken_is_refused_or_right(small_file):
    # Or their Net would silently be ours. To refuse it takes a look at the folder only.
    theirs = "from torch import nn\nNet = lambda: nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 1))\n"
    small_file(theirs, "models")
    source = HEAD + "from models import Net\nmine = Task(parabola, Net, F.mse_loss, 1, 100)\n"
    small_file(source)
    end = run(compare_optimizers, "--task", "b.mine", "--optimizers", "SGD")
    if end.status == 2:
        assert_refused(end, "models.py")
    else:
        task = objects_of(source.replace("from models import Net", theirs))["mine"]
        plain = plain_training(task, lambda params: torch.optim.SGD(params, lr=0.01))
        assert float(end.rows["SGD"]["loss"]) == pytest.approx(plain.final, rel=6e-4)


def test_a_file_that_is_changed_in_a_session_is_read_anew(small_file):
    ends = []
    for momentum in ("0.0", "0.5 + 0.4"):
        small_file("import torch\n" + OWN.replace("MOMENTUM", momentum))
        ends.append(run(compare_optimizers, *QUICK, "b.Mine", "SGD(momentum=0.9)"))
    assert ends[0].rows["b.Mine"]["loss"] == ends[0].rows["SGD"]["loss"]
    assert ends[1].rows["b.Mine"]["loss"] == ends[1].rows["SGD(momentum=0.9)"]["loss"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("default", ["dtype(torch.float64)", "device('meta')"])
def test_a_default_set_in_ones_own_file_changes_nobody_elses_numbers(default, first, small_file):
    # Either its own functions run under it, and no others'; or the line names the file.
    ours = "parabola(samples=64)"
    words = ["--optimizers", "SGD", "--seeds", "1", "--judges", "3", "--lr-count", "2"]
    words += ["--jobs", "1", "--tasks"]
    assert_saved(run(compare_tasks, *words, ours, name="alone"), name="alone")
    alone = [row["held_out_loss"] for row in read_csv("alone")]
    own = HEAD.replace("import torch\n", f"import torch\ntorch.set_default_{default}\n", 1)
    small_file(own.replace("generator=g)", "generator=g, device='cpu')") + LINEAR)
    end = run(compare_tasks, *words, *(["b.mine", ours] if first else [ours, "b.mine"]))
    if end.status == 2:
        assert_refused(end, never=["SGD", "parabola"])
        assert re.search(r"\bb\.(py|mine)|import b\b", end.err)
    else:
        assert_saved(end)
        assert alone == [row["held_out_loss"] for row in read_csv() if row["task"] == ours]


def test_a_file_that_goes_to_another_folder_finds_its_data_there_and_results_are_here(small_file):
    Path("there").mkdir()
    torch.save(torch.ones(120, 2), "there/x.pt")
    small_file(
        f"import os\nos.chdir('there')\n{HEAD}"
        "mine = Task(lambda seed: data(torch.load('x.pt') * x, y)(seed), lambda: nn.Linear(2, 2),\n"
        "            F.cross_entropy, 2, 20)\n"
    )
    assert_saved(run(compare_optimizers, "--task", "b.mine", "--optimizers", "SGD"))


def test_a_file_that_wants_no_gradients_is_trained_like_any_other(small_file):
    small_file("import torch\ntorch.set_grad_enabled(False)\n" + HEAD + LINEAR)
    end = run(compare_optimizers, "--task", "b.mine", "--optimizers", "SGD", "--lr", "0.05")
    plain = plain_training(objects_of(HEAD + LINEAR)["mine"], lambda p: torch.optim.SGD(p, lr=0.05))
    assert_like_plain(end, "SGD", [plain])


@pytest.mark.parametrize("draw", ["numpy.random.rand()", "random.random()", "torch.rand(1).item()"])
def test_what_a_file_draws_at_import_is_the_same_in_every_process(draw, small_file):
    drawn = []
    for seed in (1, 2):
        numpy.random.seed(seed)
        random.seed(seed)
        torch.manual_seed(seed)
        small_file(f"import random\nimport numpy\nimport torch\nx = {draw}\n", f"draws{seed}")
        drawn.append(find(f"draws{seed}", "x"))
    assert drawn[0] == drawn[1]


def test_data_drawn_at_import_do_not_depend_on_what_the_process_did_before(small_file):
    # A worker imports the file in another state of torch's generator than the main process.
    small_file(HEAD.replace("torch.randn(120, 2, generator=g)", "torch.randn(120, 2)") + LINEAR)
    words = ["--optimizers", "SGD", "--seeds", "1", "--judges", "3", "--lr-count", "2"]
    words += ["--jobs", "1"]
    found = []
    for state in (1, 2):
        sys.modules.pop("b", None)
        torch.manual_seed(state)
        end = run(compare_tasks, "--tasks", "b.mine", *words)
        if end.status == 2:
            assert_refused(end, "b", "generator")
        found.append(Path("out.csv").read_bytes() if end.status != 2 else end.err)
    assert found[0] == found[1]


def test_a_page_tells_where_to_put_what_a_file_does_when_it_is_run():
    assert '__name__ == "__main__"' in (ROOT / "docs/your_own.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the process around


class Shell:
    """A stream like those of IDLE and ipykernel: no reconfigure, no file number."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return False


@pytest.mark.parametrize("streams", ["a shell's", "a terminal's"])
def test_in_a_shell_it_runs_and_leaves_ctrl_c_as_it_was(streams, small_file, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    if streams == "a shell's":
        monkeypatch.setattr(sys, "stdout", Shell())
        monkeypatch.setattr(sys, "stderr", sys.stdout)
    words = [*QUICK, "--no-show", "--output", "out.png", "--csv", "out.csv"]
    try:
        with pytest.raises(SystemExit) as end:
            run_main(lambda: compare_optimizers.main(words))
        after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert end.value.code in (0, None)
    assert Path("out.csv").exists()
    assert after == before


def start(command, **environment):
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, *command], env=os.environ | environment, capture_output=True, text=True
    )


def test_a_backend_that_is_not_there_costs_a_line_and_no_result(workdir):
    words = [*QUICK, "--csv", "out.csv", "--output", "out.png"]
    end = start([ROOT / "compare_optimizers.py", *words], MPLBACKEND="module://not_there")
    assert end.returncode in (0, 1), end.stderr
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    assert Path("out.csv").exists()
    assert "not_there" in end.stderr
    assert end.stderr.count("\n") == 1


BACKEND = """
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg


class FigureManager(FigureManagerBase):
    @classmethod
    def pyplot_show(cls, *, block=None):
        print("SHOWN")


class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager
"""


def test_figures_are_shown_where_the_backend_can_but_for_no_show(small_file, capsys):
    small_file(BACKEND, "own_backend")
    sys.path.insert(0, str(Path.cwd()))
    words = [*QUICK, "--output", "out.png"]
    plt.switch_backend("module://own_backend")
    compare_optimizers.main(words)
    assert "SHOWN" in capsys.readouterr().out
    # Nor does a user's own file, whose last lines are its plot.
    small_file(HEAD + "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n" + LINEAR)
    plt.switch_backend("module://own_backend")
    compare_optimizers.main([*words, "--no-show", "--task", "b.mine"])
    assert "SHOWN" not in capsys.readouterr().out


def test_ctrl_c_among_tasks_saves_what_is_done(small_file):
    small_file(HEAD + LINEAR + OWN.replace("MOMENTUM", "0.5") + """
    steps = 0

    def step(self, closure=None):
        self.steps += 1
        if self.steps > 2:
            raise KeyboardInterrupt
        return super().step(closure)
""")  # fmt: skip
    words = ["--tasks", "b.mine", "--optimizers", "SGD", "b.Mine", "--seeds", "2", "--jobs", "1"]
    end = run(compare_tasks, *words, "--lr-count", "2")
    assert_saved(end, 130)
    assert {row["optimizer"] for row in read_csv()} >= {"SGD"}
    assert "interrupted" in end.said


@pytest.mark.slow  # tests/test_check_optimizer.py has the parts
def test_the_readmes_check_of_ones_own_optimizer_needs_no_more_than_its_requirements(small_file):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"^python (check_optimizer.py .*)$", readme, re.MULTILINE)
    (source,) = re.findall(r"```python\n(from optimizers import UpdateRule\n.*?)```", readme, re.S)
    small_file(source, "homework")
    for package in ("pytest", "hypothesis"):
        small_file(f"raise ModuleNotFoundError({package!r})\n", package)
    script, *rest = shlex.split(words)
    end = start([ROOT / script, *rest, "--no-show"], PYTHONPATH=str(Path.cwd()))
    assert (end.returncode, end.stderr) == (0, "")
    assert "All of this holds." in end.stdout


def test_the_exercises_tell_what_the_scripts_would(small_file, capsys):
    small_file("import sys\nsys.exit()\n")
    assert exercises(["2", "b.py"]) == 1
    assert "exit" in capsys.readouterr().out
    small_file(HEAD + "net = nn.Linear(2, 2)\n" + LINEAR.replace("nn.Linear(2, 2)", "net"))
    assert exercises(["10", "b.py"]) == 1
    assert "make_net" in capsys.readouterr().out
    small_file("""
import torch


class MySGD(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad
""")
    exercises(["2", "b.py"])  # right, or told what to write
    assert "TypeError" not in capsys.readouterr().out


# ---------------------------------------------------------------- a loss that goes below zero

BELOW = (
    HEAD
    + """
def likelihood(outputs, y):
    mean, log_variance = outputs[:, :1], outputs[:, 1:]
    return 0.5 * (log_variance + (y - mean) ** 2 / log_variance.exp()).mean() - 2


net = lambda: nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 2))
mine = Task(parabola, net, likelihood, 6, 100)
"""
)
RATIOS = re.compile(r"-fold|times|% better")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (compare_optimizers, ["--task", "b.mine", "--optimizers", "SGD", "Adam", "--lr", "0.03"]),
        (compare_learning_rates, ["--task", "b.mine", "--optimizers", "SGD", "Adam",
                                  "--seeds", "4", "--judges", "9", "--lr-count", "4"]),
        (compare_batch_sizes, ["--task", "b.mine", "--batch-sizes", "full", "50"]),
        (compare_tasks, ["--tasks", "b.mine", "--optimizers", "SGD", "Adam",
                         "--seeds", "4", "--judges", "9", "--lr-count", "4", "--jobs", "1"]),
    ],
)  # fmt: skip
def test_a_loss_below_zero_is_in_sight_and_in_no_ratio(script, words, small_file):
    small_file(BELOW)
    end = run(script, *words)
    assert_saved(end)
    assert not end.warnings
    assert not RATIOS.search(end.out)
    assert set(end.column("good rates")) <= {"-"}  # those within so many times the best loss
    panels = [] if script is compare_tasks else plt.gcf().axes[:2]
    for axes in panels:
        low, high = axes.get_ylim()
        for line in named_lines(axes):
            values = torch.tensor(line.get_ydata(), dtype=torch.float64)
            values = values[values.isfinite()]
            assert not len(values) or low <= values.quantile(0.1) <= high


@pytest.mark.parametrize("target", ["0", "-2e0", "-9"])
def test_a_target_may_be_zero_or_below(target, small_file):
    small_file(BELOW)
    words = ["--task", "b.mine", "--optimizers", "Adam", "--lr", "0.03", "--epochs", "2"]
    end = run(compare_optimizers, *words, "--target", target)
    losses = losses_in_csv("Adam")
    means = [sum(losses[k - 10 : k]) / 10 for k in range(10, 21)]  # of an epoch, after k steps
    reached = [k for k, mean in enumerate(means, 10) if mean < float(target)]
    assert bool(reached) == (target != "-9")
    (cell,) = end.column(f"steps to {float(target):g}")
    assert cell == (str(reached[0]) if reached else "never")
    assert "steps to" not in run(compare_optimizers, *words).out  # the task has none


# ---------------------------------------------------------------- a label means one thing


def test_a_label_has_the_same_hyperparameters_in_every_script():
    meanings = {}
    tables = settings.OPTIMIZERS, compare_tasks.OPTIMIZERS, compare_paths.OPTIMIZERS
    for label, call in (item for table in tables for item in table.items()):
        meanings.setdefault(label, set()).add(call.partition("(")[2].rstrip(")"))
    assert {label: texts for label, texts in meanings.items() if len(texts) > 1} == {}


def test_a_full_batch_is_called_so_however_many_samples_there_are(small_file):
    words = ["--task", "parabola(samples=64)", "--epochs", "1", "--batch-sizes", "full"]
    run(compare_batch_sizes, *words)
    found = dict(compare_batch_sizes.compare(
        task=replace(TASKS["parabola"], make_data=partial(parabola, samples=64), epochs=1),
        batch_sizes=["full"]))  # fmt: skip
    figures = plt.gcf(), compare_batch_sizes.draw(found)
    for figure in figures:
        assert [line.get_label() for line in figure.axes[0].lines] == ["BGD (64)"]
