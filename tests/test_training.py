"""The training loop against loops written out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from data import make_dataset, make_loader
from models import Net
from training import evaluate, steps_to_target, train


def test_a_step_of_gradient_descent_worked_by_hand():
    # y = w·x on the one sample (2, 8) from w = 1: loss (2-8)² = 36, gradient 2·(2-8)·2 = -24,
    # so w becomes 1 + 0.1·24 = 3.4, loss (6.8-8)² = 1.44, gradient -4.8, w = 3.88.
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(net.weight)
    loader = DataLoader(TensorDataset(torch.tensor([[2.0]]), torch.tensor([[8.0]])))
    losses = train(net, torch.optim.SGD(net.parameters(), lr=0.1), loader, epochs=2)
    assert losses == pytest.approx([36, 1.44])
    assert net.weight.item() == pytest.approx(3.88)


def test_lbfgs_trains_like_the_rest():
    torch.manual_seed(0)
    net, dataset = Net(), make_dataset(200)
    optimizer = torch.optim.LBFGS(net.parameters(), line_search_fn="strong_wolfe")
    losses = train(net, optimizer, make_loader(dataset, 200), epochs=20)
    assert losses[-1] < 0.015 < losses[0]


def test_training_stops_at_the_first_loss_that_is_not_finite():
    net = Net()
    losses = train(net, torch.optim.SGD(net.parameters(), lr=1e6), make_loader(make_dataset()), 12)
    assert not math.isfinite(losses[-1])
    assert all(math.isfinite(loss) for loss in losses[:-1])
    assert len(losses) < 10


def test_progress_wraps_the_epochs():
    seen = []

    def progress(epochs):
        for epoch in epochs:
            seen.append(epoch)
            yield epoch

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    assert len(train(net, optimizer, make_loader(make_dataset(64)), 3, progress)) == 6
    assert seen == [0, 1, 2]


def test_evaluate_is_the_mean_squared_error_and_leaves_no_gradient():
    net, dataset = Net(), make_dataset(30)
    squares = [(net(x) - y).item() ** 2 for x, y in zip(*dataset.tensors, strict=True)]
    assert evaluate(net, dataset) == pytest.approx(sum(squares) / 30)
    assert all(param.grad is None for param in net.parameters())


@given(
    losses=st.lists(st.integers(0, 64).map(float) | st.just(math.inf), max_size=30),
    target=st.integers(1, 64),
    window=st.integers(1, 10),
)
def test_steps_to_target_is_the_plain_search(losses, target, window):
    expected = None
    for step in range(window, len(losses) + 1):
        if sum(losses[step - window : step]) / window < target:
            expected = step
            break
    assert steps_to_target(losses, target, window) == expected
