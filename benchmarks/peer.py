"""Our sweep of learning rates, written in JAX: `python -m benchmarks.peer SEEDS`.

It trains the tutorial's four optimizers at the nine rates of compare_learning_rates.py, from SEEDS
seeds. Each optimizer is one compiled program: vmap over seeds and rates, scan over epochs and
steps. It does all that our sweep does: a smaller last mini-batch, a loss for each step, the loss
over both data sets at the end. It prints the best rate, the median held-out loss there, and how
long a step took, with compilation; with --again also a second time, without compilation. Only this
file needs jax and optax.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

Net = dict[str, jax.Array]
Data = tuple[jax.Array, jax.Array]
State = tuple[Net, Any]  # the weights, and what the optimizer remembers

EPOCHS, BATCH_SIZE, SAMPLES, HELD_OUT, HIDDEN = 12, 32, 1000, 1000, 20
LRS = jnp.logspace(-4, 0, 9)
OPTIMIZERS = {
    "SGD": optax.sgd,
    "Momentum": partial(optax.sgd, momentum=0.8),
    "RMSprop": partial(optax.rmsprop, decay=0.9),
    "Adam": partial(optax.adam, b1=0.9, b2=0.99),
}


def make_data(key: jax.Array, samples: int) -> Data:
    """Return x and y, in random order."""
    noise, order = jax.random.split(key)
    x = jax.random.permutation(order, jnp.linspace(-1, 1, samples))[:, None]
    return x, x**2 + 0.1 * jax.random.normal(noise, x.shape)


def make_net(key: jax.Array) -> Net:
    """Return weights as torch.nn.Linear draws them: uniform within ±1/√(number of inputs)."""
    keys, bound = jax.random.split(key, 4), HIDDEN**-0.5
    return {
        "hidden": jax.random.uniform(keys[0], (1, HIDDEN), minval=-1, maxval=1),
        "hidden_bias": jax.random.uniform(keys[1], (HIDDEN,), minval=-1, maxval=1),
        "predict": jax.random.uniform(keys[2], (HIDDEN, 1), minval=-bound, maxval=bound),
        "predict_bias": jax.random.uniform(keys[3], (1,), minval=-bound, maxval=bound),
    }


def loss(net: Net, x: jax.Array, y: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ net["hidden"] + net["hidden_bias"])
    return jnp.mean((hidden @ net["predict"] + net["predict_bias"] - y) ** 2)


def train(
    make_optimizer: Callable[[jax.Array], optax.GradientTransformation],
    orders: jax.Array,
    net: Net,
    data: Data,
    held_out: Data,
    lr: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the losses before each step, and those over both data sets at the end."""
    optimizer = make_optimizer(lr)
    x, y = data

    def step(state: State, samples: jax.Array) -> tuple[State, jax.Array]:
        net, memory = state
        before, grads = jax.value_and_grad(loss)(net, x[samples], y[samples])
        updates, memory = optimizer.update(grads, memory, net)
        return (optax.apply_updates(net, updates), memory), before

    def epoch(state: State, order: jax.Array) -> tuple[State, jax.Array]:
        whole = SAMPLES // BATCH_SIZE * BATCH_SIZE
        state, losses = jax.lax.scan(step, state, order[:whole].reshape(-1, BATCH_SIZE))
        if whole == SAMPLES:
            return state, losses
        state, last = step(state, order[whole:])
        return state, jnp.append(losses, last)

    (net, _), losses = jax.lax.scan(epoch, (net, optimizer.init(net)), orders)
    return losses.ravel(), loss(net, *data), loss(net, *held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description="The sweep of learning rates, written in JAX")
    parser.add_argument("seeds", type=int, help="how many")
    parser.add_argument("--again", action="store_true", help="time it also without compilation")
    options = parser.parse_args()

    def make(key: jax.Array) -> tuple[Net, Data, Data]:
        keys = jax.random.split(key, 3)
        return make_net(keys[0]), make_data(keys[1], SAMPLES), make_data(keys[2], HELD_OUT)

    given = jax.jit(jax.vmap(make))(jax.random.split(jax.random.key(0), options.seeds))
    keys = jax.random.split(jax.random.key(1), EPOCHS)
    orders = jax.vmap(lambda key: jax.random.permutation(key, SAMPLES))(keys)
    for name, make_optimizer in OPTIMIZERS.items():
        one = partial(train, make_optimizer, orders)
        program = jax.jit(jax.vmap(jax.vmap(one, (0, 0, 0, None)), (None, None, None, 0)))
        for _ in range(2 if options.again else 1):
            start = time.perf_counter()
            losses, _, held_out = jax.device_get(program(*given, LRS))
            seconds = time.perf_counter() - start
            median = jnp.median(jnp.nan_to_num(held_out, nan=jnp.inf), 1)
            best, step = int(median.argmin()), 1000 * seconds / losses.shape[-1]
            print(
                f"{name} at {LRS[best]:.3g}: {median[best]:.5f}, {step:.3f} ms a step", flush=True
            )


if __name__ == "__main__":
    main()
