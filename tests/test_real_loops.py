"""The learner's own loop: what training.py is changed to is what is trained, by many seeds too."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_files import near

import compare_optimizers

ROOT = Path(compare_optimizers.__file__).parent

# Lines that a learner adds to the loop; here around it, so that any loop takes them.
CHANGES = {
    "none": "",
    "a decay of the rate": """
    for loss in the_loop(net, optimizer, loader, *others, **more):
        yield loss
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
""",
    "a clamp of the weights": """
    for loss in the_loop(net, optimizer, loader, *others, **more):
        yield loss
        for p in net.parameters():
            p.data.clamp_(-0.2, 0.2)
""",
    "gradients clipped after backward": """
    for p in net.parameters():
        p.register_hook(lambda grad: grad.clamp(-0.01, 0.01))
    yield from the_loop(net, optimizer, loader, *others, **more)
""",
    "every other mini-batch": """
    yield from the_loop(net, optimizer, list(loader)[::2], *others, **more)
""",
    "two steps with each": """
    twice = [batch for batch in loader for _ in range(2)]
    yield from the_loop(net, optimizer, twice, *others, **more)
""",
    "another order": """
    yield from the_loop(net, optimizer, list(loader)[::-1], *others, **more)
""",
    "an average of the weights": """
    average = [p.detach().clone() for p in net.parameters()]
    for loss in the_loop(net, optimizer, loader, *others, **more):
        yield loss
        for mean, p in zip(average, net.parameters()):
            mean.lerp_(p.detach(), 0.1)
    for mean, p in zip(average, net.parameters()):
        p.data.copy_(mean)
""",
}
DRIVER = """
import contextlib, csv, io, json, sys
from pathlib import Path

changes, loop = json.loads(sys.stdin.read()), Path("training.py").read_text()
OWN = "\\n\\nthe_loop = train\\n\\n\\ndef train(net, optimizer, loader, *others, **more):"
USUAL = ["--no-show", "--csv", "out.csv", "--epochs", "2", "--task", "parabola(samples=200)",
         "--optimizers", "Adam"]


def run(main, words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main([*words, *USUAL])
        except SystemExit as stop:
            status = stop.code
    rows = list(csv.DictReader(open("out.csv"))) if status == 0 else []
    return status, out.getvalue(), rows


found = {}
for name, change in changes.items():
    Path("training.py").write_text(loop + (OWN + change if change else ""))
    for module, it in list(sys.modules.items()):
        if str(getattr(it, "__file__", "")).startswith(str(Path.cwd())):
            del sys.modules[module]
    import compare_optimizers
    import matplotlib.pyplot as plt
    from lab.training import way

    plt.Figure.savefig = lambda figure, path, **style: Path(path).touch()

    way.MIN_NETS = 2
    found[name] = {
        words[1]: run(compare_optimizers.main, words)
        for words in (["--seeds", "2"], ["--seed", "81"], ["--seed", "82"])
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the main script makes of each change, by the seeds it is given."""
    copy = tmp_path_factory.mktemp("copy")
    for path in [*ROOT.glob("*.py"), ROOT / "lab", ROOT / "optimizers"]:
        (shutil.copytree if path.is_dir() else shutil.copy)(path, copy / path.name)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=copy, env=os.environ | {"MPLBACKEND": "agg"},
        input=json.dumps(CHANGES), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def losses(rows, seed):
    return [float(row["loss"]) for row in rows if row["seed"] == seed]


def cells(out):
    """Return the numbers of the table's only row: final losses and held-out losses."""
    row = next(line for line in out.splitlines() if line.startswith("Adam  "))
    return [float(word.strip("[],")) for word in row.split()[1:-1] if word[-1] != "r"]


@pytest.mark.parametrize("name", CHANGES)
def test_many_seeds_are_trained_by_the_loop_as_it_is_written(name, found):
    status, out, rows = found[name]["2"]
    assert status == 0, out
    alone = {seed: found[name][seed] for seed in ("81", "82")}
    for seed, (_, _, its_rows) in alone.items():
        assert losses(rows, seed) == near(losses(its_rows, seed))
        changed = losses(its_rows, seed) != losses(found["none"][seed][2], seed)
        assert changed == (name not in ("none", "an average of the weights"))
    ends = [cells(its_out)[:2] for _, its_out, _ in alone.values()]
    median = [sum(pair) / 2 for pair in zip(*ends, strict=True)]
    assert [cells(out)[0], cells(out)[3]] == pytest.approx(median, rel=1e-3)
    assert ("net by net" in out) == (name != "none")  # and the table says so
