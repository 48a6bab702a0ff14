"""Put the live page into one file: its modules, and what they need of PyTorch.

The page trains by itself. From here it has data, first weights and the order of mini-batches, and
PyTorch's own losses at some settings, by which it checks itself when it is opened.
"""

import base64
import inspect
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from lab.command_line.specs import PartedSpec, Spec, parse_optimizer
from lab.output.files import whole_file
from lab.pictures import looks
from lab.training.datasets import holds_tensors
from lab.training.runs import Training, trainings_of
from lab.training.train import train_all

import torch
from matplotlib.colors import to_hex
from torch import Tensor, nn, optim
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset

from data import make_loader
from tasks import Task

HERE = Path(__file__).parent
MODULES = (  # each after those that it imports
    "optimizers",
    "net",
    "training",
    "data",
    "check",
    "statistics",
    "setting",
    "inside",
    "lab",
    "chart",
    "pictures",
    "guess",
    "words",
    "controls",
    "table",
    "bars",
    "page",
)

MOST_BYTES = 400_000  # of the file
MOST_SEEDS = 10
MOST_ROWS = 24_000  # in the order of mini-batches, unless the task's own epochs need more

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}
RULES = {
    optim.SGD: ("lr", "momentum", "nesterov", "weight_decay"),
    optim.Adagrad: ("lr", "eps", "weight_decay"),
    optim.RMSprop: ("lr", "alpha", "eps", "weight_decay"),
    optim.Adam: ("lr", "betas", "eps", "weight_decay"),
    optim.AdamW: ("lr", "betas", "eps", "weight_decay"),
}

# What the page checks beside the setting at its start: an epoch of each, with mini-batches so
# large, and each from another seed than the one before.
CHECKS = (
    ("SGD(lr=0.1)", 8),
    ("SGD(lr=0.01, weight_decay=0.1)", 1000),
    ("SGD(lr=0.02, momentum=0.9)", 64),
    ("SGD(lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01)", 16),
    ("Adagrad(lr=0.03)", 32),
    ("Adagrad(lr=0.1, eps=0.001)", 100),
    ("RMSprop(lr=0.001, alpha=0.99)", 32),
    ("RMSprop(lr=0.003, alpha=0.9, weight_decay=0.01)", 50),
    ("Adam(lr=0.001)", 4),
    ("Adam(lr=0.03, betas=(0.5, 0.9))", 256),
    ("Adam(lr=0.01, eps=0.1)", 16),
    ("AdamW(lr=0.01, weight_decay=0.1)", 32),
)


class Page:
    """The page of a task: with which optimizers it starts, from which seed, and from how many.

    ValueError says, in a sentence, what the page cannot train.
    """

    def __init__(self, task: Task, optimizers: dict[str, Spec], seed: int, seeds: int = 1):
        if seeds > MOST_SEEDS:
            raise ValueError(f"--live has room for {MOST_SEEDS} seeds, not for {seeds}")
        self.task, self.optimizers = task, optimizers
        every = range(seed, seed + MOST_SEEDS)
        self.trainings = [on_the_cpu(training) for training in trainings_of(task, every)]
        n_samples = len(self.trainings[0].dataset)
        self.content = {
            "torch": torch.__version__.partition("+")[0],
            **net_of(task, self.trainings[0]),
            "samples": n_samples,
            **order_of(task, n_samples),
            **columns_of(task, self.trainings),
            "target": task.target or 0.0,
            "start": {
                "optimizers": [rule_of(label, spec) for label, spec in optimizers.items()],
                "batchSize": min(task.batch_size, n_samples),
                "epochs": task.epochs,
                "noise": noise_of(task) or 0,
                "seed": seed,
                "seeds": seeds,
            },
            "colors": dict(zip(looks.NAMES, looks.PALETTE, strict=False)),
            "palette": looks.PALETTE,
            "checks": [],
        }
        classes = looks.class_colors(self.content["sizes"][-1])
        self.content["classColors"] = [*map(to_hex, classes)]
        self.leave_out_seeds(at_least=seeds)

    def leave_out_seeds(self, at_least: int) -> None:
        """Leave out the last seeds, so that the file is not too large."""
        seeds = self.content["seeds"]
        size = len(html({**self.content, "seeds": []}).encode()) + self.size_of_checks()
        sizes = accumulate((len(json.dumps(seed)) for seed in seeds), initial=size)
        fitting = sum(size <= MOST_BYTES for size in sizes) - 1
        if fitting < at_least:
            raise ValueError(
                f"--live: a page for {self.describe(at_least)} has more than its limit, "
                f"{MOST_BYTES // 1000} kB"
            )
        del seeds[fitting:], self.trainings[fitting:]

    def describe(self, seeds: int) -> str:
        counts = {"samples": self.content["samples"], "epochs": self.task.epochs, "seeds": seeds}
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    def size_of_checks(self) -> int:
        """Return about how many bytes the losses will have that are not there yet."""
        of_start = self.task.epochs * self.steps_per_epoch(self.task.batch_size)
        steps = [of_start for _ in self.optimizers]
        steps += [self.steps_per_epoch(batch_size) for _, batch_size in CHECKS]
        return sum(300 + len(encode(torch.zeros(n), "<f4")) for n in steps)

    def steps_per_epoch(self, batch_size: int) -> int:
        return math.ceil(self.content["samples"] / batch_size)

    def save(self, path: Path) -> None:
        """Train what the page will check itself by, and write it: whole or not at all."""
        self.content["checks"] = [*self.checks()]
        with whole_file(path) as temporary:
            temporary.write_text(html(self.content), encoding="utf-8")

    def checks(self) -> Iterator[dict[str, Any]]:
        """Train with PyTorch what the page will train when it is opened; yield setting and losses.

        First as it starts, to the end, and then what CHECKS has.
        """
        for label, spec in self.optimizers.items():
            yield self.check(label, spec, self.task, 0)
        for number, (text, batch_size) in enumerate(CHECKS, start=1):
            task = replace(self.task, batch_size=batch_size, epochs=1)
            yield self.check(text, parse_optimizer(text), task, number % len(self.trainings))

    def check(self, label: str, spec: Spec, task: Task, number: int) -> dict[str, Any]:
        """Train one of the seeds with PyTorch."""
        runs = train_all(task, [self.trainings[number]], spec)
        return {
            "optimizer": rule_of(label, spec),
            "call": spec.call,
            "batchSize": task.batch_size,
            "epochs": task.epochs,
            "seed": self.trainings[number].seed,
            "losses": encode(torch.tensor(runs.history(0)), "<f4"),
        }


# ---------------------------------------------------------------- what it can train


def rule_of(label: str, spec: Spec) -> dict[str, Any]:
    """Return an optimizer as the page has it: label, the name of its rule, and hyperparameters."""
    known = RULES.get(spec.optimizer_class)
    if known is None or isinstance(spec, PartedSpec):
        names = ", ".join(rule.__name__ for rule in RULES)
        raise ValueError(f"--live trains {names} of torch.optim, and not {spec.call}")
    if spec.schedulers:
        raise ValueError(f"--live has no schedules, and {spec.call} has one")
    for name in spec.keywords:
        if name not in known:
            raise ValueError(f"--live has no {name!r} of {spec.call}; it has {', '.join(known)}")
    (group,) = spec([nn.Parameter(torch.zeros(1))]).param_groups
    own = {name: group[name] for name in known}
    rule = spec.optimizer_class.__name__
    if rule == "SGD":
        momentum, nesterov = own["momentum"], own.pop("nesterov")
        rule = "Nesterov" if nesterov else "Momentum" if momentum else "SGD"
        if not momentum:
            del own["momentum"]
    if "betas" in own:
        own["beta1"], own["beta2"] = own.pop("betas")
    return {"label": label, "rule": rule, **own}


def net_of(task: Task, training: Training) -> dict[str, Any]:
    """Return the shape of the net, its activation, and its loss, by name."""
    if not holds_tensors(task, training.dataset):
        raise ValueError("--live draws data that are a TensorDataset")
    x, y = training.dataset.tensors
    is_curve = x.shape[1:] == (1,) and y.shape[1:] == (1,) and y.is_floating_point()
    has_regions = x.shape[1:] == (2,) and y.ndim == 1 and not y.is_floating_point()
    if not (is_curve or has_regions) or x.dtype != torch.float32 or len(x) >= 2**16:
        raise ValueError(
            "--live draws a curve of one input, or regions of classes of two: this task has neither"
        )
    if task.loss is not (cross_entropy if has_regions else mse_loss):
        raise ValueError("--live has mse_loss for a curve and cross_entropy for classes")
    net = training.make_net(task)
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    sizes = [layer.in_features for layer in layers[:1]] + [layer.out_features for layer in layers]
    for name, activation in ACTIVATIONS.items():
        if is_dense(net, layers, activation, x):
            loss = "cross_entropy" if has_regions else "mse_loss"
            return {"sizes": sizes, "activation": name, "loss": loss, "inputs": x.shape[1]}
    raise ValueError("--live trains dense nets with relu or tanh between layers, and no other net")


def is_dense(
    net: nn.Module, layers: list[nn.Linear], activation: type[nn.Module], x: Tensor
) -> bool:
    """Whether the net is these layers, in this order, with that activation between them."""
    parameters = [id(parameter) for layer in layers for parameter in layer.parameters()]
    if not layers or parameters != [id(parameter) for parameter in net.parameters()]:
        return False
    if any(layer.bias is None for layer in layers):
        return False
    if any(one.out_features != other.in_features for one, other in pairwise(layers)):
        return False
    chain = [part for layer in layers for part in (layer, activation())][:-1]
    with torch.no_grad():
        return torch.allclose(net(x), nn.Sequential(*chain)(x), rtol=1e-4)


# ---------------------------------------------------------------- what it has of PyTorch


def order_of(task: Task, n_samples: int) -> dict[str, Any]:
    """Return the rows of all mini-batches, epoch after epoch, and for how many epochs they are.

    They do not depend on the size of the mini-batches.
    """
    epochs = max(task.epochs, min(2 * task.epochs, MOST_ROWS // n_samples))
    loader = make_loader(TensorDataset(torch.arange(n_samples)), n_samples)
    rows = torch.cat([batch for _ in range(epochs) for (batch,) in loader])
    return {"epochs": epochs, "order": encode(rows, "<u2")}


def columns_of(task: Task, trainings: list[Training]) -> dict[str, Any]:
    """Return the data of all seeds, and the first weights.

    Where the noise of a task can be named, the data without any are here, too: the page mixes them.
    """
    noise, rows = noise_of(task), [rows_of(training) for training in trainings]
    clean = rows
    if noise is not None:
        noise = noise or 0.1
        seeds = [training.seed for training in trainings]
        clean, rows, further = (
            [rows_of(training) for training in trainings_of(with_noise(task, level), seeds)]
            for level in (0.0, noise, 2 * noise)
        )
        assert_linear(clean, rows, further)
    every, index = torch.cat(clean).unique(dim=0, return_inverse=True)
    has_tables = 2 * len(every) <= len(index) and len(every) < 2**16
    parts = index.split([len(part) for part in rows])
    return {
        "noise": noise,
        "tables": [encode(column, "<f4") for column in every.T] if has_tables else None,
        "seeds": [
            {
                "seed": training.seed,
                "weights": encode(nn.utils.parameters_to_vector(parameters), "<f4"),
                "index": encode(part, "<u2") if has_tables else None,
                "columns": None if has_tables else [encode(column, "<f4") for column in one.T],
                "noisy": [
                    None if torch.equal(*pair) else encode(pair[0], "<f4")
                    for pair in zip(other.T, one.T, strict=True)
                ],
            }
            for training, one, other, part in zip(trainings, clean, rows, parts, strict=True)
            for parameters in [training.make_net(task).parameters()]
        ],
    }


def assert_linear(clean: list[Tensor], rows: list[Tensor], further: list[Tensor]) -> None:
    for one, other, third in zip(clean, rows, further, strict=True):
        if not torch.allclose(third, one + 2 * (other - one), atol=1e-5):
            raise ValueError("--live mixes data with noise and without, and here that will not do")


def rows_of(training: Training) -> Tensor:
    """Return x and y side by side, those to train on and then those held out."""
    return torch.cat(
        [
            torch.cat([x.float(), y.float().reshape(len(x), -1)], dim=1)
            for x, y in (training.dataset.tensors, training.held_out.tensors)
        ]
    )


def noise_of(task: Task) -> float | None:
    """Return the noise of the task's data, if it can be named."""
    parameter = inspect.signature(task.make_data).parameters.get("noise")
    return parameter.default if parameter and isinstance(parameter.default, int | float) else None


def with_noise(task: Task, noise: float) -> Task:
    return replace(task, make_data=partial(task.make_data, noise=noise))


def on_the_cpu(training: Training) -> Training:
    dataset, held_out = (
        TensorDataset(*(tensor.cpu() for tensor in part.tensors))
        for part in (training.dataset, training.held_out)
    )
    return Training(training.seed, dataset, held_out)


def encode(tensor: Tensor, kind: str) -> str:
    """Return numbers in base64, as that kind of numpy."""
    return base64.b64encode(tensor.detach().numpy().astype(kind).tobytes()).decode()


# ---------------------------------------------------------------- the file


def html(content: dict[str, Any]) -> str:
    """Return the page with this content."""
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"style": (HERE / "style.css").read_text("utf-8"), "script": script(), "data": data}
    template = (HERE / "template.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def script(modules: Iterable[str] = MODULES) -> str:
    """Return the page's modules as one script: one after the other, without import and export."""
    texts = ((HERE / f"{name}.js").read_text(encoding="utf-8") for name in modules)
    return re.sub(r"^import [^;]*;\n|^export ", "", "\n".join(texts), flags=re.MULTILINE)
