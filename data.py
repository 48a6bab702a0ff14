"""The synthetic data, and the mini-batches it is served in."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from settings import BATCH_SIZE, N_SAMPLES, NOISE


def make_dataset(seed: int, n_samples: int = N_SAMPLES, noise: float = NOISE) -> TensorDataset:
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


class WholeBatches(TensorDataset):
    """A TensorDataset that hands over the rows of a mini-batch by one indexing operation.

    A DataLoader asks for them one by one and stacks them, unless the dataset has `__getitems__`
    (PyTorch, torch.utils.data). The rows are the same; this is several times as fast.
    """

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, ...]:
        return self[torch.tensor(rows)]


def make_loader(dataset: TensorDataset, batch_size: int = BATCH_SIZE) -> DataLoader:
    """Return a DataLoader of shuffled mini-batches, in the same order whenever it is made anew.

    It serves what `DataLoader(dataset, batch_size, shuffle=True, generator=...)` does. A
    `batch_size` above the number of samples gives the full batch.
    """
    return DataLoader(
        WholeBatches(*dataset.tensors),
        batch_size=min(batch_size, len(dataset)),
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
        collate_fn=tuple,
    )
