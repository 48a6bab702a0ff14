"""The data set by its seed, and its mini-batches by the ordinary DataLoader's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from data import make_loader, parabola, split


def numbered(n_samples):
    """A data set of two columns whose rows can be told apart."""
    x = torch.arange(2.0 * n_samples).reshape(n_samples, 2)
    return TensorDataset(x, -x[:, :1])


@given(n_samples=st.integers(1, 70), batch_size=st.integers(1, 90), seed=st.integers(0, 2**64 - 1))
def test_the_mini_batches_are_those_of_an_ordinary_loader(n_samples, batch_size, seed):
    dataset = numbered(n_samples)
    torch.manual_seed(seed)  # which must not matter
    ours = make_loader(dataset, batch_size)
    ordinary = DataLoader(
        dataset, batch_size, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    assert len(ours) == len(ordinary)
    for _ in range(3):
        for mine, other in zip(ours, ordinary, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


@given(n_samples=st.integers(1, 70), batch_size=st.integers(1, 90))
def test_an_epoch_serves_every_sample_once_with_the_smaller_batch_last(n_samples, batch_size):
    batches = list(make_loader(numbered(n_samples), batch_size))
    full, rest = divmod(n_samples, batch_size)
    assert [len(x) for x, _ in batches] == [batch_size] * full + [rest] * (rest > 0)
    rows = torch.cat([x[:, 0] for x, _ in batches])
    assert sorted(rows.tolist()) == list(range(0, 2 * n_samples, 2))
    assert all(torch.equal(y, -x[:, :1]) for x, y in batches)


def test_each_epoch_has_its_own_order_and_each_loader_the_same_epochs():
    def epochs():
        loader = make_loader(numbered(64), 8)
        return [torch.cat([x for x, _ in loader]) for _ in range(3)]

    one, again = epochs(), epochs()
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], one[1])


def test_loading_leaves_the_global_generator_alone():
    loader = make_loader(numbered(10), 4)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_size_beyond_any_tensor_gives_the_full_batch():
    assert [len(x) for x, _ in make_loader(numbered(10), 2**63 - 1)] == [10]


def test_a_seed_fixes_noise_and_order_of_rows_whatever_the_global_generator_does():
    torch.manual_seed(1)
    first, held_out = parabola(5, samples=100)
    torch.manual_seed(2)
    (again, _), (other, _) = parabola(5, samples=100), parabola(6, samples=100)
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, again.tensors, strict=True))
    assert not torch.equal(first.tensors[0], other.tensors[0])
    assert len(first) == len(other) == len(held_out) == 100
    for one in (other, held_out):
        assert not torch.equal(*(dataset.tensors[1].sort(0).values for dataset in (first, one)))


@pytest.mark.parametrize(("held_out", "samples"), [(10, None), (11, None), (4, 7), (4, 0)])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(held_out, samples):
    x = torch.zeros(10, 1)
    with pytest.raises(ValueError, match=f"there are 10 samples, and {held_out} of them are held"):
        split(0, x, x, held_out, samples)
    assert len(split(0, x, x, 4, 6)[0]) == 6
