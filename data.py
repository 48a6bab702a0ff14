"""The synthetic data, and the mini-batches it is served in."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset


def make_dataset(n_samples: int = 1000, noise: float = 0.1, seed: int = 0) -> TensorDataset:
    """Return x, n points evenly spaced from -1 to 1, and y = x² + noise·N(0, 1).

    Both are float32 of shape (n_samples, 1). The seed fixes the noise and the order of the rows:
    they are shuffled here, so that one shared order of mini-batches is an independent draw for
    each seed. `noise` is the standard deviation of y about the curve, in units of y.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(-1, 1, n_samples).unsqueeze(1)
    y = x**2 + noise * torch.randn(x.shape, generator=generator)
    rows = torch.randperm(n_samples, generator=generator)
    return TensorDataset(x[rows], y[rows])


def stack_datasets(datasets: Iterable[TensorDataset]) -> TensorDataset:
    """Return datasets of x and y (samples, 1) as columns of one: x and y (samples, datasets, 1)."""
    columns = zip(*(dataset.tensors for dataset in datasets), strict=True)
    return TensorDataset(*(torch.stack(tensors, 1) for tensors in columns))


class ShuffledBatches(Sampler[Tensor]):
    """Each epoch, the numbers 0 … n_samples - 1 in a new order, cut into mini-batches of indices.

    The last mini-batch is the smaller one if `batch_size` does not divide `n_samples`.
    """

    def __init__(self, n_samples: int, batch_size: int, generator: torch.Generator):
        self.n_samples, self.batch_size, self.generator = n_samples, batch_size, generator

    def __iter__(self) -> Iterator[Tensor]:
        rows = torch.randperm(self.n_samples, generator=self.generator)
        return iter(rows.split(self.batch_size))

    def __len__(self) -> int:
        return -(-self.n_samples // self.batch_size)


def make_loader(dataset: TensorDataset, batch_size: int = 32, seed: int = 0) -> DataLoader:
    """Return a DataLoader of shuffled mini-batches (x, y) with a generator of its own.

    Every loader made with the same seed serves the same mini-batches in the same order. A
    `batch_size` above the number of samples gives the full batch.
    """
    # A DataLoader usually asks the dataset for 32 rows one by one and collates them. With
    # batch_size=None and a sampler that yields whole mini-batches, one indexing operation
    # fetches all 32 (PyTorch, torch.utils.data, "Disable automatic batching"): several times
    # cheaper here (benchmarks/speed.py). No worker processes either: the data is in memory, and
    # starting them takes longer than the whole training.
    generator = torch.Generator().manual_seed(seed)
    batches = ShuffledBatches(len(dataset), min(batch_size, len(dataset)), generator)
    return DataLoader(dataset, sampler=batches, batch_size=None, generator=generator)
