"""The hidden units of one net, matched to those of another.

A net stays the same function when its hidden units change places. So two nets whose weights lie far
apart may be near: Ainsworth et al., "Git Re-Basin", arXiv:2209.04836, section 3.2.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from lab.training.trace import State

import numpy
from numpy.typing import NDArray
from torch import nn

Matrix: TypeAlias = NDArray[numpy.float64]
Order: TypeAlias = NDArray[numpy.int64]  # which unit comes to each place


def assign(costs: Matrix) -> Order:
    """Return the column of each row, each column once, for which the sum of costs is lowest.

    `costs` is (n, n). The Hungarian method, by shortest augmenting paths, in O(n³): Jonker and
    Volgenant, Computing 38, 1987. Rows and columns have prices. A row's and a column's together are
    never above the cost where they meet, and equal to it where they are matched: so no other
    matching is cheaper.
    """
    n = len(costs)
    row_prices, column_prices = numpy.zeros(n), numpy.zeros(n)
    row_of = numpy.full(n + 1, -1)  # of each column; the last one is where a new row begins
    for row in range(n):
        row_of[n], column = row, n
        lengths, before = numpy.full(n, numpy.inf), numpy.full(n, n)
        done = numpy.zeros(n + 1, dtype=bool)
        while row_of[column] >= 0:  # until a column is free
            done[column] = True
            here, is_open = row_of[column], ~done[:n]
            slack = costs[here] - row_prices[here] - column_prices
            shorter = is_open & (slack < lengths)
            lengths[shorter], before[shorter] = slack[shorter], column
            column = int(numpy.where(is_open, lengths, numpy.inf).argmin())
            step = lengths[column]
            row_prices[row_of[done]] += step
            column_prices[done[:n]] -= step
            lengths[is_open] -= step
        while column != n:
            row_of[column] = row_of[before[column]]
            column = before[column]
    return row_of[:n].argsort()


def chain_of(net: nn.Module) -> list[str]:
    """Return the names of a net's Linear layers; ValueError where it is no plain chain of them.

    That is, it has other parameters, or a layer takes more or fewer numbers than the last one gave.
    What happens between the layers is not seen here.
    """
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Linear)}
    owned = {id(param) for layer in layers.values() for param in layer.parameters()}
    sizes = [size for layer in layers.values() for size in (layer.in_features, layer.out_features)]
    if not {id(param) for param in net.parameters()} <= owned or sizes[1:-1:2] != sizes[2::2]:
        raise ValueError("the net is no plain chain of Linear layers")
    if len(layers) < 2:
        raise ValueError("the net has no hidden units")
    return [*layers]


def reordered(
    state: State, layers: Sequence[str], orders: Sequence[Sequence[int] | Order]
) -> State:
    """Return a net's state with the units of each hidden layer in such an order."""
    moved = dict(state)
    for layer, after, order in zip(layers, layers[1:], orders, strict=False):
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in moved:
                moved[name] = moved[name][[*order]]
        moved[f"{after}.weight"] = moved[f"{after}.weight"][:, [*order]]
    return moved


def matched(layers: Sequence[str], state: State, to: State) -> State:
    """Return a net's state with its hidden units ordered so that it lies near to another's.

    Layer by layer the best order is found, given those of its neighbours, until none brings it
    nearer: from the order that it has, and from the one that a first look finds, from the inputs
    on. So it never comes to lie farther away, and of a copy whose units have changed places each
    finds its own again.
    """
    mine, theirs = chain_from(state, layers), chain_from(to, layers)
    as_it_is = [numpy.arange(len(mine.biases[k])) for k in range(len(layers))]
    seen = list(as_it_is)
    for k in range(len(layers) - 1):
        seen[k] = assign(-incoming(k, mine, theirs, seen))
    ends = [climb(mine, theirs, start) for start in (as_it_is, seen)]
    best = max(ends, key=lambda orders: likeness(mine, theirs, orders))
    return reordered(state, layers, best)


class Chain(NamedTuple):
    """The weights of a net that is a plain chain of Linear layers."""

    weights: list[Matrix]  # of each layer (units, units of the one before)
    biases: list[Matrix]  # of each layer (units,)


def chain_from(state: State, layers: Sequence[str]) -> Chain:
    """Return a net's chain; a layer without a bias has zeros."""
    weights = [state[f"{layer}.weight"].double().cpu().numpy() for layer in layers]
    biases = [
        state[f"{layer}.bias"].double().cpu().numpy()
        if f"{layer}.bias" in state
        else numpy.zeros(len(weight))
        for layer, weight in zip(layers, weights, strict=True)
    ]
    return Chain(weights, biases)


def climb(mine: Chain, theirs: Chain, orders: Sequence[Order]) -> list[Order]:
    """Return the orders of all layers (the last one's stays), once no layer's alone does better."""
    best, orders = -numpy.inf, list(orders)
    while (now := likeness(mine, theirs, orders)) > best:
        best = now
        for k in range(len(orders) - 1):
            after = mine.weights[k + 1][orders[k + 1]]
            worth = incoming(k, mine, theirs, orders) + theirs.weights[k + 1].T @ after
            orders[k] = assign(-worth)
    return orders


def incoming(k: int, mine: Chain, theirs: Chain, orders: Sequence[Order]) -> Matrix:
    """Return how like each unit of mine (columns) is to each of theirs (rows), in the k-th layer.

    By what leads into it: the scalar product of bias and weights.
    """
    weights = mine.weights[k][:, orders[k - 1]] if k else mine.weights[k]
    return theirs.weights[k] @ weights.T + numpy.outer(theirs.biases[k], mine.biases[k])


def likeness(mine: Chain, theirs: Chain, orders: Sequence[Order]) -> float:
    """Return the scalar product of all weights, mine in these orders: the more, the nearer."""
    return sum(
        float((incoming(k, mine, theirs, orders)[numpy.arange(len(order)), order]).sum())
        for k, order in enumerate(orders)
    )
