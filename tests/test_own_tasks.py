"""Problems that a user may bring: other nets, data and losses, each as in a plain loop."""

import math
from dataclasses import replace

from lab.command_line.specs import parse_optimizer
from lab.training.checks import check_task
from lab.training.runs import trainings_of
from lab.training.stack import Stack
from lab.training.train import IN_TURN, train_all

import pytest
import torch
from conftest import SMALL, SmallNet, textbook_training
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss, nll_loss
from torch.utils.data import TensorDataset

import compare_learning_rates
import compare_optimizers
from tasks import Task


def data_like(make_x, make_y):
    """Return a make_data: `make_x(n, generator)`, and `make_y(x)`, for 60 samples and 30."""

    def make_data(seed):
        generator = torch.Generator().manual_seed(seed)
        xs = [make_x(n, generator) for n in (60, 30)]
        return tuple(TensorDataset(x, make_y(x)) for x in xs)

    return make_data


def points(n, generator):
    return torch.randn(n, 4, generator=generator)


def words(n, generator):
    return torch.randint(9, (n, 5), generator=generator)


def images(n, generator):
    return torch.rand(n, 1, 6, 6, generator=generator)


def series(n, generator):
    return torch.randn(n, 7, 2, generator=generator)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(2, 5, batch_first=True)
        self.predict = nn.Linear(5, 1)

    def forward(self, x):
        outputs, _ = self.cell(x)
        return self.predict(outputs[:, -1])


def sequence(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def linear(n_inputs, n_outputs):
    return lambda: nn.Linear(n_inputs, n_outputs)


def is_positive(x):
    return (x.flatten(1).double().sum(1) > 0).long()


OWN = {
    "dropout": Task(
        data_like(points, is_positive),
        sequence(linear(4, 16), nn.ReLU, nn.Dropout, linear(16, 2)),
        cross_entropy, 4, 16,
    ),
    "batch norm": Task(
        data_like(points, is_positive),
        sequence(linear(4, 16), lambda: nn.BatchNorm1d(16), nn.ReLU, linear(16, 2)),
        cross_entropy, 4, 16,
    ),
    "embedding": Task(
        data_like(words, lambda x: (x.sum(1) % 3)),
        sequence(lambda: nn.Embedding(9, 4), nn.Flatten, linear(20, 3)),
        cross_entropy, 4, 16,
    ),
    "images": Task(
        data_like(images, lambda x: (x[:, 0, :3].sum((1, 2)) > x[:, 0, 3:].sum((1, 2))).long()),
        sequence(lambda: nn.Conv2d(1, 3, 3), nn.ReLU, lambda: nn.MaxPool2d(2), nn.Flatten,
                 linear(12, 2)),
        cross_entropy, 4, 16,
    ),
    "recurrent": Task(
        data_like(series, lambda x: x.sum((1, 2)).unsqueeze(1)),
        lambda: Recurrent(nn.RNN), mse_loss, 4, 16,
    ),
    "lstm": Task(
        data_like(series, lambda x: x.sum((1, 2)).unsqueeze(1)),
        lambda: Recurrent(nn.LSTM), mse_loss, 4, 16,
    ),
    "log softmax": Task(
        data_like(points, is_positive),
        sequence(linear(4, 2), lambda: nn.LogSoftmax(1)),
        nll_loss, 4, 16,
    ),
    "yes or no": Task(
        data_like(points, lambda x: is_positive(x).float().unsqueeze(1)),
        sequence(linear(4, 8), nn.Tanh, linear(8, 1)),
        binary_cross_entropy_with_logits, 4, 16,
    ),
    "double": Task(
        data_like(lambda n, g: points(n, g).double(), lambda x: x[:, :2].sin()),
        lambda: nn.Linear(4, 2).double(), mse_loss, 4, 16,
    ),
    "sparse": Task(
        data_like(words, lambda x: x.double().sum(1, keepdim=True).float() / 10),
        sequence(lambda: nn.Embedding(9, 1, sparse=True), lambda: nn.Flatten(1), linear(5, 1)),
        mse_loss, 4, 16,
    ),
}  # fmt: skip
STACKED = {"batch norm", "embedding", "images", "log softmax", "yes or no", "double"}


def sgd(params):
    return torch.optim.SGD(params, lr=0.05, momentum=0.5)


@pytest.mark.parametrize("name", OWN)
def test_it_gives_the_numbers_of_a_plain_loop(name):
    task, seeds = OWN[name], (3, 4, 5)
    check_task(task, 3)
    runs = train_all(task, trainings_of(task, seeds), sgd)
    assert runs.stacked == (name in STACKED), runs.remarks
    if not runs.stacked:
        (remark,) = runs.remarks
        assert remark.startswith(f"{IN_TURN} (")
        assert len(remark) > len(IN_TURN) + 10  # why
    for k, seed in enumerate(seeds):
        train_set, held_out = task.make_data(seed)
        losses, net = textbook_training(
            train_set, task.make_net, sgd, task.loss, seed, task.epochs, task.batch_size
        )
        net.eval()
        ends = [task.loss(net(x), y).item() for x, y in (train_set.tensors, held_out.tensors)]
        rounding = {"rel": 1e-4, "abs": 1e-6}
        assert runs.history(k) == pytest.approx(losses, **rounding)
        assert runs.final_losses[k].item() == pytest.approx(ends[0], **rounding)
        assert runs.held_out_losses[k].item() == pytest.approx(ends[1], **rounding)
        x, y = held_out.tensors
        torch.testing.assert_close(runs.predict(x, k), net(x).detach(), rtol=1e-4, atol=1e-5)
        if not y.is_floating_point():
            right = (net(x).argmax(1) == y).double().mean()
            assert runs.measured(runs.trainings[k].metric(task), [k]).item() == pytest.approx(
                right.item()
            )


@pytest.mark.parametrize("name", ["dropout", "batch norm"])
def test_the_numbers_of_a_seed_do_not_depend_on_its_company(name):
    task = OWN[name]
    together = train_all(task, trainings_of(task, range(4), (0.01, 0.1)), torch.optim.Adam)
    (alone,) = trainings_of(task, [2], [0.1])
    alone = train_all(task, [alone], torch.optim.Adam)
    assert together.history(6) == pytest.approx(alone.history(0), rel=1e-3, abs=1e-5)


class StackedWrongly(nn.BatchNorm1d):
    """Counts what it has seen in a number that no stack can keep for each net."""

    seen = 0

    def forward(self, x):
        if self.training:
            StackedWrongly.seen += 1
        return super().forward(x) * (1 + 0.01 * StackedWrongly.seen)


def test_a_net_whose_buffers_a_stack_gets_wrong_is_trained_in_turn(monkeypatch):
    task = OWN["batch norm"]
    backward = Stack.backward

    def forgets(stack, samples):
        before = {name: value.clone() for name, value in stack.buffers.items()}
        result = backward(stack, samples)
        for name, value in stack.buffers.items():
            value.copy_(before[name])
        return result

    monkeypatch.setattr(Stack, "backward", forgets)
    runs = train_all(task, trainings_of(task, (1, 2)), sgd)
    assert not runs.stacked
    assert "running_mean differs" in runs.remarks[0]


def test_a_net_that_counts_its_calls_is_trained_in_turn():
    layers = sequence(linear(4, 6), lambda: StackedWrongly(6), linear(6, 2))
    task = replace(OWN["batch norm"], make_net=layers)
    assert not train_all(task, trainings_of(task, (1, 2)), sgd).stacked


def test_every_script_takes_it_from_a_session():
    task, mine = OWN["images"], {"mine": sgd}
    runs = dict(compare_optimizers.compare(mine, task, seeds=range(3)))
    figure = compare_optimizers.draw(runs)
    assert figure.legends[0].get_texts()[0].get_text() == "mine"
    makers = {"SGD": parse_optimizer("SGD")}
    sweeps = dict(
        compare_learning_rates.compare(makers, task, (0.01, 0.1, 1.0), range(4), range(4, 8))
    )
    assert len(compare_learning_rates.draw(sweeps).axes) == 2
    assert 0.4 < sweeps["SGD"].measured(sweeps["SGD"].runs.trainings[0].metric(task)).median() <= 1


# ---------------------------------------------------------------- what does not go together


def no_net():
    raise ZeroDivisionError("no\nnet")


GOOD = data_like(points, lambda x: x[:, :1])
BAD = {
    "two TensorDatasets": replace(SMALL, make_data=lambda seed: GOOD(seed)[0]),
    "each of x and y": replace(
        SMALL, make_data=lambda seed: (TensorDataset(torch.ones(3)), TensorDataset(torch.ones(3)))
    ),
    "its data cannot be made: KeyError: 'x'": replace(SMALL, make_data=lambda seed: {}["x"]),
    "not of one shape": replace(
        SMALL, make_data=lambda seed: (GOOD(seed)[0], OWN["images"].make_data(seed)[0])
    ),
    "is empty": replace(
        SMALL,
        make_data=lambda seed: (GOOD(seed)[0], TensorDataset(torch.ones(0, 4), torch.ones(0, 1))),
    ),
    "not all finite": replace(
        SMALL, make_data=data_like(points, lambda x: x[:, :1] * math.inf)
    ),
    "its net cannot take the training set: RuntimeError: mat1": replace(SMALL, make_data=GOOD),
    "its net cannot be made: ZeroDivisionError: no net": replace(SMALL, make_net=no_net),
    "outputs of shape (16, 1) for targets of (16,)": Task(
        data_like(points, lambda x: x[:, 0]), linear(4, 1), mse_loss, 1, 16
    ),
    "its loss cannot take outputs and targets of the training set: ": Task(
        data_like(points, lambda x: is_positive(x).int()), linear(4, 2), cross_entropy, 1, 16
    ),
    "not a scalar tensor but of shape (32, 1)": replace(SMALL, loss=lambda a, b: (a - b) ** 2),
    "its loss is not a scalar tensor": replace(SMALL, loss=lambda a, b: 1.0),
    "does not depend on its net's parameters": replace(SMALL, loss=lambda a, b: b.mean()),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_go_together_is_said_in_a_line(message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the message follows)
        check_task(BAD[message], 3)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_goes_together_is_not_refused():
    check_task(SMALL, 3)
    check_task(replace(SMALL, make_net=SmallNet, batch_size=10**9), 3)
