"""The notebook, run from start to end, against the scripts."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from lab.output.files import save_figure

import pytest
from conftest import without_a_screen

import compare_learning_rates
import compare_optimizers
from tasks import TASKS, Task

NOTEBOOK = Path(__file__).parents[1] / "compare_optimizers.ipynb"
FEWER = "\ncompare_learning_rates.OPTIMIZERS = {'Adam': 'Adam()'}\n"
SAVE = """
from lab.output.files import save_figure

save_figure(draw(compare()), "first.png")
save_figure(compare_learning_rates.draw(sweep), "sweep.png")
"""


def outputs(notebook):
    """Return the kinds of what each code cell has given."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [[sorted(o.get("data", [o.get("name")])) for o in cell["outputs"]] for cell in cells]


def said_of(runs):
    return "".join(
        f"{label:8}  {run.final_losses.item():.4f} after {len(run.losses)} steps\n"
        for label, run in runs.items()
    )


def test_its_cells_run_one_after_the_other(workdir, monkeypatch, capsys):
    """In this process, on short trainings: each line is one that the scripts have."""
    (workdir / "cloned").symlink_to(NOTEBOOK.parent, target_is_directory=True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(compare_learning_rates, "OPTIMIZERS", {"Adam": "Adam()"})
    short = replace(TASKS["parabola"], epochs=1)
    for script in (compare_optimizers, compare_learning_rates):
        defaults = [short if isinstance(it, Task) else it for it in script.compare.__defaults__]
        monkeypatch.setattr(script.compare, "__defaults__", tuple(defaults))
    names = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]).replace("epochs=20", "epochs=1"), names)
    assert list(names["sweep"]) == ["Adam"]
    assert capsys.readouterr().out == said_of(dict(compare_optimizers.compare()))


@pytest.mark.slow
def test_the_notebook_runs_and_draws_what_the_scripts_draw(workdir, monkeypatch):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    stored = outputs(notebook)
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "id": "x"}
    notebook["cells"].append(cell | {"source": SAVE})
    (imports,) = [cell for cell in notebook["cells"] if "import torch\n" in cell["source"]]
    imports["source"].append(FEWER)
    (workdir / "notebook.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (workdir / "cloned").symlink_to(NOTEBOOK.parent, target_is_directory=True)
    run = "from nbclient.cli import main; main()"
    words = [sys.executable, "-c", run, "--inplace", "notebook.ipynb"]
    # The kernel draws into the notebook unless MPLBACKEND says otherwise; its files need a home.
    environment = without_a_screen() | {"OMP_NUM_THREADS": "1"}
    environment |= dict.fromkeys(
        ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"), str(workdir)
    )
    options = {"env": environment, "capture_output": True, "encoding": "utf-8"}
    done = subprocess.run(words, cwd=workdir, check=False, **options)
    assert done.returncode == 0, done.stderr
    executed = json.loads((workdir / "notebook.ipynb").read_text(encoding="utf-8"))
    assert outputs(executed)[:-1] == stored

    runs = dict(compare_optimizers.compare())
    save_figure(compare_optimizers.draw(runs), "script.png")
    assert Path("first.png").read_bytes() == Path("script.png").read_bytes()
    monkeypatch.setattr(compare_learning_rates, "OPTIMIZERS", {"Adam": "Adam()"})
    sweep = dict(compare_learning_rates.compare())
    save_figure(compare_learning_rates.draw(sweep), "script.png")
    assert Path("sweep.png").read_bytes() == Path("script.png").read_bytes()
    for version in (notebook, executed):
        assert "".join(version["cells"][4]["outputs"][0]["text"]) == said_of(runs)


def test_the_notebook_is_small_and_names_no_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 400_000
    for word in ("/home", "/root", "/tmp", "/work", "Traceback", '"error"'):
        assert word not in text
