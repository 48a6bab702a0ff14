"""What would not fit into the memory is refused before it runs."""

import math
import os
from argparse import Namespace
from pathlib import Path

from lab.training.datasets import is_plain
from lab.training.runs import Training
from lab.training.way import MAX_PARAMETERS

from tasks import Task

USUAL = {
    "samples": 1000,
    "seeds": 10,
    "judges": 40,
    "lr_count": 10,
    "epochs": 10,
    "steps": 50,
    "jobs": 64,
    "trials": 64,
}
LOADER_BYTES_PER_SAMPLE = 100  # while one is served: a loader's lists
TRAINING_BYTES = 20_000  # of each training, beside
KEPT_BYTES = 4  # of each parameter, as trained with each optimizer; and once more, while joined
TRAINED_BYTES = 40  # of each parameter that trains at the same time: gradients, memory of its own
BYTES_PER_STEP = 60  # all losses are kept


def check_memory(options: Namespace, needed: float, n_samples: int = 0) -> None:
    """Raise ValueError if more bytes are needed than there are; it names the largest option."""
    there = available_memory()
    if needed <= 0.8 * there:
        return
    counts = {name: getattr(options, name, None) or 0 for name in USUAL} | {"samples": n_samples}
    largest = max(counts, key=lambda name: counts[name] / USUAL[name])
    word = f"--{largest.replace('_', '-')} {counts[largest]}"
    if largest == "samples":
        word = f"--task, of {n_samples} samples"
    gigabytes = f"{needed / 1e9:.3g} GB of memory, and there are {there / 1e9:.3g}"
    raise ValueError(f"{word}: this would need about {gigabytes}")


def check_memory_of_task(
    options: Namespace, task: Task, n_samples: int, training: Training | None = None
) -> None:
    """Raise ValueError if a task with so many samples would not fit, or this training of it."""
    n_seeds = getattr(options, "seeds", 1)
    sample_bytes, n_parameters = 0.0, 0
    if training:
        for dataset in filter(is_plain, (training.dataset, training.held_out)):
            sample_bytes += sum(tensor.nbytes for tensor in dataset.tensors) / n_samples
        n_parameters = sum(param.numel() for param in training.make_net(task).parameters())
    steps = task.epochs
    if hasattr(options, "batch_size"):
        steps *= math.ceil(n_samples / task.batch_size)
    n_judges = getattr(options, "judges", 0)
    over = getattr(options, "over", None)
    n_settings = getattr(options, "lr_count", 1) * (len(over.values) if over else 1)
    n_trainings = n_seeds * n_settings * getattr(options, "trials", 1) + n_judges
    n_optimizers = len(getattr(options, "optimizers", [""]))
    losses = BYTES_PER_STEP * steps * n_optimizers
    kept = KEPT_BYTES * (n_optimizers + 1) * n_parameters
    at_once = max(n_parameters, min(n_trainings * n_parameters, MAX_PARAMETERS))
    # Each process of --jobs that has something to do makes its data; those of --dask are elsewhere.
    n_jobs = 1 if getattr(options, "dask", None) else getattr(options, "jobs", 1)
    n_jobs = min(n_jobs, n_trainings * n_optimizers)
    copies = 1 if n_jobs == 1 else 1 + n_jobs
    data = max(LOADER_BYTES_PER_SAMPLE, sample_bytes) * n_samples * (n_seeds + n_judges) * copies
    nets = n_trainings * (TRAINING_BYTES + kept + losses) + TRAINED_BYTES * at_once * n_jobs
    check_memory(options, data + nets, n_samples)


def available_memory() -> float:
    """Return how many bytes of memory are free; infinity where the system does not tell."""
    try:
        with Path("/proc/meminfo").open() as lines:
            kilobytes = dict(line.split(":") for line in lines)["MemAvailable"]
        return 1024 * float(kilobytes.split()[0])
    except (OSError, KeyError, ValueError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf
