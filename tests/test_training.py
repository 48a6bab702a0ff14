"""The training loop against steps worked by hand and loops written out."""

import math

import pytest
import torch
from torch.nn.functional import l1_loss, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from training import evaluate, train

DATA = TensorDataset(torch.linspace(-1, 1, 64).unsqueeze(1), torch.linspace(2, 5, 64).unsqueeze(1))


def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(1, 1)


def test_a_step_of_gradient_descent_worked_by_hand():
    # y = w·x on the one sample (2, 8) from w = 1: loss (2-8)² = 36, gradient 2·(2-8)·2 = -24,
    # so w becomes 1 + 0.1·24 = 3.4, loss (6.8-8)² = 1.44, gradient -4.8, w = 3.88.
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(net.weight)
    loader = DataLoader(TensorDataset(torch.tensor([[2.0]]), torch.tensor([[8.0]])))
    losses = list(train(net, torch.optim.SGD(net.parameters(), lr=0.1), loader, mse_loss, 2))
    assert losses == pytest.approx([36, 1.44])
    assert net.weight.item() == pytest.approx(3.88)


def test_the_loss_function_is_the_one_that_is_given():
    net = linear()
    expected = (net(DATA.tensors[0]) - DATA.tensors[1]).abs().mean().item()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    assert evaluate(net, DATA, l1_loss) == pytest.approx(expected)
    (loss,) = train(net, optimizer, [DATA.tensors], l1_loss, 1)
    assert loss == pytest.approx(expected)
    assert evaluate(net, DATA, l1_loss) < expected


def test_each_loss_is_yielded_as_its_step_is_taken():
    net = linear()
    start = net.weight.item()
    losses = train(net, torch.optim.SGD(net.parameters(), lr=0.1), DataLoader(DATA), mse_loss, 3)
    assert net.weight.item() == start
    next(losses)
    assert net.weight.item() != start
    assert len(list(losses)) == 3 * 64 - 1


def test_lbfgs_trains_like_the_rest():
    net = linear()
    optimizer = torch.optim.LBFGS(net.parameters(), line_search_fn="strong_wolfe")
    losses = list(train(net, optimizer, DataLoader(DATA, batch_size=64), mse_loss, epochs=5))
    assert losses[0] > 1
    assert losses[-1] < 1e-10
    assert net.weight.item() == pytest.approx(1.5, abs=1e-4)
    assert net.bias.item() == pytest.approx(3.5, abs=1e-4)


def test_training_ends_with_the_first_loss_that_is_not_finite():
    net = linear()
    losses = list(
        train(net, torch.optim.SGD(net.parameters(), lr=1e6), DataLoader(DATA), mse_loss, 12)
    )
    assert not math.isfinite(losses[-1])
    assert all(math.isfinite(loss) for loss in losses[:-1])
    assert len(losses) < 30


def test_evaluate_leaves_no_gradient():
    net = linear()
    squares = [(net(x) - y).item() ** 2 for x, y in zip(*DATA.tensors, strict=True)]
    assert evaluate(net, DATA, mse_loss) == pytest.approx(sum(squares) / 64)
    assert all(param.grad is None for param in net.parameters())
