"""Hidden units matched, held against SciPy, brute force, and nets whose units changed places."""

from itertools import pairwise, permutations

from lab.training.matching import assign, chain_of, matched, reordered

import numpy
import pytest
import torch
from conftest import SmallNet
from scipy.optimize import linear_sum_assignment
from torch import nn

from models import BagOfWords, Net, NextLetter, mlp


def state(net):
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def seeded(make_net, seed):
    torch.manual_seed(seed)
    return make_net()


def shuffled(net, layers, seed):
    """Return the state of the same function with hidden units in a random order, by plain loops."""
    generator, moved = torch.Generator().manual_seed(seed), state(net)
    for layer, after in pairwise(layers):
        order = torch.randperm(len(moved[f"{layer}.weight"]), generator=generator).tolist()
        rows, columns = moved[f"{layer}.weight"], moved[f"{after}.weight"]
        moved[f"{layer}.weight"] = torch.stack([rows[k] for k in order])
        moved[f"{after}.weight"] = torch.stack([columns[:, k] for k in order], 1)
        if f"{layer}.bias" in moved:
            moved[f"{layer}.bias"] = torch.stack([moved[f"{layer}.bias"][k] for k in order])
    return moved


def distance(one, other):
    return sum((one[name] - other[name]).square().sum() for name in one).sqrt().item()


def outputs(net, weights, x):
    net.load_state_dict(weights)
    return net(x)


# ---------------------------------------------------------------- the assignment


def test_an_assignment_by_hand():
    costs = numpy.array([[4.0, 1, 3], [2, 0, 5], [3, 2, 2]])
    assert assign(costs).tolist() == [1, 0, 2]  # 1 + 2 + 2; the greedy one takes the 0, and pays 6
    assert assign(numpy.zeros((0, 0))).tolist() == []


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 20, 60])
@pytest.mark.parametrize("kind", ["real", "whole", "likeness"])
def test_assignments_cost_what_those_of_scipy_cost(n, kind):
    random = numpy.random.default_rng(n)
    for _ in range(10 if n < 50 else 2):
        costs = random.normal(size=(n, n))
        if kind == "whole":  # many are equal
            costs = (2 * costs).round()
        if kind == "likeness":  # of low rank, and below zero
            costs = -random.normal(size=(n, 2)) @ random.normal(size=(2, n)) - 3
        mine = assign(costs)
        assert sorted(mine) == list(range(n))
        best = costs[linear_sum_assignment(costs)].sum()
        assert costs[numpy.arange(n), mine].sum() == pytest.approx(best, abs=1e-9)


# ---------------------------------------------------------------- nets


NETS = {
    "Net": Net,
    "one hidden layer": lambda: mlp(2, 9, 3),
    "deep": lambda: mlp(1, *[7] * 5, 1),
    "narrow": lambda: mlp(5, 8, 2, 8, 5, activation=nn.ReLU),
    "without biases": lambda: nn.Sequential(
        nn.Linear(3, 6, bias=False), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1, False)
    ),
    "one in another": SmallNet,
}


@pytest.mark.parametrize("name", NETS)
def test_a_permuted_copy_is_matched_back_exactly(name):
    for seed in range(5):
        net = seeded(NETS[name], seed)
        layers = chain_of(net)
        moved = shuffled(net, layers, seed)
        assert distance(moved, state(net)) > 0
        back = matched(layers, moved, to=state(net))
        for part, value in state(net).items():
            assert torch.equal(back[part], value)


@pytest.mark.parametrize("name", NETS)
def test_matching_leaves_the_function_the_same_and_never_leads_away(name):
    gains = []
    for seed in range(5):
        net, to = seeded(NETS[name], seed), state(seeded(NETS[name], 100 + seed))
        layers, before = chain_of(net), state(net)
        after = matched(layers, before, to)
        x = torch.randn(50, next(iter(before.values())).shape[1])
        torch.testing.assert_close(outputs(net, after, x), outputs(net, before, x))
        gains.append(distance(before, to) - distance(after, to))
    assert min(gains) >= -1e-6
    assert max(gains) > 0.1


def test_one_hidden_layer_comes_as_near_as_any_order_brings_it():
    for seed in range(5):
        one, to = (state(seeded(lambda: mlp(2, 5, 2), k)) for k in (seed, seed + 50))
        layers = ["0", "2"]
        every = [distance(reordered(one, layers, [order]), to) for order in permutations(range(5))]
        assert distance(matched(layers, one, to), to) == pytest.approx(min(every), rel=1e-6)


def test_no_layer_alone_comes_nearer():
    layers = ["0", "2", "4", "6"]
    for seed in range(3):
        one, to = (state(seeded(lambda: mlp(2, 4, 3, 4, 2), k)) for k in (seed, seed + 50))
        best = matched(layers, one, to)
        stay = [range(4), range(3), range(4)]
        for k in range(3):
            for order in permutations(stay[k]):
                other = reordered(best, layers, [*stay[:k], order, *stay[k + 1 :]])
                assert distance(other, to) >= distance(best, to) - 1e-6


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (BagOfWords(), "no plain chain"),
        (NextLetter(), "no plain chain"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1)), "no plain chain"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)), "no plain chain"),
        (nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3)]), "no plain chain"),
        (nn.Linear(8, 1), "no hidden units"),
    ],
)
def test_other_nets_are_told_why_they_cannot_be_matched(net, reason):
    with pytest.raises(ValueError, match=reason):
        chain_of(net)


def test_the_layers_of_a_chain_are_named_in_their_order():
    assert chain_of(Net()) == ["hidden", "predict"]
    assert chain_of(SmallNet()) == ["layers.0", "layers.2"]
