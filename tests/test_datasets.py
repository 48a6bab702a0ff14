"""Any data set of (x, y) pairs: served by an ordinary DataLoader, trained as in a plain loop."""

import os
import random
from dataclasses import dataclass, replace

from lab.training import datasets
from lab.training.check_data import check_same_twice
from lab.training.checks import check_task, take_a_step
from lab.training.runs import trainings_of
from lab.training.train import IN_TURN, train_all

import pytest
import torch
from conftest import assert_refused
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)

import compare_batch_sizes
import compare_learning_rates
import compare_optimizers
from tasks import Task

N_TRAIN, N_HELD_OUT = 50, 21


def numbers(seed):
    """Return x (71, 3), y (71, 1)."""
    x = torch.randn(N_TRAIN + N_HELD_OUT, 3, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :1] * x[:, 1:2]


def halves(dataset, seed):
    generator = torch.Generator().manual_seed(seed)
    return random_split(dataset, [N_TRAIN, N_HELD_OUT], generator=generator)


@dataclass
class Images(Dataset):
    """As of a folder: an image is made when it is asked for, and its class is a plain number."""

    seed: int
    augments: bool = False

    def __len__(self):
        return N_TRAIN + N_HELD_OUT

    def __getitem__(self, k):
        image = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(1000 * self.seed + k))
        y = int(image[0, 0, 0] > image[0, 0, 1])
        if self.augments and torch.rand(()) < 0.5:
            image = image.flip(2)
        return image, y


class Augmented(TensorDataset):
    """A TensorDataset that serves something else than its rows."""

    def __getitem__(self, k):
        x, y = super().__getitem__(k)
        return x + 0.1 * torch.randn(x.shape), y


def of_dicts(seed):
    x, y = numbers(seed)
    inputs = [{"left": row[:1], "rest": (row[1:], k)} for k, row in enumerate(x)]
    return halves([(row, {"y": target}) for row, target in zip(inputs, y, strict=True)], seed)


class TakesDicts(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, x):
        rest, k = x["rest"]
        assert k.shape == (len(rest),)
        return {"score": self.layers(torch.cat([x["left"], rest], 1)), "all": [rest]}


def loss_of_dicts(outputs, targets):
    return mse_loss(outputs["score"], targets["y"])


def sequences(seed):
    """Sentences of 1 to 7 words, and a class."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 8, (N_TRAIN + N_HELD_OUT,), generator=generator).tolist()
    words = [torch.randint(1, 9, (length,), generator=generator) for length in lengths]
    return halves([(sentence, int(sentence[0] > 4)) for sentence in words], seed)


def padded(samples):
    words, classes = zip(*samples, strict=True)
    return nn.utils.rnn.pad_sequence(list(words), batch_first=True), torch.tensor(classes)


class ReadsWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 2)

    def forward(self, words):
        return self.out(self.embed(words).sum(1))


def two(net):
    return lambda: nn.Sequential(net(), nn.Tanh(), nn.Linear(8, 2))


def image_net():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))


def number_net():
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))


KINDS = {
    "a list of pairs": Task(
        lambda seed: halves(list(zip(*numbers(seed), strict=True)), seed),
        number_net, mse_loss, 3, 16,
    ),
    "images": Task(lambda seed: halves(Images(seed), seed), image_net, cross_entropy, 3, 16),
    "images that are augmented": Task(
        lambda seed: (halves(Images(seed, True), seed)[0], halves(Images(seed), seed)[1]),
        image_net, cross_entropy, 3, 16,
    ),
    "a TensorDataset that is augmented": Task(
        lambda seed: halves(Augmented(*numbers(seed)), seed), number_net, mse_loss, 3, 16
    ),
    "dicts and tuples": Task(of_dicts, TakesDicts, loss_of_dicts, 3, 16),
    "sequences": Task(sequences, ReadsWords, cross_entropy, 3, 16, collate_fn=padded),
    "tensors with a collate_fn": Task(
        lambda seed: halves(TensorDataset(*numbers(seed)), seed), number_net, mse_loss, 3, 16,
        collate_fn=lambda samples: tuple(map(torch.stack, zip(*samples, strict=True))),
    ),
}  # fmt: skip


def adam(params):
    return torch.optim.Adam(params, lr=0.02)


def plain_loop(task, seed, num_workers=0):
    """Return the losses of a plain loop, over both sets at the end, and the net."""
    dataset, held_out = task.make_data(seed)
    loader = DataLoader(
        dataset, task.batch_size, shuffle=True, generator=torch.Generator().manual_seed(0),
        collate_fn=task.collate_fn, num_workers=num_workers,
    )  # fmt: skip
    torch.manual_seed(seed)
    net = task.make_net()
    optimizer = adam(net.parameters())
    losses = []
    for _ in range(task.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = task.loss(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    net.eval()
    ends = []
    with torch.no_grad():
        for part in (dataset, held_out):  # the whole of it as one mini-batch
            loader = DataLoader(
                part, len(part), collate_fn=task.collate_fn, generator=torch.Generator()
            )
            ((x, y),) = loader
            ends.append(task.loss(net(x), y).item())
    return losses, ends, net


@pytest.mark.parametrize("name", KINDS)
def test_it_gives_the_numbers_of_a_plain_loop_bit_for_bit(name):
    task = KINDS[name]
    training = check_task(task, 3)
    check_same_twice(task, training)
    take_a_step(task, training, adam)
    runs = train_all(task, trainings_of(task, (3, 4)), adam)
    assert not runs.stacked
    (remark,) = runs.remarks
    assert remark == f"{IN_TURN} (its data sets are no TensorDatasets, or have a collate_fn)"
    for k, seed in enumerate((3, 4)):
        losses, ends, net = plain_loop(task, seed)
        assert runs.history(k) == losses
        assert runs.final_losses[k].item() == pytest.approx(ends[0], rel=1e-5)
        assert runs.held_out_losses[k].item() == pytest.approx(ends[1], rel=1e-5)
        for key, value in net.state_dict().items():
            assert torch.equal(runs.weights[key][k], value)


def test_the_accuracy_of_images_is_that_of_all_held_out():
    task = KINDS["images"]
    runs = train_all(task, trainings_of(task, [3]), adam)
    metric = runs.trainings[0].metric(task)
    assert metric.name == "accuracy"
    held_out, net = task.make_data(3)[1], plain_loop(task, 3)[2]
    right = [net(x.unsqueeze(0)).argmax().item() == y for x, y in held_out]
    assert runs.measured(metric).tolist() == pytest.approx([sum(right) / len(right)])


def test_workers_serve_the_same():
    task = replace(KINDS["images that are augmented"], num_workers=2, epochs=1)
    losses, ends, _ = plain_loop(task, 3, num_workers=2)
    runs = train_all(task, trainings_of(task, [3]), adam)
    assert runs.history(0) == losses
    assert runs.held_out_losses[0].item() == pytest.approx(ends[1], rel=1e-5)


# ---------------------------------------------------------------- tensors


def test_a_subset_of_tensors_goes_on_as_tensors():
    x, y = numbers(3)
    task = Task(
        lambda seed: halves(TensorDataset(*numbers(seed)), seed),
        lambda: nn.Linear(3, 1),
        mse_loss,
        2,
        16,
    )
    runs = train_all(task, trainings_of(task, range(3, 7)), adam)
    assert runs.stacked
    train_set, held_out = task.make_data(3)
    for mine, theirs in (
        (runs.trainings[0].dataset, train_set),
        (runs.trainings[0].held_out, held_out),
    ):
        assert type(mine) is TensorDataset
        assert torch.equal(mine.tensors[0], x[theirs.indices])
        assert torch.equal(mine.tensors[1], y[theirs.indices])
    losses, ends, _ = plain_loop(task, 3)
    assert runs.history(0) == pytest.approx(losses, rel=1e-4)
    assert runs.held_out_losses[0].item() == pytest.approx(ends[1], rel=1e-4)


def test_so_does_a_subset_of_a_subset_and_a_class_that_changes_nothing():
    class Named(TensorDataset):
        name = "mine"

    x, y = numbers(3)
    whole = Named(x, y)
    assert type(datasets.as_tensors(whole)) is TensorDataset
    part = datasets.as_tensors(Subset(Subset(whole, [5, 3, 9]), torch.tensor([2, 0])))
    assert torch.equal(part.tensors[0], x[[9, 5]])
    assert torch.equal(part.tensors[1], y[[9, 5]])


def test_one_that_serves_something_else_stays_as_it_is():
    for one in (Augmented(*numbers(3)), Subset(Augmented(*numbers(3)), [1, 2]), [(1, 2)]):
        assert datasets.as_tensors(one) is one


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize("name", KINDS)
def test_its_parts_are_all_samples_in_order(name):
    task = replace(KINDS[name], batch_size=8)
    _, held_out = datasets.make_datasets(task, 3)
    torch.manual_seed(1)
    parts = list(datasets.parts_of(task, held_out, 8))
    assert [n for n, _, _ in parts] == [8, 8, 5]
    torch.manual_seed(1)
    collate = task.collate_fn or torch.utils.data.default_collate
    for start, (n, x, y) in zip((0, 8, 16), parts, strict=True):
        expected = collate([held_out[k] for k in range(start, start + n)])
        assert str(x) == str(expected[0])
        assert str(y) == str(expected[1])


def test_parts_are_joined_along_their_samples_or_not_at_all():
    one, other = torch.ones(2, 3), torch.zeros(1, 3)
    assert datasets.joined([one], [99]) is one
    joint = datasets.joined([{"a": (one, one)}, {"a": (other, other)}], [2, 1])
    assert joint["a"][1].tolist() == [[1] * 3, [1] * 3, [0] * 3]
    wrong = [
        ([one, torch.zeros(1, 4)], [2, 1]),  # another shape
        ([one.T, other.T], [2, 1]),  # the samples are not what comes first
        ([torch.ones(3, 2)] * 2, [2, 2]),  # nor are they here, though they fit together
        ([torch.tensor(1.0)] * 2, [2, 1]),  # a number
        ([(one,), (other, other)], [2, 1]),
        (["a", "b"], [1, 1]),
    ]
    for parts, sizes in wrong:
        with pytest.raises(datasets.CannotJoin):
            datasets.joined(parts, sizes)


def test_another_device_gets_each_mini_batch():
    """Of what is not tensors; torch's meta device stands for any."""
    task = KINDS["dicts and tuples"]
    dataset, _ = task.make_data(3)
    there = datasets.on_device(dataset, torch.device("meta"))
    loader = datasets.loader_of(task, there)
    assert len(loader) == len(datasets.loader_of(task, dataset)) == 4
    for x, y in loader:
        assert x["left"].device.type == x["rest"][1].device.type == y["y"].device.type == "meta"
    assert datasets.device_of(there).type == "meta"
    assert datasets.device_of(dataset).type == "cpu"
    assert datasets.first(task, there, 3)[0]["left"].device.type == "meta"
    assert datasets.head(there, 3).device.type == "meta"
    assert all(y["y"].device.type == "meta" for _, _, y in datasets.parts_of(task, there, 9))


# ---------------------------------------------------------------- refusals


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.ones(1), torch.ones(1))])


class Bad(Images):
    def __getitem__(self, k):
        if k == 7:
            raise OSError("no such image")
        return super().__getitem__(k)


class Chance(Images):
    """Augments by Python's generator, which no seed of ours fixes."""

    def __getitem__(self, k):
        image, y = super().__getitem__(k)
        return image * random.random(), y


IMAGES = KINDS["images"]
WRONG = {
    "two data sets": lambda seed: (Stream(), Stream()),
    "others with a length": lambda seed: ({"x": 1}, {"x": 1}),
    "is empty": lambda seed: ([], [(1, 1)]),
    "its data cannot be served: OSError: no such image": lambda seed: (Bad(seed), Bad(seed)),
    "cannot be served: TypeError": lambda seed: (
        [(object(), 1)] * 9, [(object(), 1)] * 9
    ),
    "mini-batches that are a dict, and not (x, y): write a collate_fn": lambda seed: (
        [{"x": 1, "y": 2}] * 9, [{"x": 1, "y": 2}] * 9
    ),
    "its data are not all finite: x has nan or infinity in the training set": lambda seed: (
        [(torch.full((1, 6, 6), torch.nan), 1)] * 9, Images(seed)
    ),
    "its net cannot take the held-out set": lambda seed: (Images(seed), [(torch.ones(3), 1)] * 9),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_it_is_said_in_a_line(message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the message follows)
        check_task(replace(IMAGES, make_data=WRONG[message]), 3)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("make", [Images, Chance])
def test_what_is_random_in_it_has_to_come_from_torchs_generator(make):
    task = replace(
        IMAGES, make_data=lambda seed: (make(torch.randint(10**6, ()).item()), make(seed))
    )
    training = check_task(task, 3)
    if make is Chance:
        task = replace(task, make_data=lambda seed: (Chance(seed), Chance(seed)))
        training = check_task(task, 3)
    with pytest.raises(ValueError, match="returns other data each time"):
        check_same_twice(task, training)


class Dies(Images):
    """As a worker does where it imports, as a new interpreter, a file that trains."""

    def __getitem__(self, k):
        if torch.utils.data.get_worker_info():
            os._exit(1)
        return super().__getitem__(k)


def test_where_workers_die_a_line_says_what_they_need():
    def make_data(seed):
        return Dies(seed), Dies(seed)

    task = replace(IMAGES, make_data=make_data, num_workers=1)
    with pytest.raises(ValueError, match=r"served: .*; with num_workers, .* `if __name__ == "):
        check_task(task, 3)
    runs = train_all(task, trainings_of(task, [3]), adam)
    assert runs.note.startswith("failed at step 1: RuntimeError: DataLoader worker")
    assert runs.remarks == [datasets.IMPORTABLE]


@pytest.mark.parametrize(
    ("field", "value"), [("num_workers", -1), ("num_workers", "2"), ("collate_fn", 3)]
)
def test_its_loaders_settings_are_looked_at(field, value):
    with pytest.raises(ValueError, match=f"its {field} is"):
        check_task(replace(IMAGES, **{field: value}), 3)


# ---------------------------------------------------------------- scripts


OWN = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from tasks import Task


class Images(torch.utils.data.Dataset):
    def __init__(self, seed):
        self.seed = seed

    def __len__(self):
        return 40

    def __getitem__(self, k):
        image = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(100 * self.seed + k))
        return image, int(image[0, 0, 0] > 0.5)


images = Task(
    lambda seed: (Images(seed), Images(seed + 50)),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2)),
    cross_entropy, 2, 8,
)
"""


SCRIPTS = {
    compare_optimizers: ["--optimizers", "SGD", "Adam"],
    compare_learning_rates: ["--optimizers", "SGD", "--seeds", "2", "--judges", "2",
                             "--lr-range", "0.01", "0.1",
                             "--lr-count", "2"],
    compare_batch_sizes: ["--batch-sizes", "8", "full"],
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_take_a_folder_of_images(script, homework, workdir, capsys):
    homework(OWN)
    assert script.main(["--task", "homework.images", "--no-show", *SCRIPTS[script]]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["--fit"], ["--animate", "out.gif"]])
def test_what_draws_the_data_says_that_it_needs_tensors(words, homework, workdir, capsys):
    homework(OWN)
    assert_refused(
        compare_optimizers.main,
        ["--task", "homework.images", "--no-show", *words],
        "data that are a TensorDataset", workdir, capsys,
    )  # fmt: skip
