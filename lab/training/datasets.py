"""Any map-style data set of (x, y) pairs: as tensors where it holds such, else by a DataLoader."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

from data import make_loader
from tasks import Task

IMPORTABLE = (  # for a worker is a new interpreter, as on Windows and macOS
    "with num_workers, a file of yours that trains when it is imported has to do so under "
    '`if __name__ == "__main__":`'
)


def make_datasets(task: Task, seed: int) -> tuple[Any, Any]:
    """Return the data sets of a seed; what holds tensors is a TensorDataset."""
    dataset, held_out = task.make_data(seed)
    return as_tensors(dataset), as_tensors(held_out)


def as_tensors(dataset: Any) -> Any:
    """Return the same samples as a TensorDataset if it is one or a Subset of one.

    Not of one that changes what it serves, as one does that augments; such data stay as they are.
    """
    if isinstance(dataset, TensorDataset) and not is_plain(dataset):
        if type(dataset).__getitem__ is TensorDataset.__getitem__:
            return TensorDataset(*dataset.tensors)
    elif type(dataset) is Subset:
        whole = as_tensors(dataset.dataset)
        if is_plain(whole):
            rows = torch.as_tensor(dataset.indices)
            return TensorDataset(*(tensor[rows] for tensor in whole.tensors))
    return dataset


def is_plain(dataset: Any) -> bool:
    """Tell whether it serves the rows of its tensors as they are."""
    return type(dataset) is TensorDataset


def holds_tensors(task: Task, dataset: Any) -> bool:
    """Tell whether its mini-batches are rows of its tensors."""
    return task.collate_fn is None and is_plain(dataset)


# ---------------------------------------------------------------- mini-batches


def loader_of(task: Task, dataset: Any, batch_size: int | None = None) -> Any:
    """Return the loader of shuffled mini-batches that a training has."""
    size = task.batch_size if batch_size is None else batch_size
    if holds_tensors(task, dataset):
        return make_loader(dataset, size)
    inner = dataset.dataset if isinstance(dataset, OnDevice) else dataset
    loader = make_loader(inner, size, task.collate_fn, task.num_workers)
    return MovedTo(dataset.device, loader) if isinstance(dataset, OnDevice) else loader


def is_of_workers(error: BaseException | None) -> bool:
    """Tell whether a loader's workers have died, or could not be sent what they serve."""
    words = "DataLoader worker", "pickle", "bootstrapping"
    return any(word in str(error) for word in words)


def first(task: Task, dataset: Any, n: int) -> tuple[Any, Any]:
    """Return the first n samples, or all, as a mini-batch."""
    if holds_tensors(task, dataset):
        x, y = dataset[:n]
        return x, y
    x, y = moved(collated(task, dataset, n), device_of(dataset))
    return x, y


def collated(task: Task, dataset: Any, n: int) -> Any:
    """Return what the first n samples are made into."""
    samples = [dataset[k] for k in range(min(n, len(dataset)))]
    return (task.collate_fn or default_collate)(samples)


def head(dataset: Any, n: int) -> Any:
    """Return a data set of the first n samples."""
    if is_plain(dataset):
        return TensorDataset(*dataset[:n])
    if isinstance(dataset, OnDevice):
        return OnDevice(head(dataset.dataset, n), dataset.device)
    return Subset(dataset, range(min(n, len(dataset))))


def parts_of(task: Task, dataset: Any, size: int) -> Iterator[tuple[int, Any, Any]]:
    """Yield all samples in order, in parts of so many: how many, x, y.

    Of tensors that is any number; of others it is a mini-batch.
    """
    n_samples = len(dataset)
    if holds_tensors(task, dataset):
        for k in range(0, n_samples, size):
            x, y = dataset[k : k + size]
            yield len(x), x, y
        return
    size = min(size, task.batch_size)
    inner = dataset.dataset if isinstance(dataset, OnDevice) else dataset
    loader = DataLoader(
        inner,
        size,
        generator=torch.Generator().manual_seed(0),
        collate_fn=task.collate_fn,
        num_workers=task.num_workers,
    )
    for k, batch in zip(range(0, n_samples, size), loader, strict=True):
        x, y = moved(batch, device_of(dataset))
        yield min(size, n_samples - k), x, y


class CannotJoin(Exception):  # noqa: N818 (a finding, not an error)
    """Parts of which no whole can be made."""


def joined(parts: list[Any], sizes: list[int]) -> Any:
    """Return parts as one, tensors along their samples; CannotJoin where that cannot be.

    A part may be a tensor, or tuples and dicts of such.
    """
    if len(parts) == 1:
        return parts[0]

    def join(*tensors: Any) -> Tensor:
        if [len(tensor) for tensor in tensors] != sizes:
            raise CannotJoin("what comes first in a tensor is not its samples")
        return torch.cat(tensors)

    try:
        joint: Any = tree_map(join, *parts)
    except (TypeError, AttributeError, ValueError, RuntimeError) as error:  # numbers, other shapes
        raise CannotJoin(str(error)) from error
    return joint


# ---------------------------------------------------------------- devices


@dataclass
class OnDevice:
    """A data set whose mini-batches are moved to a device."""

    dataset: Any
    device: torch.device

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, k: int) -> Any:
        return self.dataset[k]


@dataclass
class MovedTo:
    """A loader whose mini-batches are moved to a device."""

    device: torch.device
    loader: Any

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return (moved(batch, self.device) for batch in self.loader)


def moved(batch: Any, device: torch.device) -> Any:
    """Return a mini-batch with its tensors on the device."""
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, batch)


def on_device(dataset: Any, device: torch.device) -> Any:
    """Return the data set there: its tensors, or each mini-batch as it comes."""
    if not is_plain(dataset):
        return OnDevice(dataset, device)
    return TensorDataset(*(tensor.to(device) for tensor in dataset.tensors))


def device_of(dataset: Any) -> torch.device:
    """Return where its mini-batches are."""
    if isinstance(dataset, OnDevice):
        return dataset.device
    return dataset.tensors[0].device if is_plain(dataset) else torch.device("cpu")
