"""The data and its mini-batches."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from data import make_dataset, make_loader, stack_datasets


def test_dataset_is_the_tutorials():
    x, y = make_dataset().tensors
    assert x.shape == y.shape == (1000, 1)
    assert x.dtype == y.dtype == torch.float32
    assert torch.equal(x.sort(0).values, torch.linspace(-1, 1, 1000).unsqueeze(1))
    noise = y - x**2
    assert abs(noise.std().item() - 0.1) < 0.01
    assert abs(noise.mean().item()) < 0.01


def test_without_noise_y_is_x_squared():
    x, y = make_dataset(50, noise=0, seed=3).tensors
    assert torch.equal(y, x * x)


def test_seed_fixes_noise_and_order_of_rows_whatever_the_global_generator_does():
    torch.manual_seed(1)
    first = make_dataset(100, seed=5)
    torch.manual_seed(2)
    assert torch.equal(first[:][0], make_dataset(100, seed=5)[:][0])
    assert torch.equal(first[:][1], make_dataset(100, seed=5)[:][1])
    other = make_dataset(100, seed=6)
    assert not torch.equal(first[:][0], other[:][0])
    by_x = [dataset[:][1][dataset[:][0].argsort(0).flatten()] for dataset in (first, other)]
    assert not torch.equal(*by_x)


@given(n_samples=st.integers(1, 70), batch_size=st.integers(1, 90))
def test_an_epoch_serves_every_sample_once_with_the_smaller_batch_last(n_samples, batch_size):
    dataset = make_dataset(n_samples)
    loader = make_loader(dataset, batch_size)
    batches = list(loader)
    full, rest = divmod(n_samples, batch_size)
    assert [len(x) for x, _ in batches] == [batch_size] * full + [rest] * (rest > 0)
    assert len(loader) == len(batches)
    pairs = torch.cat([torch.cat([x, y], 1) for x, y in batches]).tolist()
    assert sorted(pairs) == sorted(torch.cat(dataset[:], 1).tolist())


def test_each_epoch_has_its_own_order_and_each_loader_the_same_epochs():
    dataset = make_dataset(64)

    def epochs(seed):
        loader = make_loader(dataset, 8, seed)
        return [torch.cat([x for x, _ in loader]) for _ in range(3)]

    one, again, other = epochs(0), epochs(0), epochs(1)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], other[0])


def test_loading_leaves_the_global_generator_alone():
    loader = make_loader(make_dataset(10), 4)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_size_beyond_any_tensor_gives_the_full_batch():
    assert [len(x) for x, _ in make_loader(make_dataset(10), 2**63 - 1)] == [10]


def test_stacked_datasets_keep_each_in_its_column():
    datasets = [make_dataset(30, seed=seed) for seed in range(3)]
    x, y = stack_datasets(datasets).tensors
    assert x.shape == y.shape == (30, 3, 1)
    for k, dataset in enumerate(datasets):
        assert torch.equal(x[:, k], dataset.tensors[0])
        assert torch.equal(y[:, k], dataset.tensors[1])
