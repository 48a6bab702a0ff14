"""Nets as people have them: outputs of any structure, state of any kind, as in a plain loop."""

import matplotlib.pyplot as plt
import pytest
import torch
from small_files import (
    HEAD,
    LR,
    SEED,
    assert_accuracy,
    assert_refused,
    assert_saved,
    assert_task_is_trained,
    near,
    objects_of,
    plain_training,
    read_csv,
    run,
)

import compare_batch_sizes
import compare_learning_rates
import compare_optimizers


def scores(outputs, y):
    return outputs.argmax(1) == y


# A task of each kind, and which of its outputs are right: None where there is no accuracy.
TASKS = {
    # ------------------------------------------------ outputs of any structure
    "a tuple": (None, """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(1, 1)

    def forward(self, x):
        return self.out(x), x  # for visualization


mine = Task(parabola, Net, lambda outputs, y: F.mse_loss(outputs[0], y), 1, 100)
"""),
    "a dict": (None, """
class Net(nn.Linear):
    def forward(self, x):
        return {"mean": super().forward(x), "size": len(x)}


mine = Task(parabola, lambda: Net(1, 1), lambda outputs, y: F.mse_loss(outputs["mean"], y), 1, 100)
"""),
    "a named tuple of two heads": (None, """
from typing import NamedTuple


class Heads(NamedTuple):
    kind: torch.Tensor
    size: torch.Tensor


class Net(nn.Linear):
    def forward(self, x):
        return Heads(*super().forward(x).split(2, 1))


def loss(heads, t):
    return F.cross_entropy(heads.kind, t[:, 0]) + F.cross_entropy(heads.size, t[:, 1])


mine = Task(data(x, (x > 0).long()), lambda: Net(2, 4), loss, 3, 20)
"""),
    "an object of one's own, as language models have": (None, """
class Answer:
    def __init__(self, logits):
        self.logits = logits


class Net(nn.Linear):
    def forward(self, x):
        return Answer(super().forward(x))


loss = lambda answer, t: F.mse_loss(answer.logits, t)
mine = Task(data(x, x), lambda: Net(2, 2), loss, 3, 20)
"""),
    # ------------------------------------------------ state of any kind
    "a buffer that is not saved": (scores, """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.rand(2), persistent=False)
        self.out = nn.Linear(2, 2)

    def forward(self, x):
        return self.out(self.scale * x)


mine = Task(data(x, y), Net, F.cross_entropy, 3, 20)
"""),
    "random features in a plain attribute": (scores, """
class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        self.waves = 4 * torch.randn(2, 16)  # neither parameter nor buffer, of the seed
        self.out = nn.Linear(32, 2)

    def forward(self, x):
        a = x @ self.waves
        return self.out(torch.cat([a.sin(), a.cos()], 1))


mine = Task(data(x, y), Waves, F.cross_entropy, 3, 20)
"""),
    "layers in a plain list": (scores, """
class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = [nn.Linear(2, 8), nn.Tanh()]
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.out(x)


mine = Task(data(x, y), Hidden, F.cross_entropy, 3, 20)
"""),
    "a layer that is not used yet": (None, """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.hidden2 = nn.Linear(1, 8), nn.Linear(8, 8)
        self.predict = nn.Linear(8, 1)

    def forward(self, x):
        return self.predict(self.hidden(x).relu())


mine = Task(parabola, Net, F.mse_loss, 1, 100)
"""),
    "a layer that is frozen": (scores, """
def net():
    layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    layers[0].requires_grad_(False)
    return layers


mine = Task(data(x, y), net, F.cross_entropy, 3, 20)
"""),
    "one weight in two places": (None, """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.there, self.back = nn.Linear(2, 2), nn.Linear(2, 2)
        self.back.weight = self.there.weight

    def forward(self, x):
        return self.back(self.there(x).tanh())


mine = Task(data(x, x), Tied, F.mse_loss, 3, 20)
"""),
    "a weight whose length is apart": (scores, """
from torch.nn.utils.parametrizations import weight_norm

mine = Task(data(x, y), lambda: weight_norm(nn.Linear(2, 2)), F.cross_entropy, 3, 20)
"""),
    "complex weights": (None, """
class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 1, dtype=torch.complex64))
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return (x.to(torch.complex64) @ self.w).abs() + self.b


mine = Task(data(x, x.norm(dim=1, keepdim=True)), Complex, F.mse_loss, 3, 20)
"""),
    "a number as a parameter": (None, """
class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(())), nn.Parameter(torch.randn(()))

    def forward(self, x):
        return self.a * x + self.b


mine = Task(parabola, Line, F.mse_loss, 1, 100)
"""),
    "frozen batch norm": (None, """
def make_net():
    net = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    net[1].eval()
    return net


mine = Task(parabola, make_net, F.mse_loss, 2, 100)
"""),
    "dropout that is never on": (scores, """
def make_net():
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2)).eval()


mine = Task(data(x, y), make_net, F.cross_entropy, 3, 20)
"""),
    # ------------------------------------------------ inputs, and where they come from
    "images of bytes": (scores, """
images = (255 * torch.rand(120, 1, 4, 4, generator=g)).to(torch.uint8)
bright = (images[:, 0, :2].sum((1, 2)) > images[:, 0, 2:].sum((1, 2))).long()


class Net(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1) / 255)


mine = Task(data(images, bright), lambda: Net(16, 2), F.cross_entropy, 3, 20)
"""),
    "the two data sets in a list": (None, """
both = lambda seed: list(split(seed, x, x, held_out=40))
mine = Task(both, lambda: nn.Linear(2, 2), F.mse_loss, 3, 20)
"""),
    "no seed, as one has split the data for good": (scores, """
train, test = TensorDataset(x[:80], y[:80]), TensorDataset(x[80:], y[80:])
mine = Task(lambda seed: (train, test), lambda: nn.Linear(2, 2), F.cross_entropy, 3, 20)
"""),
}  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", TASKS)
def test_it_is_trained_as_by_a_plain_loop(name, seeds, small_file):
    is_right, source = TASKS[name]
    small_file(HEAD + source)
    assert_task_is_trained(HEAD + source, is_right, seeds)


def test_a_net_that_learns_its_size_from_the_data_is_trained_or_refused_by_name(small_file):
    # To refuse it is enough: what to do is said by torch, which names neither task nor make_net.
    source = (
        HEAD
        + """
mine = Task(data(x, y), lambda: nn.LazyLinear(2), F.cross_entropy, 3, 20)
"""
    )
    small_file(source)
    end = run(compare_optimizers, "--task", "b.mine", "--optimizers", "SGD")
    if end.status == 2:
        assert_refused(end, "b.mine", "make_net")
    else:
        assert_task_is_trained(source, scores, 3)


# ---------------------------------------------------------------- in the other scripts

PLAIN_ATTRIBUTE = "random features in a plain attribute"


def plain_sgd(source, lr=LR, **own):
    return plain_training(objects_of(source)["mine"], lambda p: torch.optim.SGD(p, lr=lr), **own)


@pytest.mark.parametrize("name", ["a tuple", "a buffer that is not saved", PLAIN_ATTRIBUTE])
def test_a_sweep_gives_the_numbers_of_a_plain_loop(name, small_file):
    is_right, source = TASKS[name][0], HEAD + TASKS[name][1]
    small_file(source)
    words = ["--task", "b.mine", "--optimizers", "SGD", "--seeds", "3", "--lr-count", "2"]
    words += ["--judges", "3"]
    end = run(compare_learning_rates, *words, "--lr-range", "0.01", "0.1")
    assert_saved(end)
    rows = read_csv()
    for row in rows[:6]:
        alone = plain_sgd(source, float(row["lr"]), seed=int(row["seed"]))
        assert float(row["final_loss"]) == near(alone.final)
        assert float(row["held_out_loss"]) == near(alone.held_out)
    best = float(end.rows["SGD"]["best lr"])
    alone = [plain_sgd(source, best, seed=SEED + k) for k in range(3, 6)]
    assert_accuracy(end.column("accuracy"), is_right, alone)


@pytest.mark.parametrize(
    "name",
    [
        "a tuple",
        "a buffer that is not saved",
        "a layer that is not used yet",
        "a layer that is frozen",
        "frozen batch norm",
        "dropout that is never on",
    ],
)
def test_batch_sizes_give_the_numbers_of_a_plain_loop(name, small_file):
    source = HEAD + TASKS[name][1]
    small_file(source)
    words = ["--task", "b.mine", "--batch-sizes", "40", "full", "--lr", str(LR)]
    end = run(compare_batch_sizes, *words)
    assert_saved(end)
    task = objects_of(source)["mine"]
    for size in (len(task.make_data(SEED)[0]), 40):
        rows = [row for row in read_csv() if row["batch_size"] == str(size)]
        assert len(rows) == task.epochs + 1
        alone = plain_sgd(source, batch_size=size)
        assert float(rows[-1]["loss"]) == alone.final
        assert float(rows[-1]["held_out_loss"]) == alone.held_out
    assert not end.err
    assert not end.warnings


def test_the_regions_of_a_fit_are_those_of_each_seeds_own_net(small_file):
    source = HEAD + TASKS[PLAIN_ATTRIBUTE][1]
    small_file(source)
    words = ["--optimizers", "SGD", "--lr", str(LR), "--seeds", "3", "--fit"]
    assert_saved(run(compare_optimizers, "--task", "b.mine", *words))
    plains = [plain_sgd(source, seed=SEED + k) for k in range(3)]
    (image,) = plt.gcf().axes[1].images
    left, right, low, high = image.get_extent()
    classes = torch.as_tensor(image.get_array())
    points = torch.cartesian_prod(
        torch.linspace(low, high, len(classes)), torch.linspace(left, right, classes.shape[1])
    ).flip(1)
    mean = torch.stack([plain.outputs(points).softmax(1) for plain in plains]).mean(0)
    assert (mean.argmax(1) == classes.flatten()).double().mean() > 0.99
