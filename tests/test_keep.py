"""What is kept is named by all that its numbers depend on, and never trusted blindly."""

import hashlib
import os
import pickle
import shutil
import sys
import time
from functools import cache, partial
from pathlib import Path

from lab.command_line.specs import parse_optimizer
from lab.training import crew as crews
from lab.training import keep, way
from lab.training.crew import Crew, Job
from lab.training.keep import Keep, Unnamed, name_of, name_of_code, name_of_start
from lab.training.runs import Training, trainings_of
from lab.training.train import train_all

import pytest
import torch
from conftest import PATIENCE, SMALL, posix_only, start_script
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import Subset, TensorDataset

import compare_optimizers

ROOT = Path(__file__).parents[1]
SGD = parse_optimizer("SGD(lr=0.1)")


# ---------------------------------------------------------------- names

OWN = """
import torch
import helper


class MySGD(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


def scaled(scale):
    return lambda outputs, y: scale * ((outputs - y) ** 2).mean()


FACTOR = {factor}


def loss(outputs, y):
    return FACTOR * ((outputs - y) ** 2).mean()
"""


@pytest.fixture
def own(homework, monkeypatch):
    """Write homework and what it imports; return a function that imports them anew."""

    def write(factor=1, helper="def help(): return 1", add=""):
        for name in ("homework", "helper"):
            sys.modules.pop(name, None)
        homework(helper, name="helper")
        homework(OWN.format(factor=factor) + add)
        monkeypatch.syspath_prepend(str(Path.cwd()))
        shutil.rmtree("__pycache__", ignore_errors=True)
        parse_optimizer("homework.MySGD")
        return sys.modules["homework"]

    yield write
    sys.modules.pop("helper", None)


def test_a_changed_line_is_another_name(own):
    names = [name_of(own().MySGD) for _ in range(2)]
    names += [name_of(own(helper=f"def help(): return {k}").MySGD) for k in (1, 2)]
    names.append(name_of(own(add="# a line").MySGD))
    a, b, c, d, e = names
    assert a == b == c  # the same files
    assert len({a, d, e}) == 3


def test_what_a_function_has_from_outside_is_in_its_name(own):
    module = own()
    assert name_of(module.scaled(1)) == name_of(module.scaled(1))
    assert name_of(module.scaled(1)) != name_of(module.scaled(2))
    assert name_of(partial(module.loss, 1)) != name_of(partial(module.loss, 2))
    before = name_of(module.loss)
    module.FACTOR = 5
    assert name_of(module.loss) != before

    def with_default(k):
        def loss(outputs, y, scale=k, *, shift=1):
            return 0

        return loss

    assert name_of(with_default(1)) == name_of(with_default(1)) != name_of(with_default(2))
    one, other = lambda: 1, lambda: 2
    assert name_of(one) != name_of(other)
    assert name_of(cache(module.loss)) != name_of(cache(with_default))


def test_functions_that_use_each_other_have_a_name(own):
    module = own(add="def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return even(n - 1)\n")
    assert name_of(module.even) != name_of(module.odd)


def test_values_and_objects_are_named_by_what_they_hold():
    a, b = nn.CrossEntropyLoss(weight=torch.ones(2)), nn.CrossEntropyLoss(weight=torch.zeros(2))
    assert name_of(a) == name_of(nn.CrossEntropyLoss(weight=torch.ones(2))) != name_of(b)
    assert name_of(nn.MSELoss()) != name_of(nn.L1Loss())
    assert name_of(torch.ones(2)) != name_of(torch.ones(2, dtype=torch.int32))
    assert name_of(torch.ones(2, 3)) != name_of(torch.ones(3, 2))
    assert name_of(torch.ones(2, 3).T) == name_of(torch.ones(3, 2))
    assert name_of(torch.tensor(1.0), torch.empty(0), torch.ones(1).bool())
    assert name_of(torch.sin) != name_of(torch.cos)
    assert name_of(1) != name_of(1.0) != name_of("1.0")
    text = "".join(["ab", "cd"])
    assert name_of([text, text]) == name_of(["abcd", "ab" + text[2:]])  # one object or two


@pytest.mark.parametrize("thing", [sys.stdout, (k for k in "ab")])
def test_what_cannot_be_named_surely_has_no_name(thing):
    with pytest.raises(Unnamed):
        name_of(thing)


def test_code_without_a_file_has_no_name():
    space = {"__name__": "nowhere"}
    exec("def loss(outputs, y): return 0", space)
    with pytest.raises(Unnamed):
        name_of(space["loss"])


def test_the_name_of_code_is_of_task_and_optimizer_and_of_no_label():
    name = name_of_code(SMALL, SGD)
    assert name == name_of_code(SMALL, parse_optimizer("mine=SGD(lr=0.1)"))
    assert name == name_of_code(replace_of(SMALL, target=3.0, lesson="x"), SGD)
    others = [
        *(parse_optimizer(text) for text in ("SGD(lr=0.2)", "SGD(lr=0.1, momentum=0.5)")),
        *(parse_optimizer(text) for text in ("Adam(lr=0.1)", "SGD(lr=0.1) + StepLR(step_size=3)")),
        parse_optimizer("SGD(lr=0.1) + StepLR(step_size=4)"),
    ]
    tasks = [replace_of(SMALL, epochs=9), replace_of(SMALL, batch_size=9)]
    tasks += [
        replace_of(SMALL, loss=nn.L1Loss()),
        replace_of(SMALL, make_net=partial(nn.Linear, 1, 1)),
    ]
    names = [name_of_code(SMALL, other) for other in others]
    names += [name_of_code(task, SGD) for task in tasks]
    assert len({name, *names}) == 10


def replace_of(task, **settings):
    from dataclasses import replace

    return replace(task, **settings)


def test_versions_and_our_own_code_are_in_every_name(monkeypatch):
    name = name_of_code(SMALL, SGD)
    torch_version, python, kind, ours = keep.surroundings()
    assert (torch_version, python) == (torch.__version__, sys.version)
    assert (ROOT / "training.py").read_bytes() in ours
    assert (ROOT / "lab" / "training" / "stack.py").read_bytes() in ours
    others = [("0.0", python, kind, ours), (torch_version, "0", kind, ours)]
    others += [(torch_version, python, kind[1:], ours), (torch_version, python, kind, ours[1:])]
    for other in others:
        monkeypatch.setattr(keep, "surroundings", lambda other=other: other)
        assert name_of_code(SMALL, SGD) != name


def test_a_package_is_named_by_its_version(monkeypatch):
    pytest.importorskip("pytorch_optimizer")
    lion = parse_optimizer("pytorch_optimizer.Lion")
    name = name_of_code(SMALL, lion)
    assert name == name_of_code(SMALL, lion)
    keep.version_of.cache_clear()
    monkeypatch.setattr(keep.metadata, "version", lambda name: "0.0")
    assert name_of_code(SMALL, lion) != name
    keep.version_of.cache_clear()


def test_the_name_of_a_start_is_of_data_and_first_weights():
    one, other = trainings_of(SMALL, [1, 2])
    x, y = one.dataset.tensors
    name = name_of_start(SMALL, one)
    assert name == name_of_start(SMALL, trainings_of(SMALL, [1])[0])
    changed = x.clone()
    changed[-1] += 1e-6
    others = [
        other,
        replace_of(one, dataset=TensorDataset(changed, y)),
        replace_of(one, held_out=TensorDataset(changed, y)),
        replace_of(one, seed=2),
    ]
    assert len({name, *(name_of_start(SMALL, training) for training in others)}) == 5
    zeros = replace_of(SMALL, make_net=lambda: nn.Linear(1, 1).requires_grad_())
    assert name_of_start(zeros, one) != name


def test_data_that_may_serve_anything_have_no_name():
    (one,) = trainings_of(SMALL, [1])
    pairs = [one.dataset[k] for k in range(3)]
    assert name_of_start(SMALL, Training(1, pairs, pairs))

    class Augmented(TensorDataset):
        pass

    for dataset in (Augmented(*one.dataset.tensors), Subset(pairs, [1])):
        with pytest.raises(Unnamed, match="not tensors"):
            name_of_start(SMALL, Training(1, dataset, dataset))


# ---------------------------------------------------------------- the folder


def test_a_record_is_read_back(tmp_path):
    folder = tmp_path / "a" / "b"
    kept = Keep(folder)
    assert kept.load("one", dict) is None
    kept.save("one", {"tensor": torch.arange(3), "text": "abc", "none": None})
    assert [path.name for path in folder.iterdir()] == ["one.pt"]
    record = Keep(folder).load("one", dict)
    assert torch.equal(record.pop("tensor"), torch.arange(3))
    assert record == {"text": "abc", "none": None}
    assert not kept.remarks


class Evil:
    def __reduce__(self):
        return exec, ("open('evil', 'w')",)


def sealed(data):
    return hashlib.sha256(data).digest() + data


def spoil(path, how):
    whole = path.read_bytes()
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a bit":
        middle = whole.index(torch.full((8,), 7.0).numpy().tobytes())
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    elif how == "another name":
        shutil.copy(path.with_name("two.pt"), path)
    elif how == "pickle":
        path.write_bytes(sealed(pickle.dumps(Evil())))
    elif how == "torch and pickle":
        torch.save({"name": "one", "x": Evil()}, path)
        path.write_bytes(sealed(path.read_bytes()))
    elif how == "no record":
        torch.save([1, 2], path)
        path.write_bytes(sealed(path.read_bytes()))


@pytest.mark.parametrize(
    "how", ["cut", "empty", "a bit", "another name", "pickle", "torch and pickle", "no record"]
)
def test_what_is_damaged_or_foreign_is_passed_over(how, workdir):
    kept = Keep(workdir)
    kept.save("one", {"x": torch.full((8,), 7.0)})
    kept.save("two", {"x": torch.ones(2)})
    spoil(workdir / "one.pt", how)
    assert kept.load("one", dict) is None
    (remark,) = kept.remarks
    assert remark.startswith(f"passed over {workdir / 'one.pt'}, as it is damaged or foreign (")
    assert not Path("evil").exists()
    kept.save("one", {"x": torch.ones(1)})
    assert kept.load("one", dict) is not None


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").write_text("a file")
    kept = Keep(tmp_path / "folder" / "inner")
    kept.save("one", {"x": torch.ones(2)})
    (remark,) = kept.remarks
    assert remark == f"cannot keep it in {kept.folder}: Not a directory"


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def full(path, data):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    kept = Keep(tmp_path)
    kept.save("one", {"x": torch.ones(2)})
    assert list(kept.remarks) == [f"cannot keep it in {tmp_path}: No space left on device"]
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- trainings


@pytest.fixture
def trained(monkeypatch):
    """List what is trained: the seeds and rates of each piece."""
    seen = []
    train = crews.Order.train

    def look(self, group, progress):
        seen.append([(training.seed, training.lr) for training in group])
        return train(self, group, progress)

    monkeypatch.setattr(crews.Order, "train", look)
    return seen


def runs_of(folder, seeds, make_optimizer=SGD, task=SMALL):
    jobs = {"it": Job(task, trainings_of(task, seeds), make_optimizer)}
    ((_, runs),) = Crew(keep=Keep(folder)).each(train_all, jobs)
    return runs


def test_nothing_is_trained_twice(tmp_path, trained, monkeypatch):
    monkeypatch.setattr("lab.training.train.is_stack_quicker", lambda *_: False)
    first = runs_of(tmp_path, range(3))
    assert trained == [[(0, None)], [(1, None)], [(2, None)]]
    again = runs_of(tmp_path, range(3))
    assert len(trained) == 3
    for name in ("losses", "final_losses", "held_out_losses"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.predict(torch.ones(3, 1), 2), again.predict(torch.ones(3, 1), 2))
    assert again.seconds == pytest.approx(first.seconds)
    runs_of(tmp_path, range(4))
    assert trained[3:] == [[(3, None)]]
    runs_of(tmp_path, range(3), parse_optimizer("SGD(lr=0.2)"))
    assert len(trained) == 7


def test_a_stack_is_kept_whole(tmp_path, trained, monkeypatch):
    monkeypatch.setattr("lab.training.train.is_stack_quicker", lambda *_: True)
    first, again = runs_of(tmp_path, range(5)), runs_of(tmp_path, range(5))
    assert trained == [[(k, None) for k in range(5)]]
    assert first.stacked
    assert again.stacked
    assert torch.equal(first.losses, again.losses)
    runs_of(tmp_path, range(6))
    assert len(trained[-1]) == 6


def test_so_is_the_finding_that_nets_cannot_be_a_stack(tmp_path, trained, monkeypatch):
    monkeypatch.setattr("lab.training.train.is_stack_quicker", lambda *_: True)
    lbfgs = parse_optimizer("LBFGS(max_iter=2)")
    first = runs_of(tmp_path, range(2), lbfgs)
    assert len(trained) == 3
    again = runs_of(tmp_path, range(2), lbfgs)
    assert len(trained) == 3
    assert first.remarks == again.remarks
    assert "trained net by net" in first.remarks[0]


def test_what_fails_is_not_kept(tmp_path, trained):
    class Fails(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError("boom")

    for _ in range(2):
        assert runs_of(tmp_path, [1], Fails).error
    assert len(trained) == 2
    assert not list(tmp_path.iterdir())


def test_what_has_no_name_is_trained_and_not_kept(tmp_path, trained):
    space = {"__name__": "nowhere", "mse_loss": mse_loss}
    exec("def loss(outputs, y): return mse_loss(outputs, y)", space)
    for _ in range(2):
        runs = runs_of(tmp_path, [1], task=replace_of(SMALL, loss=space["loss"]))
        (remark,) = runs.remarks
        assert remark.startswith("not kept: ")
    assert len(trained) == 2
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_said_once_and_trained_anew(tmp_path, trained):
    runs_of(tmp_path, [1])
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"")
    (remark,) = runs_of(tmp_path, [1]).remarks
    assert "damaged or foreign" in remark
    assert runs_of(tmp_path, [1]).remarks == []
    assert len(trained) == 2


# ---------------------------------------------------------------- a whole script

PROBLEM = """
import os, time, torch
from conftest import SMALL
from dataclasses import replace

def make_net():
    if os.environ.get("SLOW"):
        time.sleep(0.15)
    return SMALL.make_net()

class MySGD(torch.optim.SGD):  # torch's own, one after the other
    def step(self, closure=None):
        with open("steps", "a") as file:
            file.write("x")
        return super().step(closure)

class Picky(MySGD):
    pass

mine = replace(SMALL, make_net=make_net)
"""


@posix_only
def test_a_sweep_that_was_killed_goes_on_where_it_was(homework, monkeypatch):
    """In another process, as one after the other as there."""
    monkeypatch.setattr(way, "MIN_NETS", 100)
    homework(PROBLEM, "problem")
    words = ["--task", "problem.mine", "--optimizers", "problem.MySGD", "--seeds", "3"]
    words += ["--lr", "0.01", "--no-show", "--jobs", "1"]
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "SLOW": "1"}
    process = start_script("compare_optimizers.py", *words, "--keep", "kept", env=env)
    end = time.monotonic() + PATIENCE
    while not list(Path().glob("kept/*.pt")):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.communicate()
    n_kept = len(list(Path("kept").glob("*.pt")))
    assert n_kept >= 1

    def finished(*more):
        Path("steps").write_text("")
        assert compare_optimizers.main([*words, *more, "--csv", "it.csv"]) == 0
        return Path("it.csv").read_bytes(), len(Path("steps").read_text())

    reference, n_steps = finished()
    for n_known in (n_kept, 3):
        again, n_taken = finished("--keep", "kept")
        assert again == reference
        assert n_taken <= n_steps - 24 * n_known  # a training has 24
