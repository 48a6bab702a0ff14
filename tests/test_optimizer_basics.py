"""Every claim of the tour, for torch's optimizers and for ours."""

import pytest
import torch

import optimizer_basics as tour
import optimizers

MODULES = [torch.optim, optimizers]
pytestmark = pytest.mark.parametrize("optim", MODULES, ids=["torch", "ours"])


def test_param_groups_move_by_their_own_hyperparameters(optim):
    hidden, predict = tour.param_groups(optim)
    assert (hidden["lr"], hidden["momentum"], hidden["weight_decay"]) == (tour.LR, 0.9, 0)
    assert (predict["lr"], predict["momentum"], predict["weight_decay"]) == (0.01, 0, 0.5)
    # Velocities 1 and 1.9; and twice θ ← θ - 0.01·(1 + 0.5·θ).
    assert hidden["moved"] == pytest.approx(-tour.LR * 2.9, rel=1e-5)
    twice = predict["start"]
    for _ in range(2):
        twice -= 0.01 * (1 + 0.5 * twice)
    assert predict["moved"] == pytest.approx(twice - predict["start"], rel=1e-5)


def test_gradients_add_up_until_zero_grad(optim):
    gradients, losses = tour.zero_grad(optim)
    assert gradients == [6.0, 12.0, None, 6.0]
    assert losses[False][-1] > losses[True][-1]


def test_step_is_what_one_does_by_hand(optim):
    result = tour.step(optim)
    assert result["after"] == pytest.approx(result["by_hand"], abs=1e-7)
    assert result["loss_after"] < result["loss_before"]


def test_lbfgs_calls_its_closure_more_than_once_a_step(optim):
    results, message = tour.closure(optim)
    (sgd_calls, sgd_loss), (lbfgs_calls, lbfgs_loss) = results["SGD"], results["LBFGS"]
    assert sgd_calls == 3 < lbfgs_calls
    assert lbfgs_loss < sgd_loss
    assert "closure" in message


def test_a_loaded_state_goes_on_and_a_forgotten_one_does_not(optim):
    losses = tour.state_dict(optim)
    assert len(losses["without_a_stop"]) == 10
    assert losses["state_loaded"] == losses["without_a_stop"]
    assert losses["state_forgotten"][0] == losses["without_a_stop"][0]
    assert losses["state_forgotten"][1:] != losses["without_a_stop"][1:]


def test_a_frozen_layer_joins_at_a_smaller_learning_rate(optim):
    results = tour.add_param_group(optim)
    (moved_frozen, lrs_frozen), (moved_joined, lrs_joined) = results["frozen"], results["joined"]
    assert moved_frozen == 0 < moved_joined
    assert lrs_frozen == [tour.LR]
    assert lrs_joined == [tour.LR, tour.LR / 10]


def test_a_schedule_changes_every_group_from_its_own_start(optim):
    lrs = torch.tensor(tour.schedule(optim))
    start = torch.tensor([tour.LR, 0.01])
    torch.testing.assert_close(lrs, torch.stack([start, start, start / 10, start / 10]))


def test_the_whole_tour_prints_each_title_once(optim, capsys):
    assert tour.main(["--optimizers-from", optim.__name__]) == 0
    out = capsys.readouterr().out
    for number, function in enumerate(tour.STEPS, start=1):
        assert out.count(f"\n{number}. {function.__doc__.splitlines()[0]}\n") == 1
    assert "state loaded" in out
    assert "  not the same\n" in out
