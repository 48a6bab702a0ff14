"""The training loop against loops written out by hand."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

import cli
from data import make_dataset, make_loader, stack_datasets
from models import Net
from training import (
    evaluate,
    quartiles,
    steps_to_target,
    train,
    train_many,
    train_one_by_one,
)


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


# ---------------------------------------------------------------- many nets at once

SEEDS = range(3, 7)
STACKING = [
    "SGD", "SGD(momentum=0.9, nesterov=True)", "RMSprop(centered=True)", "Adam(amsgrad=True)",
    "AdamW", "Adagrad", "Adadelta(lr=1.0)", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD",
    "optimizers.Adam", "optimizers.SGD(momentum=0.9)", "optimizers.Rprop", "optimizers.NAdam",
]  # fmt: skip
ALONE = ["LBFGS(max_iter=3)", "Adafactor"]


def many(spec, lrs=None, net=Net, how=train_many, epochs=3):
    dataset = stack_datasets(make_dataset(100, seed=seed) for seed in SEEDS)
    nets = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        nets.append(net())
    make = cli.parse_optimizer(spec, lr=None if lrs else 0.01)
    return how(nets, make, dataset, lambda data: make_loader(data, 32), epochs, lrs)


def alone(spec, seed, lr, net=Net, epochs=3):
    """Return what the plain loop gives: losses, final loss and parameters."""
    dataset = make_dataset(100, seed=seed)
    torch.manual_seed(seed)
    net = net()
    optimizer = cli.parse_optimizer(spec, lr)(net.parameters())
    losses = train(net, optimizer, make_loader(dataset, 32), epochs)
    params = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    return torch.tensor(losses), evaluate(net, dataset), params


def assert_like_alone(result, spec, lrs=(0.01,), net=Net):
    for r, lr in enumerate(lrs):
        for k, seed in enumerate(SEEDS):
            losses, final, params = alone(spec, seed, None if "lr=" in spec else lr, net)
            close = {"rtol": 1e-3, "atol": 1e-5}
            torch.testing.assert_close(result.losses[:, r, k], losses, **close)
            assert result.final_losses[r, k].item() == pytest.approx(final, rel=1e-3)
            torch.testing.assert_close(result.parameters[r, k], params, **close)


@pytest.mark.parametrize("spec", STACKING)
def test_a_stack_gives_each_seed_the_numbers_it_has_alone(spec):
    result = many(spec)
    assert result.stacked
    assert_like_alone(result, spec)


@pytest.mark.parametrize("spec", ["SGD(momentum=0.8)", "Adam", "RMSprop", "optimizers.Adagrad"])
def test_so_does_every_learning_rate(spec):
    lrs = [0.001, 0.01, 0.1]
    result = many(spec, lrs)
    assert result.stacked
    assert result.losses.shape == (12, 3, 4)
    assert_like_alone(result, spec, lrs)


@pytest.mark.parametrize("spec", ALONE)
@pytest.mark.parametrize("lrs", [None, [0.001, 0.01]])
def test_what_does_not_treat_elements_alone_is_trained_one_by_one(spec, lrs):
    result = many(spec, lrs)
    assert not result.stacked
    assert_like_alone(result, spec, lrs or [0.01])


class ClippedSGD(torch.optim.SGD):
    """Scales the gradient of each parameter to norm 1: couples its elements."""

    def step(self, closure=None):
        def clipped():
            loss = closure()
            for group in self.param_groups:
                for param in group["params"]:
                    param.grad /= param.grad.norm()
            return loss

        return super().step(clipped)


def test_an_optimizer_that_couples_elements_is_found_out(monkeypatch):
    monkeypatch.setitem(cli.TORCH_OPTIMIZERS, "Clipped", ClippedSGD)
    for lrs in (None, [1e-4, 1e-3, 1e-2]):
        assert not many("Clipped", lrs).stacked


def test_both_ways_give_the_same_answer():
    stacked, one_by_one = many("Adam"), many("Adam", how=train_one_by_one)
    for name in ("losses", "final_losses", "parameters"):
        pair = getattr(stacked, name), getattr(one_by_one, name)
        torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-5)


class Deep(torch.nn.Module):
    """Another net: more layers, a scalar parameter, a buffer."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(1, 5), torch.nn.Tanh(), torch.nn.Linear(5, 5), torch.nn.Linear(5, 1)
        )
        self.scale = torch.nn.Parameter(torch.tensor(1.5))
        self.register_buffer("shift", torch.rand(1))

    def forward(self, x):
        return self.scale * self.layers(x) + self.shift


class Unstackable(Deep):
    """Branches on a number, which vmap refuses."""

    def forward(self, x):
        return super().forward(x) if x.sum() < 1e9 else x


@pytest.mark.parametrize(("net", "stacks"), [(Deep, True), (Unstackable, False)])
@pytest.mark.parametrize("lrs", [None, [0.003, 0.01]])
def test_any_net_works_and_one_that_vmap_refuses_is_trained_alone(net, stacks, lrs):
    result = many("Adam", lrs, net=net)
    assert result.stacked == stacks
    assert_like_alone(result, "Adam", lrs or [0.01], net=net)


def test_a_net_that_diverges_leaves_the_others_alone():
    result = many("SGD(momentum=0.8)", [0.01, 1e9])
    assert result.stacked
    assert not result.final_losses[1].isfinite().any()
    tame = many("SGD(momentum=0.8)", [0.01])
    torch.testing.assert_close(result.losses[:, 0], tame.losses[:, 0])


def test_the_nets_handed_in_are_left_as_they_are():
    torch.manual_seed(0)
    net = Net()
    before = [param.detach().clone() for param in net.parameters()]
    dataset = stack_datasets([make_dataset(64)])
    for how in (train_many, train_one_by_one):
        how([net], lambda params: torch.optim.SGD(params, lr=0.1), dataset, make_loader, 2)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@given(st.lists(st.floats(0, 1e6) | st.just(math.inf) | st.just(math.nan), min_size=1, max_size=9))
def test_quartiles_count_what_diverged_as_worst(values):
    low, median, high = quartiles(torch.tensor(values, dtype=torch.float64)).tolist()
    assert low <= median <= high
    worst = sorted(math.inf if math.isnan(value) else value for value in values)
    if len(values) % 2:
        assert median == worst[len(values) // 2]
    if math.isfinite(worst[-1]) and len(values) > 1:
        expected = statistics.quantiles(worst, n=4, method="inclusive")
        assert [low, median, high] == pytest.approx(expected)
