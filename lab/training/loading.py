"""Data on a device, and the mini-batches that they are served in."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from data import Datasets


class WholeBatches(TensorDataset):
    """A TensorDataset that hands over the rows of a mini-batch by one indexing operation.

    A DataLoader asks for them one by one and stacks them, unless the dataset has `__getitems__`
    (PyTorch, torch.utils.data). The rows are the same; this is several times as fast.
    """

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, ...]:
        return self[torch.tensor(rows)]


def make_loader(dataset: TensorDataset, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
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


def data_on(device: str, make_data: Callable[[int], Datasets]) -> Callable[[int], Datasets]:
    """Return `make_data` with its data on the device, made once for each seed."""

    @cache
    def make(seed: int) -> Datasets:
        data = make_data(seed)
        if device == "cpu":
            return data
        train, held_out = (
            TensorDataset(*(tensor.to(device) for tensor in dataset.tensors)) for dataset in data
        )
        return train, held_out

    return make
