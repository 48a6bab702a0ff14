"""Each element has a learning rate of its own, from the size or the sign of its gradients."""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.update_rule import UpdateRule


class Adagrad(UpdateRule):
    """A learning rate for each element, which falls as its squared gradients add up.

        s ← s + g²                                  s starts at initial_accumulator_value
        θ ← θ - lr / (1 + (t-1)·lr_decay) · g / (√s + eps)

    Fixes the single learning rate that plain descent and momentum have for all elements: here those
    with rare or small gradients move as fast as the others. That suits sparse features and
    ill-conditioned valleys.

    Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization", JMLR 12, 2011.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ):
        defaults = dict(lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps)
        defaults |= dict(initial_accumulator_value=initial_accumulator_value, maximize=maximize)
        super().__init__(params, defaults)

    def update(self, param, grad, state, group):
        lr = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        state["sum"] = state.get("sum", group["initial_accumulator_value"]) + grad**2
        param -= lr * grad / (state["sum"].sqrt() + group["eps"])


class RMSprop(UpdateRule):
    """Adagrad with a fading memory, so that its steps do not shrink to nothing.

        s ← alpha·s + (1 - alpha)·g²
        centered    m ← alpha·m + (1 - alpha)·g,  and √(s - m²) in place of √s below
        θ ← θ - lr·g / (√s + eps)
        momentum    b ← momentum·b + g / (√s + eps),  θ ← θ - lr·b

    Fixes the sum in Adagrad, which only grows: an average over about the last 1/(1 - alpha) steps
    forgets, so the learning rate recovers when the gradients become small.

    Tieleman and Hinton, "Neural Networks for Machine Learning", Coursera lecture 6e, 2012;
    centered: Graves, "Generating Sequences With Recurrent Neural Networks", arXiv:1308.0850, 2013.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        if not alpha >= 0:
            raise ValueError(f"Invalid alpha value: {alpha}")
        defaults = dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        defaults |= dict(centered=centered, maximize=maximize)
        super().__init__(params, defaults)

    def update(self, param, grad, state, group):
        alpha, momentum = group["alpha"], group["momentum"]
        second_moment = alpha * state.get("second_moment", 0) + (1 - alpha) * grad**2
        state["second_moment"] = variance = second_moment
        if group["centered"]:
            state["first_moment"] = alpha * state.get("first_moment", 0) + (1 - alpha) * grad
            variance = second_moment - state["first_moment"] ** 2
        direction = grad / (variance.sqrt() + group["eps"])
        if momentum > 0:
            state["velocity"] = direction = momentum * state.get("velocity", 0) + direction
        param -= group["lr"] * direction


class Adadelta(UpdateRule):
    """RMSprop that takes the scale of a step from the steps before it, so that lr needs no tuning.

        s ← rho·s + (1 - rho)·g²
        Δ = √(d + eps) / √(s + eps) · g
        d ← rho·d + (1 - rho)·Δ²
        θ ← θ - lr·Δ

    Fixes the shrinking steps of Adagrad, as RMSprop does. Also, a step has the unit of the
    parameter, and not that of lr: with lr = 1 there is no rate left to choose.

    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", arXiv:1212.5701, 2012.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ):
        if not 0 <= rho <= 1:
            raise ValueError(f"Invalid rho value: {rho}")
        defaults = dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults)

    def update(self, param, grad, state, group):
        rho, eps = group["rho"], group["eps"]
        squared_grad = rho * state.get("squared_grad", 0) + (1 - rho) * grad**2
        squared_delta = state.get("squared_delta", 0)
        delta = ((squared_delta + eps) / (squared_grad + eps)).sqrt() * grad
        state["squared_grad"] = squared_grad
        state["squared_delta"] = rho * squared_delta + (1 - rho) * delta**2
        param -= group["lr"] * delta


class Rprop(UpdateRule):
    """A step size for each element, changed by the gradient's sign alone.

        s ← s·η⁺ where g has the sign of the last one, s·η⁻ where it has not, within step_sizes
        θ ← θ - s·sign(g),   but no step where the sign has changed

    s starts at lr, and (η⁻, η⁺) are `etas`. Fixes the use of the gradient's size, which says
    little about how far to go. But with mini-batches the sign is noise, which led to RMSprop.

    Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP
    Algorithm", ICNN 1993.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        maximize: bool = False,
    ):
        if not 0 < etas[0] < 1 < etas[1]:
            raise ValueError(f"Invalid etas value: {etas}")
        defaults = dict(lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize)
        super().__init__(params, defaults)

    def update(self, param, grad, state, group):
        shrink, grow = group["etas"]
        agreement = grad * state.get("previous_grad", 0)
        factor = torch.where(agreement > 0, grow, torch.ones_like(grad))
        factor = torch.where(agreement < 0, shrink, factor)
        state["step_size"] = (state.get("step_size", group["lr"]) * factor).clamp(
            *group["step_sizes"]
        )
        state["previous_grad"] = torch.where(agreement < 0, 0, grad)
        param -= state["step_size"] * state["previous_grad"].sign()
