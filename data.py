"""The data sets of tasks.py, and the mini-batches that they are served in.

Each function of a seed returns a training set and a held-out set. The seed fixes all that is random
in them and the order of the rows: they are shuffled here, so that one shared order of mini-batches
is an independent draw for each seed. `samples` is the size of the training set.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, TensorDataset

Datasets: TypeAlias = tuple[TensorDataset, TensorDataset]  # for training, held out


def parabola(seed: int, samples: int = 1000, noise: float = 0.1) -> Datasets:
    """x (samples, 1), evenly spaced from -1 to 1, and y = x² + noise·N(0, 1) of the same shape.

    `noise` is the standard deviation of y about the curve, in units of y.
    """

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        x = torch.linspace(-1, 1, samples).unsqueeze(1)
        y = x**2 + noise * torch.randn(x.shape, generator=generator)
        return x, y

    return two_draws(seed, draw)


def two_draws(seed: int, draw: Callable[[Generator], tuple[Tensor, Tensor]]) -> Datasets:
    """Return two data sets, each drawn anew and its rows shuffled, by a generator of the seed."""
    generator = torch.Generator().manual_seed(seed)

    def shuffled() -> TensorDataset:
        x, y = draw(generator)
        rows = torch.randperm(len(x), generator=generator)
        return TensorDataset(x[rows], y[rows])

    return shuffled(), shuffled()


def split(seed: int, x: Tensor, y: Tensor, held_out: int, samples: int | None = None) -> Datasets:
    """Return rows of x and y to train on, and `held_out` others, chosen by the seed.

    `samples` is how many to train on: all others by default.
    """
    samples = len(x) - held_out if samples is None else samples
    if not 0 < samples <= len(x) - held_out:
        raise ValueError(f"there are {len(x)} samples, and {held_out} of them are held out")
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    test, train = rows[:held_out], rows[held_out:][:samples]
    return TensorDataset(x[train], y[train]), TensorDataset(x[test], y[test])


def sine(seed: int, samples: int = 1000, noise: float = 0.1, periods: float = 3.0) -> Datasets:
    """x (samples, 1), uniform from -1 to 1, and y = sin(periods·π·x) + noise·N(0, 1)."""

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        x = 2 * torch.rand(samples, 1, generator=generator) - 1
        return x, (periods * torch.pi * x).sin() + noise * torch.randn(x.shape, generator=generator)

    return two_draws(seed, draw)


def scales(seed: int, samples: int = 1000, features: int = 8, decades: float = 2.0) -> Datasets:
    """x (samples, features) of standard deviations that span so many decades around 1, and y.

    y (samples, 1) is the sum of the features, each divided by its standard deviation, and noise of
    standard deviation 0.1.
    """
    deviations = torch.logspace(-decades / 2, decades / 2, features)

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(samples, features, generator=generator)
        y = x.sum(1, keepdim=True) + 0.1 * torch.randn(samples, 1, generator=generator)
        return x * deviations, y

    return two_draws(seed, draw)


def parity(seed: int, samples: int = 1000, bits: int = 5, others: int = 3) -> Datasets:
    """x (samples, bits + others) of -1 and 1, and the class y (samples,): is the product of the
    first `bits` positive? The others do not matter.
    """

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        x = 2.0 * torch.randint(2, (samples, bits + others), generator=generator) - 1
        return x, (x[:, :bits].prod(1) > 0).long()

    return two_draws(seed, draw)


def spirals(seed: int, samples: int = 1000, turns: float = 1.5, noise: float = 0.02) -> Datasets:
    """x (samples, 2), points on two spirals that wind around each other, and whose y (samples,)."""

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (samples,), generator=generator)
        radius = torch.rand(samples, generator=generator).sqrt()
        angle = 2 * torch.pi * turns * radius + torch.pi * y
        x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
        return x + noise * torch.randn(x.shape, generator=generator), y

    return two_draws(seed, draw)


def mixtures(seed: int, samples: int = 1000, outputs: int = 16, sources: int = 3) -> Datasets:
    """x (samples, outputs), smooth functions of a few hidden sources, and y the same as x."""
    mixing = torch.randn(2, sources, outputs, generator=torch.Generator().manual_seed(0))

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        hidden = torch.randn(samples, sources, generator=generator)
        x = (hidden @ mixing[0]).tanh() + 0.5 * hidden @ mixing[1]
        return x, x

    return two_draws(seed, draw)


def two_clouds(seed: int, samples: int = 1000, features: int = 10) -> Datasets:
    """x (samples, features), two Gaussian clouds that overlap, and whose it is, y (samples,)."""

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (samples,), generator=generator)
        x = torch.randn(samples, features, generator=generator)
        return x + (2 * y - 1).unsqueeze(1) / features**0.5, y

    return two_draws(seed, draw)


def rare_words(seed: int, samples: int = 2000, words: int = 500, length: int = 8) -> Datasets:
    """x (samples, length), numbers of words, and y (samples, 1), their values' sum / √length.

    As in a language, the k-th word comes up in proportion to 1/k (Zipf's law): most are rare. Each
    has a value from N(0, 1), the same for every seed.
    """
    values = torch.randn(words, generator=torch.Generator().manual_seed(0))
    weights = 1 / torch.arange(1.0, words + 1)

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        x = weights.multinomial(samples * length, replacement=True, generator=generator)
        x = x.view(samples, length)
        return x, values[x].sum(1, keepdim=True) / length**0.5

    return two_draws(seed, draw)


def zipf(seed: int, samples: int = 1000, classes: int = 100, features: int = 100) -> Datasets:
    """x (samples, features), uniform from 0 to 1, and the class y (samples,), which says nothing.

    The k-th class comes up in proportion to 1/k (Zipf's law). As x does not tell the class, the
    training set can only be learned by heart.
    """
    weights = 1 / torch.arange(1.0, classes + 1)

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        y = weights.multinomial(samples, replacement=True, generator=generator)
        return torch.rand(samples, features, generator=generator), y

    return two_draws(seed, draw)


def matrix(
    seed: int, samples: int = 1000, features: int = 16, decades: float = 2.0, turned: bool = True
) -> Datasets:
    """x (samples, features), mixtures of sources, and y, these sources with noise of deviation 0.1.

    x is the sources times a matrix whose singular values span so many decades around 1. Its
    singular directions lie across all features, the same for every seed. If not `turned`, it is
    diagonal: each feature is one source, of a scale of its own.
    """
    axes = torch.eye(features)
    if turned:
        axes = torch.linalg.qr(torch.randn(axes.shape, generator=Generator().manual_seed(0))).Q
    mixing = axes.T * torch.logspace(-decades / 2, decades / 2, features) @ axes

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        sources = torch.randn(samples, features, generator=generator)
        return sources @ mixing, sources + 0.1 * torch.randn(sources.shape, generator=generator)

    return two_draws(seed, draw)


def lookup(
    seed: int, samples: int = 2000, pairs: int = 4, keys: int = 8, values: int = 8
) -> Datasets:
    """x (samples, pairs + 1), tokens, and y (samples,), the value that the last of them asks for.

    The others are pairs: keys + keys·value + key says that this key has this value, in this row. No
    key comes twice there. The last token is one of the row's keys, alone.
    """

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        key = torch.rand(samples, keys, generator=generator).argsort(1)[:, :pairs]
        value = torch.randint(values, key.shape, generator=generator)
        asked = torch.randint(pairs, (samples,), generator=generator)
        rows = torch.arange(samples)
        x = torch.cat([keys + keys * value + key, key[rows, asked].unsqueeze(1)], 1)
        return x, value[rows, asked]

    return two_draws(seed, draw)


def terrain(seed: int, samples: int = 2000) -> Datasets:
    """x (samples, 2), places on a map from -1 to 1, and the height y (samples, 1) of the mountain.

    The map is matplotlib's sample of a digital elevation model, near Jacksboro, Tennessee. Heights
    have mean 0 and variance 1 over the map. 1000 other places are held out.
    """
    from matplotlib.cbook import get_sample_data

    try:
        file: Any = get_sample_data("jacksboro_fault_dem.npz")
        with file:
            heights = torch.from_numpy(file["elevation"]).float()
    except OSError:
        raise ValueError("this matplotlib has no sample data jacksboro_fault_dem.npz") from None
    rows, columns = (torch.linspace(-1, 1, size) for size in heights.shape)
    x = torch.cartesian_prod(-rows, columns).flip(1)  # x to the east, y to the north
    y = (heights - heights.mean()) / heights.std()
    return split(seed, x, y.reshape(-1, 1), held_out=1000, samples=samples)


def prose(seed: int, samples: int = 4000) -> Datasets:
    """x (samples, 4), four letters in a row as numbers, and the next one, y (samples,).

    The letters are a to z, 0 to 25, and 26 for all between words. The text is that of Python's own
    documentation, the module pydoc_data.topics. 1000 other places in it are held out.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ValueError("this Python has no text of its documentation, pydoc_data") from None
    text = " ".join(topics[name] for name in sorted(topics))
    words = "".join(letter if "a" <= letter <= "z" else " " for letter in text.lower()).split()
    letters = torch.frombuffer(bytearray(" ".join(words), "ascii"), dtype=torch.uint8).long() - 97
    letters = letters.where(letters >= 0, 26)
    windows = letters.unfold(0, 5, 1)
    return split(seed, windows[:, :4], windows[:, 4], held_out=1000, samples=samples)


# ---------------------------------------------------------------- mini-batches


class WholeBatches(TensorDataset):
    """A TensorDataset that hands over the rows of a mini-batch by one indexing operation.

    A DataLoader asks for them one by one and stacks them, unless the dataset has `__getitems__`
    (PyTorch, torch.utils.data). The rows are the same; this is several times as fast.
    """

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, ...]:
        return self[torch.tensor(rows)]


def make_loader(
    dataset: Any,
    batch_size: int,
    collate_fn: Callable[..., Any] | None = None,
    num_workers: int = 0,
) -> DataLoader[Any]:
    """Return a DataLoader of shuffled mini-batches, in the same order whenever it is made anew.

    It serves what `DataLoader(dataset, batch_size, shuffle=True, generator=...)` does, of any
    map-style data set. A `batch_size` above the number of samples gives the full batch.
    """
    if type(dataset) is TensorDataset and collate_fn is None:
        dataset, collate_fn, num_workers = WholeBatches(*dataset.tensors), tuple, 0
    return DataLoader(
        dataset,
        batch_size=min(batch_size, len(dataset)),
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        collate_fn=collate_fn,
        num_workers=num_workers,
    )
