"""Nets of a real size, as tasks: `--task benchmarks.nets.wide`. What they learn is noise."""

from functools import partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from data import Datasets, split
from models import mlp
from tasks import Task


def noise(shape: tuple[int, ...], seed: int, samples: int = 1280) -> Datasets:
    """x (samples, *shape) and a class of ten y (samples,) to train on, and 64 held out."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples + 64, *shape, generator=generator)
    y = torch.randint(10, (samples + 64,), generator=generator)
    return split(seed, x, y, held_out=64)


def two_convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def dense(*sizes: int) -> Task:
    """Return the task of such a net, in mini-batches of 64."""
    make_data = partial(noise, sizes[:1])
    make_net = partial(mlp, *sizes, activation=nn.ReLU)
    return Task(make_data, make_net, cross_entropy, epochs=3, batch_size=64)


tiny = dense(16, 32, 10)
small = dense(64, 64, 10)
medium = dense(784, 64, 10)
wide = dense(784, 256, 10)
deep = dense(784, 512, 512, 10)
convolutions = Task(
    partial(noise, (1, 28, 28)), two_convolutions, cross_entropy, epochs=3, batch_size=64
)
NETS = {
    "16-32-10": tiny,
    "64-64-10": small,
    "784-64-10": medium,
    "784-256-10": wide,
    "784-512-512-10": deep,
    "two convolutions, 28 × 28": convolutions,
}
