"""The tasks: each as a plain loop has it, stacked or not, and each with its lesson."""

from dataclasses import replace
from functools import partial

from lab.command_line.specs import parse_optimizer
from lab.training.checks import check_task
from lab.training.rotation import turned_task
from lab.training.runs import trainings_of
from lab.training.sweeps import Sweep
from lab.training.train import train_all

import pytest
import torch
from conftest import textbook_training
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import compare_optimizers
import data
from data import make_loader
from tasks import TASKS, lookup, matrix, sparse_words
from training import train

DIAGONAL = replace(matrix, make_data=partial(data.matrix, turned=False))
OTHERS = [name for name in TASKS if name != "parabola"]  # that one is tested as the tutorial's


def short(task, epochs=2):
    return replace(task, epochs=epochs)


def plain_numbers(task, make_optimizer, seed):
    """Return losses, final loss and held-out loss of a loop written apart, and the net."""
    train_set, held_out = task.make_data(seed)
    losses, net = textbook_training(
        train_set, task.make_net, make_optimizer, task.loss, seed, task.epochs, task.batch_size
    )
    net.eval()
    with torch.no_grad():
        ends = [task.loss(net(x), y).item() for x, y in (train_set.tensors, held_out.tensors)]
    return losses, *ends, net


@pytest.mark.parametrize("name", TASKS)
def test_the_plain_loop_gives_the_same_numbers_bit_for_bit(name):
    task = short(TASKS[name])
    make_optimizer = parse_optimizer("Adam", lr=0.01)
    ((_, run),) = compare_optimizers.compare({"Adam": make_optimizer}, task, seeds=[5])
    losses, final, held_out, net = plain_numbers(task, make_optimizer, 5)
    assert run.history(0) == losses
    assert run.final_losses.tolist() == [final]
    assert run.held_out_losses.tolist() == [held_out]
    if task.loss is cross_entropy:
        x, y = task.make_data(5)[1].tensors
        right = (net(x).argmax(1) == y).float().mean().item()
        assert run.measured(run.trainings[0].metric(task), [0]).item() == pytest.approx(right)


@pytest.mark.parametrize("name", TASKS)
def test_a_stack_of_ten_seeds_gives_the_same_to_rounding(name):
    task, make_optimizer = short(TASKS[name], epochs=1), parse_optimizer("Momentum")
    seeds = range(10)
    runs = train_all(task, trainings_of(task, seeds, [0.003]), make_optimizer)
    assert runs.stacked
    for k in (0, 9):
        losses, final, held_out, _ = plain_numbers(task, parse_optimizer("Momentum", 0.003), k)
        assert runs.history(k) == pytest.approx(losses, rel=1e-3)
        assert runs.final_losses[k].item() == pytest.approx(final, rel=1e-3)
        assert runs.held_out_losses[k].item() == pytest.approx(held_out, rel=1e-3)


@pytest.mark.parametrize("name", OTHERS)
def test_a_task_is_small_and_says_what_it_teaches(name):
    task = TASKS[name]
    check_task(task, 1)
    train_set, held_out = task.make_data(1)
    assert 300 <= task.epochs * len(make_loader(train_set, task.batch_size)) <= 700
    assert sum(param.numel() for param in task.make_net().parameters()) < 5000
    assert len(held_out) >= 1000
    assert task.lesson.endswith(".")
    assert len(task.lesson) < 100
    assert task.source
    assert task.target > 0


@pytest.mark.parametrize("name", TASKS)
def test_the_seed_changes_the_data_and_the_held_out_set_is_another(name):
    (one, held_out), (other, _) = (TASKS[name].make_data(seed) for seed in (1, 2))
    (again, _) = TASKS[name].make_data(1)
    n = min(map(len, (one, held_out)))
    assert all(map(torch.equal, one.tensors, again.tensors))
    assert not torch.equal(one.tensors[0], other.tensors[0])
    assert not torch.equal(one.tensors[0][:n], held_out.tensors[0][:n])


@pytest.mark.parametrize("name", ["terrain", "prose"])
def test_what_is_held_out_of_real_data_is_no_sample_of_the_training_set(name):
    (train_set, held_out) = TASKS[name].make_data(3, samples=2000)
    rows = [torch.cat([x.double(), y.view(len(y), -1).double()], 1) for x, y in
            (train_set.tensors, held_out.tensors)]  # fmt: skip
    assert len(held_out) == 1000
    assert len(train_set) == 2000
    if name == "terrain":  # every place is there once; in prose the same letters come again
        assert len(torch.cat(rows).unique(dim=0)) == 3000


@pytest.mark.parametrize("task", [matrix, DIAGONAL])
def test_sources_are_mixed_by_one_badly_conditioned_matrix(task):
    inverses = []
    for dataset in (*task.make_data(1, samples=20_000), task.make_data(2, samples=20_000)[0]):
        x, y = dataset.tensors
        inverse = torch.linalg.lstsq(x, y).solution  # which the net has to learn
        assert (y - x @ inverse).std() == pytest.approx(0.1, rel=0.02)
        scales = torch.linalg.svdvals(inverse)
        torch.testing.assert_close(scales, torch.logspace(1, -1, 16), rtol=0.02, atol=0)
        inverses.append(inverse)
        assert y.std(0).sub(1.005).abs().max() < 0.03  # no source is larger than another
    torch.testing.assert_close(inverses[0], inverses[1], rtol=0, atol=0.1)
    torch.testing.assert_close(inverses[0], inverses[2], rtol=0, atol=0.1)
    across = inverses[0].fill_diagonal_(0).norm() / scales.norm()
    assert across > 0.5 if task is matrix else across < 0.02


def test_the_last_token_asks_for_a_value_that_stands_in_the_row():
    x, y = data.lookup(1, pairs=3, keys=5, values=7)[0].tensors
    places = []
    for *pairs, asked, value in torch.cat([x, y.unsqueeze(1)], 1).tolist():
        found = {(pair - 5) % 5: (pair - 5) // 5 for pair in pairs}
        assert min(pairs) >= 5
        assert len(found) == 3
        assert found[asked] == value
        places.append(list(found).index(asked))
    for drawn, n in ((x[:, -1], 5), (y, 7), (torch.tensor(places), 3)):
        shares = torch.bincount(drawn, minlength=n) / len(drawn)
        assert shares.shape == (n,)
        torch.testing.assert_close(shares, torch.full((n,), 1 / n), rtol=0, atol=0.04)


def test_to_look_up_is_attention():
    net, (x, _) = lookup.make_net(), data.lookup(1)[0][:20]
    tokens = net.embed(x)
    query, key, value = (
        net.query(tokens[:, -1:]),
        net.key(tokens[:, :-1]),
        net.value(tokens[:, :-1]),
    )
    expected = net.predict(scaled_dot_product_attention(query, key, value))
    torch.testing.assert_close(net(x), expected.squeeze(1))
    assert x.max() <= net.embed.num_embeddings - 1 == 71
    assert net(x).shape == (20, 8)


# ---------------------------------------------------------------- lessons

# A few rates about the best one of each, as `compare_learning_rates.py --task NAME` finds it.
RATES = {
    "sine": {"SGD": (0.00316, 0.1), "Momentum": (0.01, 0.1), "Adam": (0.01, 0.0316)},
    "scales": {
        "SGD": (0.001, 0.00316), "Momentum": (0.001, 0.00316), "Adagrad": (0.316, 1),
        "RMSprop": (0.0316, 0.1), "Adam": (0.0316, 0.1),
    },
    "deep": {
        "SGD": (0.0316, 0.1), "Momentum": (0.0316, 0.1), "RMSprop": (0.00316, 0.01),
        "Adam": (0.00316, 0.01),
    },
    "parity": {
        "SGD": (0.316, 1), "Momentum": (0.1, 0.316), "Adagrad": (0.1, 0.316),
        "RMSprop": (0.01, 0.0316), "Adam": (0.0316, 0.1),
    },
    "spirals": {"SGD": (0.1, 0.316), "Momentum": (0.1, 0.316), "Adam": (0.01, 0.0316)},
    "bottleneck": {
        "SGD": (0.1, 0.316), "Momentum": (0.0316, 0.1), "RMSprop": (0.00316, 0.01),
        "Adam": (0.01, 0.0316),
    },
    "logistic": {
        "SGD": (0.0316, 0.1), "Momentum": (0.00316, 0.01), "Adagrad": (0.0316, 0.1),
        "RMSprop": (0.00316, 0.01), "Adam": (0.00316, 0.01),
    },
    "rare_words": {"SGD": (0.316, 1), "Momentum": (0.316, 1), "Adagrad": (1, 3.16)},
    "terrain": {
        "SGD": (0.1, 0.316), "Adagrad": (0.1, 0.316), "RMSprop": (0.00316, 0.01),
        "Adam": (0.01, 0.0316),
    },
    "prose": {"SGD": (1,), "Adagrad": (0.1,), "RMSprop": (0.01,), "Adam": (0.01,)},
    "matrix": {
        "Adam": (0.01, 0.0316), "Muon | AdamW": (0.0316,), "optimizers.SOAP": (0.01, 0.0316),
    },
    "lookup": {
        "Momentum": (0.0316, 0.1), "Adam": (0.01, 0.0316), "Muon | AdamW": (0.01, 0.0316),
        "optimizers.SOAP | AdamW": (0.01, 0.0316),
    },
}  # fmt: skip
CALLS = {"Momentum": "SGD(momentum=0.9)", "RMSprop": "RMSprop()", "Adam": "Adam()"}


@pytest.fixture(scope="module")
def best_of():
    """Return a function that trains a task's optimizers: their sweeps, by default at ten seeds."""

    def train(name, n_seeds=10, task=None):
        task, result = task or TASKS[name], {}
        for label, rates in RATES[name].items():
            trainings = trainings_of(task, range(n_seeds), rates)
            runs = train_all(task, trainings, parse_optimizer(CALLS.get(label, label)))
            assert runs.stacked
            result[label] = Sweep(runs)
        return result

    return train


def held_out(sweeps):
    return {label: result.median[result.best].item() for label, result in sweeps.items()}


def test_fast_waves_are_learned_by_adam_only(best_of):
    losses = held_out(best_of("sine"))
    assert min(losses["SGD"], losses["Momentum"]) > 5 * losses["Adam"]
    assert min(losses["SGD"], losses["Momentum"]) > 0.4  # a line leaves nearly half


def test_on_features_of_very_different_scales_one_rate_for_all_fails(best_of):
    losses = held_out(best_of("scales"))
    assert min(losses["SGD"], losses["Momentum"]) > 25 * losses["RMSprop"]
    assert losses["SGD"] > 50 * max(losses[k] for k in ("Adagrad", "RMSprop", "Adam"))


def test_adam_is_the_first_to_leave_the_plateau_of_a_deep_net(best_of):
    sweeps = best_of("deep", n_seeds=5)
    losses = held_out(sweeps)
    assert losses["Adam"] < 0.7 * min(losses[k] for k in ("SGD", "Momentum", "RMSprop"))
    for result in sweeps.values():  # a quarter of the way down all are on the plateau
        quarter = result.losses[80:112, result.best].nanmean()
        assert 0.055 < quarter < 0.2


def test_parity_is_a_plateau_and_then_a_cliff(best_of):
    sweeps = best_of("parity")
    losses = held_out(sweeps)
    assert losses["Adagrad"] > 1.3 * max(losses[k] for k in losses if k != "Adagrad")
    for label in ("SGD", "Momentum"):
        history = sweeps[label].losses[:, sweeps[label].best].median(1).values
        assert history[30:64].mean() > 0.6  # log 2 is 0.69: nothing has been learned
        assert history[-32:].mean() < 0.03


def test_two_spirals_are_parted_by_what_adapts(best_of):
    losses = held_out(best_of("spirals", n_seeds=5))
    assert min(losses["SGD"], losses["Momentum"]) > 0.5
    assert losses["Adam"] < 0.15


def test_momentum_alone_helps_an_autoencoder(best_of):
    losses = held_out(best_of("bottleneck", n_seeds=5))
    assert losses["SGD"] > 1.3 * losses["Momentum"]
    assert losses["Momentum"] < 1.1 * losses["RMSprop"]
    assert losses["Adam"] < 0.95 * min(losses["Momentum"], losses["RMSprop"])


def test_a_convex_problem_ends_in_a_tie(best_of):
    losses = held_out(best_of("logistic"))
    assert max(losses.values()) < 1.01 * min(losses.values())


def test_rare_words_need_long_steps(best_of):
    losses = held_out(best_of("rare_words"))
    assert losses["SGD"] > 5 * losses["Momentum"] > 25 * losses["Adagrad"]


def test_what_sees_a_matrix_finds_weak_directions_that_lie_across_the_features(best_of):
    losses = held_out(best_of("matrix", n_seeds=3, task=short(matrix, 6)))
    assert losses["Adam"] > 5 * losses["optimizers.SOAP"]
    assert losses["Adam"] > 2 * losses["Muon | AdamW"]


@pytest.mark.slow
def test_what_sees_a_matrix_hardly_sees_its_axes_and_adam_does(best_of):
    losses, diagonal = (held_out(best_of("matrix", task=task)) for task in (matrix, DIAGONAL))
    assert losses["Adam"] > 8 * losses["optimizers.SOAP"]
    assert losses["Adam"] > 2 * losses["Muon | AdamW"]
    assert losses["Adam"] > 10 * diagonal["Adam"]
    assert diagonal["Adam"] < 0.9 * min(diagonal["Muon | AdamW"], diagonal["optimizers.SOAP"])
    assert losses["optimizers.SOAP"] == pytest.approx(diagonal["optimizers.SOAP"], rel=0.1)
    assert losses["Muon | AdamW"] == pytest.approx(diagonal["Muon | AdamW"], rel=0.4)


@pytest.mark.slow
def test_where_all_weights_are_mixed_there_is_no_matrix_to_see(best_of):
    losses = held_out(best_of("matrix", task=turned_task(matrix, 81)))
    assert min(losses.values()) > 0.1
    assert max(losses.values()) < 1.5 * min(losses.values())


@pytest.mark.slow
def test_at_a_falling_rate_muon_comes_down_to_the_noise_and_adam_does_not():
    losses = {}
    for text, lr in (("Adam()", 0.1), ("Muon | AdamW", 0.1), ("optimizers.SOAP", 0.0316)):
        make_optimizer = parse_optimizer(f"{text} + CosineAnnealingLR(T_max=12)")
        runs = train_all(matrix, trainings_of(matrix, range(10), [lr]), make_optimizer)
        losses[text] = runs.held_out_losses.median()
    assert losses["Adam()"] > 8 * losses["Muon | AdamW"]
    assert max(losses["Muon | AdamW"], losses["optimizers.SOAP"]) < 0.014  # the noise has 0.01


@pytest.mark.slow
def test_keys_are_matched_sooner_by_what_sees_the_matrices_of_attention(best_of):
    losses = held_out(best_of("lookup", task=lookup))
    best = max(losses["Muon | AdamW"], losses["optimizers.SOAP | AdamW"])
    assert losses["Momentum"] > 2 * losses["Adam"] > 6 * best


def test_sparse_words_are_rare_words_by_sparse_gradients():
    assert sparse_words.make_net().values.sparse
    (training,) = trainings_of(sparse_words, [0])
    losses = {}
    for task in (sparse_words, TASKS["rare_words"]):
        sgd = partial(torch.optim.SGD, lr=0.3)
        losses[task] = train_all(short(task), [training], sgd).history(0)
    one, other = losses.values()
    assert one == pytest.approx(other, rel=1e-5)


def test_sparse_adam_lets_a_row_rest_that_adam_moves_on():
    (training,) = trainings_of(sparse_words, [0])
    rows, moved = training.dataset.tensors[0], {}
    for task, name in ((sparse_words, "SparseAdam"), (TASKS["rare_words"], "Adam")):
        task, paths = replace(task, epochs=1), []
        net = training.make_net(task)
        optimizer = parse_optimizer(f"optimizers.{name}(lr=0.1)")(net.parameters())
        for _ in train(net, optimizer, make_loader(training.dataset, 32), task.loss, epochs=1):
            paths.append(net.values.weight.detach().clone())
        moved[name] = (torch.stack(paths).diff(dim=0) != 0).squeeze(-1)  # (steps, rows)
    touched = torch.zeros_like(moved["Adam"])
    for step, (x, _) in enumerate(make_loader(training.dataset, 32)):
        if step:
            touched[step - 1, x.flatten()] = True
    assert len(rows.unique()) < 500  # some words never come: nobody moves them
    assert torch.equal(moved["SparseAdam"], touched)
    assert (moved["Adam"] & ~touched).sum() > 10_000
    assert not (touched & ~moved["Adam"]).any()


def test_on_a_mountain_the_adaptive_ones_tie_ahead_of_sgd(best_of):
    losses = held_out(best_of("terrain", n_seeds=6))
    adaptive = [losses[k] for k in ("Adagrad", "RMSprop", "Adam")]
    assert losses["SGD"] > 1.2 * max(adaptive)
    assert max(adaptive) < 1.12 * min(adaptive)


def test_in_prose_learning_by_heart_costs_more_than_the_optimizer(best_of):
    sweeps = best_of("prose", n_seeds=6)
    losses = held_out(sweeps)
    gaps = [
        (result.held_out_losses - result.final_losses)[result.best].median().item()
        for result in sweeps.values()
    ]
    assert min(gaps) > 2 * (max(losses.values()) - min(losses.values()))
    assert min(losses["Adagrad"], losses["RMSprop"]) < losses["SGD"]
