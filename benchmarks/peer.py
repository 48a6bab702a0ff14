"""The sweep as one would write it in JAX: `python -m benchmarks.peer SEEDS`.

The tutorial's four optimizers at the nine rates of compare_learning_rates.py, from so many seeds,
each by one compiled program: vmap over seeds and rates, scan over epochs and steps. It does what
our stacks do: a smaller last mini-batch, all losses kept, the loss over both data sets at the end.
Prints the best rate, its median held-out loss, and how long a step took, compilation included;
with --again, a second line without. It needs jax and optax; ours do not.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import optax

EPOCHS, BATCH_SIZE, SAMPLES, HELD_OUT, HIDDEN = 12, 32, 1000, 1000, 20
LRS = jnp.logspace(-4, 0, 9)
OPTIMIZERS = {
    "SGD": optax.sgd,
    "Momentum": partial(optax.sgd, momentum=0.8),
    "RMSprop": partial(optax.rmsprop, decay=0.9),
    "Adam": partial(optax.adam, b1=0.9, b2=0.99),
}


def make_data(key, samples):
    """Return x and y, in random order."""
    noise, order = jax.random.split(key)
    x = jax.random.permutation(order, jnp.linspace(-1, 1, samples))[:, None]
    return x, x**2 + 0.1 * jax.random.normal(noise, x.shape)


def make_net(key):
    """Return weights as torch.nn.Linear draws them, within one over the root of the inputs."""
    keys, bound = jax.random.split(key, 4), HIDDEN**-0.5
    return {
        "hidden": jax.random.uniform(keys[0], (1, HIDDEN), minval=-1, maxval=1),
        "hidden_bias": jax.random.uniform(keys[1], (HIDDEN,), minval=-1, maxval=1),
        "predict": jax.random.uniform(keys[2], (HIDDEN, 1), minval=-bound, maxval=bound),
        "predict_bias": jax.random.uniform(keys[3], (1,), minval=-bound, maxval=bound),
    }


def loss(net, x, y):
    hidden = jax.nn.relu(x @ net["hidden"] + net["hidden_bias"])
    return jnp.mean((hidden @ net["predict"] + net["predict_bias"] - y) ** 2)


def train(make_optimizer, orders, net, data, held_out, lr):
    """Return the losses before each step, and those over both data sets at the end."""
    optimizer = make_optimizer(lr)
    x, y = data

    def step(state, samples):
        net, memory = state
        before, grads = jax.value_and_grad(loss)(net, x[samples], y[samples])
        updates, memory = optimizer.update(grads, memory, net)
        return (optax.apply_updates(net, updates), memory), before

    def epoch(state, order):
        whole = SAMPLES // BATCH_SIZE * BATCH_SIZE
        state, losses = jax.lax.scan(step, state, order[:whole].reshape(-1, BATCH_SIZE))
        if whole == SAMPLES:
            return state, losses
        state, last = step(state, order[whole:])
        return state, jnp.append(losses, last)

    (net, _), losses = jax.lax.scan(epoch, (net, optimizer.init(net)), orders)
    return losses.ravel(), loss(net, *data), loss(net, *held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("seeds", type=int)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()

    def make(key):
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
