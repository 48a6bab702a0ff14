"""Mini-batches are the ordinary DataLoader's, and data are on the device that is asked for."""

from lab.training.loading import data_on, make_loader

import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset


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


def test_the_data_are_on_the_device_that_is_asked_for():
    make_data = data_on("meta", SMALL.make_data)  # a device that every torch has
    for dataset, own in zip(make_data(3), SMALL.make_data(3), strict=True):
        assert [tensor.device.type for tensor in dataset.tensors] == ["meta", "meta"]
        assert [t.shape for t in dataset.tensors] == [t.shape for t in own.tensors]
    assert data_on("cpu", SMALL.make_data)(3)[0].tensors[0].device.type == "cpu"


def test_data_are_made_once_for_each_seed():
    make_data = data_on("cpu", SMALL.make_data)
    assert make_data(3) is make_data(3)
    assert not torch.equal(make_data(3)[0].tensors[0], make_data(4)[0].tensors[0])
