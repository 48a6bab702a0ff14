"""What is wrong with a task is known before it is trained, and what is trained is never lost."""

import re

import matplotlib.pyplot as plt
import pytest
import torch
from small_files import (
    HEAD,
    SEED,
    assert_refused,
    assert_saved,
    losses_in_csv,
    near,
    objects_of,
    plain_training,
    read_csv,
    run,
)

import compare_batch_sizes
import compare_learning_rates
import compare_optimizers
import compare_tasks

NET = "lambda: nn.Linear(2, 2)"
NO_BLAME = ["does not work here", "SGD", "Adam"]  # of an optimizer

# What is wrong with a task, and what the line about it has to hold.
WRONG = {
    # ------------------------------------------------ labels, shapes, types: in all of the data
    "a label that is too large, late": (["b.mine", "4", "0 to 3"], """
x, y = torch.randn(120, 4, generator=g), torch.randint(4, (120,), generator=g)
y[79] = 4
mine = Task(lambda seed: (TensorDataset(x[:80], y[:80]), TensorDataset(x[80:], y[80:])),
            lambda: nn.Linear(4, 4), F.cross_entropy, 3, 20)
"""),
    "a label that is too large, held out": (["b.mine", "2", "0 to 1"], """
y[119] = 2
mine = Task(lambda seed: (TensorDataset(x[:80], y[:80]), TensorDataset(x[80:], y[80:])),
            lambda: nn.Linear(2, 2), F.cross_entropy, 3, 20)
"""),
    "labels from 1 on": (["b.mine", "2", "0 to 1"], f"""
mine = Task(data(x, y + 1), {NET}, F.cross_entropy, 3, 20)
"""),
    "labels of -1 and 1": (["b.mine", "from -1 to 1", "0 to 1"], f"""
mine = Task(data(x, 2 * y - 1), {NET}, F.cross_entropy, 3, 20)
"""),
    "a word that the embedding lacks, late": (["b.mine"], """
words = torch.randint(9, (120, 3), generator=g)
words[79] = 9
net = lambda: nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(6, 2))
mine = Task(lambda seed: (TensorDataset(words[:80], y[:80]), TensorDataset(words[80:], y[80:])),
            net, F.cross_entropy, 3, 20)
"""),
    "outputs that broadcast": (["b.mine", "1)", "3)"], """
mine = Task(data(x, torch.rand(120, 3, generator=g)), lambda: nn.Linear(2, 1), F.mse_loss, 2, 20)
"""),
    "a written-out loss that broadcasts": (["b.mine", "(20, 1)", "(20,)"], """
mine = Task(data(x, x.sum(1)), lambda: nn.Linear(2, 1), lambda o, y: ((o - y) ** 2).mean(), 2, 20)
"""),
    "a last mini-batch of one that batch norm refuses": (["b.mine", "--batch-size"], """
net = lambda: nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
mine = Task(data(x[:101], y[:101]), net, F.cross_entropy, 3, 20)
"""),
    "batch norm, and mini-batches of one": (["b.mine", "--batch-size"], """
net = lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
mine = Task(data(x, y), net, F.cross_entropy, 3, 1)
"""),
    "a last mini-batch of one that squeeze() makes a number": (["b.mine", "--batch-size"], """
class Net(nn.Linear):
    def forward(self, x):
        return super().forward(x).squeeze()


mine = Task(data(x[:101], y[:101].float()), lambda: Net(2, 1), nn.BCEWithLogitsLoss(), 3, 20)
"""),
    "what fails backward only": (["b.mine", "inplace operation"], """
class Net(nn.Linear):
    def forward(self, x):
        h = super().forward(x).exp()
        h += 1
        return h


mine = Task(data(x, x), lambda: Net(2, 2), F.mse_loss, 3, 20)
"""),
    "a net that cannot take the held-out set": (["b.mine", "held"], """
class Net(nn.Linear):
    def forward(self, x):
        if (x > 5).any():
            raise ValueError("too large")
        return super().forward(x)


mine = Task(lambda seed: (TensorDataset(x[:80], y[:80]), TensorDataset(x[80:] + 9, y[80:])),
            lambda: Net(2, 2), F.cross_entropy, 3, 20)
"""),
    # ------------------------------------------------ a loss that is no mean, or that leads nowhere
    "a loss that is a sum": (["b.mine", "sum"], f"""
mine = Task(data(x, x), {NET}, nn.MSELoss(reduction="sum"), 3, 20)
"""),
    "a loss with parameters of its own": (["b.mine", "parameters"], f"""
class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(1))

    def forward(self, outputs, y):
        return ((outputs - y) ** 2 / self.log_variance.exp() + self.log_variance).mean()


mine = Task(data(x, x), {NET}, Weighted(), 3, 20)
"""),
    "a softmax over one output": (["b.mine", "gradient", "zero"], """
mine = Task(data(x, x[:, :1]), lambda: nn.Linear(2, 1), F.cross_entropy, 3, 20)
"""),
    "a loss of decisions": (["b.mine", "gradient"], f"""
loss = lambda scores, y: (scores.round() - y.unsqueeze(1)).abs().mean()
mine = Task(data(x, y), {NET}, loss, 3, 20)
"""),
    "an infinite first loss": (["b.mine", "finite"], """
def make_net():
    net = nn.Linear(1, 1)
    nn.init.ones_(net.weight)
    return net


large = 1e4 * x[:, :1].abs() + 100  # nobody has scaled it
mine = Task(data(large, torch.ones(120, 1)), make_net, nn.PoissonNLLLoss(), 3, 20)
"""),
    "a net without parameters": (["b.mine", "parameters"], """
class Nothing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(2, 2)]

    def forward(self, x):
        return self.layers[0](x)


mine = Task(data(x, y), Nothing, F.cross_entropy, 3, 20)
"""),
    # ------------------------------------------------ fields of another kind
    "the loss's class": (
        ["b.mine", "MSELoss()"], f"mine = Task(data(x, x), {NET}, nn.MSELoss, 2, 20)"),
    "a net, not make_net": (
        ["make_net", "lambda"], "mine = Task(data(x, x), nn.Linear(2, 2), F.mse_loss, 2, 20)"),
    "the data, not make_data": (
        ["make_data"], f"mine = Task(data(x, x)(0), {NET}, F.mse_loss, 2, 20)"),
    "a float for batch_size": (
        ["batch_size"], f"mine = Task(data(x, x), {NET}, F.mse_loss, 2, batch_size=20.0)"),
    "0 for batch_size": (
        ["batch_size"], f"mine = Task(data(x, x), {NET}, F.mse_loss, 2, batch_size=0)"),
    "a float for epochs": (["epochs"], f"mine = Task(data(x, x), {NET}, F.mse_loss, 2.0, 20)"),
    "a text for epochs": (["epochs"], f"mine = Task(data(x, x), {NET}, F.mse_loss, '2', 20)"),
    "0 for epochs": (["epochs"], f"mine = Task(data(x, x), {NET}, F.mse_loss, 0, 20)"),
    "a text for target": (
        ["target"], f"mine = Task(data(x, x), {NET}, F.mse_loss, 2, 20, target='low')"),
    "subsets of chance": (["b.mine", "make_data", "generator"], f"""
halves = lambda seed: torch.utils.data.random_split(TensorDataset(x, y), [80, 40])
mine = Task(halves, {NET}, F.cross_entropy, 3, 20)
"""),
    # ------------------------------------------------ not the same for the same seed
    "views of one tensor that each call changes": (["b.mine", "make_data"], """
def make_data(seed):
    x.mul_(2)
    return TensorDataset(x[:80], y[:80]), TensorDataset(x[80:], y[80:])


mine = Task(make_data, lambda: nn.Linear(2, 2), F.cross_entropy, 3, 20)
"""),
    "a net that changes its data": (["b.mine", "in place"], """
mine = Task(data(x, y), lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 2)),
            F.cross_entropy, 3, 20)
"""),
    "a warning that its loss raises": (["b.mine", "UserWarning: odd (b.py, line"], """
def loss(outputs, y):
    raise UserWarning("odd")


mine = Task(data(x, y), lambda: nn.Linear(2, 2), loss, 3, 20)
"""),
    "one net for all": (["b.mine", "make_net", "new"], """
NETWORK = nn.Linear(2, 2)
mine = Task(data(x, y), lambda: NETWORK, F.cross_entropy, 3, 20)
"""),
    "one layer for all": (["b.mine", "make_net", "new"], """
FIRST = nn.Linear(2, 4)
net = lambda: nn.Sequential(FIRST, nn.ReLU(), nn.Linear(4, 2))
mine = Task(data(x, y), net, F.cross_entropy, 3, 20)
"""),
    "first weights of another generator": (["b.mine", "make_net"], """
def make_net():
    net = nn.Linear(2, 2)
    net.weight.data.normal_(generator=g)
    return net


mine = Task(data(x, y), make_net, F.cross_entropy, 3, 20)
"""),
    "a split without a seed": (["b.mine", "make_data"], f"""
import numpy


def make_data(seed):
    rows = torch.from_numpy(numpy.random.permutation(120))
    return TensorDataset(x[rows[:80]], y[rows[:80]]), TensorDataset(x[rows[80:]], y[rows[80:]])


mine = Task(make_data, {NET}, F.cross_entropy, 3, 20)
"""),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_before_it_is_trained(name, small_file):
    words, source = WRONG[name]
    small_file(HEAD + source)
    end = run(compare_optimizers, "--task", "b.mine", "--optimizers", "SGD", "Adam")
    assert_refused(end, *words, never=NO_BLAME)


@pytest.mark.parametrize(
    ("script", "option"),
    [
        (compare_batch_sizes, "--task"),
        (compare_learning_rates, "--task"),
        (compare_tasks, "--tasks"),
    ],
)
@pytest.mark.parametrize("name", ["a label that is too large, late", "an infinite first loss"])
def test_every_script_refuses_it(script, option, name, small_file):
    words, source = WRONG[name]
    small_file(HEAD + source)
    jobs = ["--jobs", "1"] if script is compare_tasks else []
    assert_refused(run(script, option, "b.mine", *jobs), *words, never=NO_BLAME)


def test_data_drawn_without_a_generator_are_the_same_for_all_or_refused(small_file):
    # torch's own generator can be seeded before make_data(seed) is called.
    source = """
mine = Task(lambda seed: split(seed, x, x + torch.randn(x.shape), 40), lambda: nn.Linear(2, 2),
            F.mse_loss, 3, 20)
"""
    small_file(HEAD + source)
    words = ["--tasks", "b.mine", "--optimizers", "SGD", "again=SGD", "--seeds", "2"]
    end = run(compare_tasks, *words, "--judges", "3", "--lr-count", "2", "--jobs", "1")
    if end.status == 2:
        assert_refused(end, "b.mine", "make_data", never=NO_BLAME)
    else:
        first, again = (
            [
                (row["lr"], row["seed"], row["held_out_loss"])
                for row in read_csv()
                if row["optimizer"] == label
            ]
            for label in ("SGD", "again")
        )
        assert first == again


def test_a_batch_size_of_one_that_batch_norm_refuses_is_not_the_optimizers_fault(small_file):
    _, source = WRONG["a last mini-batch of one that batch norm refuses"]
    small_file(HEAD + source.replace("[:101]", ""))
    end = run(compare_batch_sizes, "--task", "b.mine", "--batch-sizes", "full", "20", "1")
    assert_refused(end, "--batch-sizes", "1", never=NO_BLAME)


# ---------------------------------------------------------------- what is trained is never lost

# A task that goes well until it is trained; then something of it fails.
LATE = {
    "an evaluation": ([], "if not self.training and self.steps > 30: raise KeyError('late')"),
    "an evaluation of all samples at once": (
        [], "if len(x) > 300: raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')"),
    "a fit": (["--fit"], "if (x.norm(dim=1) > 1.001).any(): raise ValueError('not on the disc')"),
}  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("name", LATE)
def test_what_fails_after_the_training_costs_no_more_than_itself(name, seeds, small_file):
    options, fails = LATE[name]
    source = (
        HEAD
        + f"""
x = torch.randn(1040, 2, generator=g)
x = x / x.norm(dim=1, keepdim=True).clamp(min=1)
y = (x[:, 0] > 0).long()


class Net(nn.Linear):
    steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
        {fails}
        return super().forward(x)


mine = Task(data(x, y), lambda: Net(2, 2), F.cross_entropy, 10, 250)
"""
    )
    small_file(source)
    words = ["--task", "b.mine", "--optimizers", "SGD", "Adam", "--seeds", str(seeds), *options]
    end = run(compare_optimizers, *words)
    # Either evaluated in parts, or told: a dash in the row, and a line.
    assert end.status in ((0, 1) if "at once" in name else (1,))
    assert_saved(end, end.status)
    plain = plain_training(
        objects_of(source.replace(fails, "pass"))["mine"],
        lambda params: torch.optim.SGD(params, lr=0.01),
    )
    assert losses_in_csv("SGD") == near(plain.losses)
    assert len(losses_in_csv("Adam", SEED + seeds - 1)) == len(plain.losses)
    row = end.rows["SGD"]
    if name == "an evaluation":
        assert row["held-out loss"] == "-"  # it is not known
    elif end.status == 0 or name == "a fit":
        assert row["held-out loss"].startswith(f"{plain.held_out:.5f}"[:5] if seeds == 1 else "")
    if end.status:
        assert re.search("late|memory|disc", end.said)
    assert {"SGD", "Adam"} <= {line.get_label() for line in plt.gcf().axes[0].lines}


# ---------------------------------------------------------------- whatever one's own code raises

PLACES = ["import", "make_data", "make_net", "forward", "loss", "optimizer", "step 1", "step 3"]
ERRORS = ["SystemExit(3)", "GeneratorExit", "AssertionError", "Odd('no')"]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_ones_own_code_raises_is_one_line_that_names_its_place(place, error, small_file):
    source = (
        HEAD
        + """
class Odd(BaseException):
    pass


def raise_at(place):
    if place == PLACE:
        raise ERROR


def make_data(seed):
    raise_at("make_data")
    return split(seed, x, y, held_out=40)


def make_net():
    raise_at("make_net")
    return Net(2, 2)


class Net(nn.Linear):
    def forward(self, x):
        raise_at("forward")
        return super().forward(x)


def loss(outputs, y):
    raise_at("loss")
    return F.cross_entropy(outputs, y)


class Mine(torch.optim.SGD):
    steps = 0

    def __init__(self, params, lr=0.01):
        raise_at("optimizer")
        super().__init__(params, lr)

    def step(self, closure=None):
        self.steps += 1
        raise_at(f"step {self.steps}")
        return super().step(closure)


mine = Task(make_data, make_net, loss, 2, 20)
raise_at("import")
""".replace("PLACE", repr(place)).replace("ERROR", error)
    )
    small_file(source)
    end = run(compare_optimizers, "--task", "b.mine", "--optimizers", "b.Mine", "Adam")
    line = next(n for n, text in enumerate(source.splitlines(), 1) if f"raise {error}" in text)
    if place == "step 3":
        assert_saved(end, 1)
        assert "failed at step 3" in end.said
        assert len(losses_in_csv("Adam")) == 8
    else:
        assert_refused(end)
        assert re.search(r"exit" if "Exit" in error else error.partition("(")[0], end.err, re.I)
    assert re.search(rf"b\.py.*\b{line}\b|\b{line}\b.*b\.py", end.said)  # its file and line
    if place in ("make_data", "make_net", "forward", "loss"):
        assert "b.mine" in end.err


LATER = """
class Odd(BaseException):
    pass


late = False


def raise_late(place):
    if late and place == PLACE:
        raise ERROR


def make_net():
    raise_late("make_net")
    return Net(2, 2)


class Net(nn.Linear):
    def forward(self, x):
        raise_late("forward")
        return super().forward(x)


def errors(outputs, y):
    raise_late("metric")
    return (outputs.argmax(1) != y).double().mean()


class Mine(torch.optim.SGD):
    def __init__(self, params, lr=0.01):
        super().__init__(params, lr, momentum=0.5)

    def step(self, closure=None):
        global late
        late = len(self.state) > 0  # from its second step on
        return super().step(closure)


mine = Task(data(x, y), make_net, F.cross_entropy, 2, 20, metric=errors)
"""


@pytest.mark.parametrize("error", ["Odd('no')", "ZeroDivisionError('no')"])
@pytest.mark.parametrize(
    ("place", "said"),
    [("forward", "failed at step 2"), ("metric", "b.Mine: no errors"), ("make_net", "stopped: ")],
)
def test_what_ones_own_code_raises_late_costs_nothing_that_is_trained(
    place, said, error, small_file
):
    source = HEAD + LATER.replace("PLACE", repr(place)).replace("ERROR", error)
    small_file(source)
    end = run(compare_optimizers, "--task", "b.mine", "--optimizers", "Adam", "b.Mine", "SGD")
    assert_saved(end, 1)
    line = next(n for n, text in enumerate(source.splitlines(), 1) if f"raise {error}" in text)
    assert re.search(rf"{said}.*: no \(b\.py, line {line}\)", " ".join(end.said.split()))
    n_steps = len(losses_in_csv("Adam"))
    assert n_steps == 8
    assert len(losses_in_csv("b.Mine")) == (1 if place == "forward" else n_steps)


def test_a_rate_that_an_optimizer_refuses_costs_no_other(small_file):
    small_file(
        HEAD
        + """
class Mine(torch.optim.SGD):
    def __init__(self, params, lr=0.01):
        if lr > 0.5:
            raise ValueError("lr is too high")
        super().__init__(params, lr)


mine = Task(data(x, y), lambda: nn.Linear(2, 2), F.cross_entropy, 2, 20)
"""
    )
    words = ["--task", "b.mine", "--seeds", "2", "--lr-range", "0.01", "1", "--lr-count", "3"]
    end = run(compare_learning_rates, *words, "--judges", "2", "--optimizers", "b.Mine", "SGD")
    assert_saved(end, 1)
    assert "failed at step 1 of seed 81: ValueError: lr is too high (b.py, line" in end.said
    rates = {label: {r["lr"] for r in read_csv() if r["optimizer"] == label} for label in end.rows}
    assert rates["b.Mine"] == {"0.01", "0.1"}
    assert {"0.01", "0.1", "1.0"} <= rates["SGD"]
    assert "forgiving" not in end.said  # nobody knows what the others would have been
