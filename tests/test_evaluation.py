"""A loss over a whole data set: in parts what it is in one, for any loss; and small in memory."""

from dataclasses import replace

from lab.outcome import no_progress
from lab.training import evaluation, stack
from lab.training.evaluation import bytes_per_sample, loss_over, part_size, value_over
from lab.training.runs import Training, trainings_of
from lab.training.stack import Stack
from lab.training.train import train_all, train_in_turn

import pytest
import torch
from conftest import SMALL, SmallNet, small_trainings
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset

from tasks import Task
from training import evaluate

N = 1500  # above the size below which all is one part


def classes(seed, n=N):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    y = (3 * torch.rand(n, generator=generator).square()).long()
    y[::7] = -100  # which cross_entropy leaves out: more of them in some parts than in others
    y[: n // 4] = -100
    y[0] = 1
    return TensorDataset(x, y)


def normed():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def weighted(outputs, targets):
    return cross_entropy(outputs, targets, weight=torch.tensor([1.0, 5.0, 0.2]))


def largest_of_all(outputs, targets):
    """No mean over samples at all."""
    return outputs[:, 0].max() - outputs[:, 1].std()


@pytest.fixture
def small_parts(monkeypatch):
    """So little memory that 1500 samples of eight numbers go in parts of 128, the last of 92."""
    monkeypatch.setattr(evaluation, "PART_BYTES", 128 * 8 * 4)
    monkeypatch.setattr(stack, "PART_BYTES", 128 * 8 * 4)


@pytest.mark.parametrize("loss", [cross_entropy, weighted, largest_of_all])
def test_in_parts_it_is_the_same(loss, small_parts):
    task = Task(None, normed, loss, 1, 32)
    torch.manual_seed(0)
    net, dataset, sizes = normed(), classes(0), []
    net[1].running_mean += 0.3
    x, y = dataset.tensors
    expected = evaluate(net, dataset, loss)
    net.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    assert loss_over(task, net, dataset) == pytest.approx(expected, rel=1e-5)
    assert sizes == [32, 32, *[128] * 11, 92]  # 32 to see how large it is
    assert net.training
    rights = []

    def share(outputs, targets):
        rights.append(len(outputs))
        return (outputs.argmax(1) == targets).double().mean().item()

    assert value_over(task, net, dataset, share) == pytest.approx(
        (net.eval()(x).argmax(1) == y).double().mean().item()
    )
    assert rights == [N]


def test_where_one_part_is_enough_it_is_the_whole_bit_for_bit():
    task = Task(None, normed, cross_entropy, 1, 32)
    net, dataset, sizes = normed(), classes(0), []
    expected = evaluate(net, dataset, cross_entropy)
    net.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    assert loss_over(task, net, dataset) == expected
    assert sizes == [32, N]
    sizes.clear()
    few = TensorDataset(*dataset[:1000])
    assert loss_over(task, net, few) == evaluate(net, few, cross_entropy)
    assert sizes == [1000, 1000]


def test_the_largest_tensor_of_a_net_is_counted():
    net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    assert bytes_per_sample(net, torch.zeros(3, 1, 8, 8)) == 5 * 36 * 4
    assert bytes_per_sample(net.double(), torch.zeros(3, 1, 8, 8).double()) == 5 * 36 * 8
    assert bytes_per_sample(net, torch.zeros(3)) == 0  # which it does not take
    task = Task(None, normed, cross_entropy, 1, 32)
    assert part_size(task, normed(), classes(0)) == 2**27 // 32


class OneByOne(nn.Module):
    """Its outputs have the samples second, as those of nets for sequences often have."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x).T


def test_what_cannot_be_joined_is_the_mean_over_the_samples(small_parts):
    def loss(outputs, targets):
        return (outputs.T - targets.unsqueeze(1)).square().mean()

    task, dataset = Task(None, OneByOne, loss, 1, 32), classes(0)
    net = OneByOne()
    assert loss_over(task, net, dataset) == pytest.approx(evaluate(net, dataset, loss), rel=1e-5)


@pytest.mark.parametrize(
    "make_net", [normed, lambda: nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))]
)
def test_in_a_stack_it_is_the_same(make_net, monkeypatch):
    def make_data(seed):
        return classes(seed), classes(seed + 9, 1400)

    task = Task(make_data, make_net, weighted, 1, 500)
    trainings = trainings_of(task, range(3))

    def adam(params):
        return torch.optim.Adam(params, lr=0.01)

    whole = train_all(task, trainings, adam)
    seen = []
    monkeypatch.setattr(stack, "PART_BYTES", 128 * 8 * 4)
    monkeypatch.setattr(Stack, "loss_in_parts", watched(Stack.loss_in_parts, seen))
    runs = train_all(task, trainings, adam)
    assert whole.stacked
    assert runs.stacked
    assert seen == [(128, N)] * 3 + [(128, 1400)] * 3
    torch.testing.assert_close(runs.final_losses, whole.final_losses, rtol=1e-5, atol=0)
    torch.testing.assert_close(runs.held_out_losses, whole.held_out_losses, rtol=1e-5, atol=0)
    for k, training in enumerate(trainings):
        expected = evaluate(runs.net(k), training.held_out, weighted)
        assert runs.held_out_losses[k].item() == pytest.approx(expected, rel=1e-4)


def test_not_all_samples_go_through_a_net_of_a_stack_at_once(small_parts):
    sizes = []

    def watched_net():
        net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        net.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
        return net

    task = Task(lambda seed: (classes(seed), classes(seed)), watched_net, weighted, 1, 100)
    stacked = Stack(task, trainings_of(task, range(3)))
    sizes.clear()
    stacked.evaluate(stacked.data)
    assert sizes == [*[128] * 11, 92] * 3


def watched(function, seen):
    """Return the function, which takes down how many samples it takes at once, and in all."""

    def watching(self, weights, buffers, x, y):
        seen.append((self.samples_at_once, len(x)))
        return function(self, weights, buffers, x, y)

    return watching


def test_outputs_that_a_stack_cannot_join_are_for_nets_in_turn(small_parts):
    class Scalar(SmallNet):
        def forward(self, x):
            return super().forward(x).mean()

    x = torch.randn(N, 1)
    data = TensorDataset(x, x.sin()), TensorDataset(x[:40], x[:40].sin())

    def loss(output, targets):
        return (output - targets.mean()).square()

    task = Task(lambda seed: data, Scalar, loss, 1, 500)
    runs = train_all(task, trainings_of(task, range(4)), torch.optim.SGD)
    assert not runs.stacked
    assert runs.final_losses.isfinite().all()


def test_a_loss_that_cannot_be_had_after_training_costs_no_more_than_itself():
    dataset = TensorDataset(torch.randn(60, 1), torch.randn(60, 1))
    wrong = TensorDataset(torch.randn(60, 2), torch.randn(60, 1))
    training = Training(3, dataset, wrong)
    runs = train_in_turn(SMALL, [training], torch.optim.SGD, no_progress)
    assert "its loss after training failed" in runs.note
    assert len(runs.history(0)) == 12


def test_the_metric_is_that_of_all_samples_in_parts(small_parts):
    task = replace(SMALL, metric=lambda outputs, y: (outputs - y).abs().max())
    (training,) = small_trainings(seeds=[3])
    x = torch.linspace(-1, 1, N).unsqueeze(1)
    training = replace(training, held_out=TensorDataset(x, x.sin()))
    runs = train_in_turn(task, [training], torch.optim.SGD, no_progress)
    expected = (runs.predict(x, 0) - x.sin()).abs().max().item()
    assert runs.measured(training.metric(task)).item() == pytest.approx(expected)
    assert mse_loss(runs.predict(x, 0), x.sin()).item() == pytest.approx(
        runs.held_out_losses[0].item()
    )
