"""Gradient descent: plain, with momentum, and with an average of its path."""

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.update_rule import UpdateRule


class SGD(UpdateRule):
    """Stochastic gradient descent, with momentum and Nesterov's momentum if asked for.

        plain       θ ← θ - lr·g
        momentum    v ← momentum·v + (1 - dampening)·g,    θ ← θ - lr·v
        Nesterov    v as above,                            θ ← θ - lr·(g + momentum·v)

    The velocity v starts as the first gradient. Momentum fixes the zigzag of plain descent across a
    narrow valley: steps that alternate cancel out, and steps that agree add up, to 1/(1 - momentum)
    times their length. Nesterov's momentum looks ahead along the velocity, and so brakes earlier.

    Robbins and Monro, "A Stochastic Approximation Method", 1951; Polyak, "Some methods of speeding
    up the convergence of iteration methods", 1964; Nesterov, 1983, in the form of Sutskever et
    al., "On the importance of initialization and momentum in deep learning", ICML 2013.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                "Nesterov momentum needs momentum above 0 and dampening 0, "
                f"not {momentum} and {dampening}"
            )
        defaults = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        defaults |= dict(nesterov=nesterov, maximize=maximize)
        super().__init__(params, defaults)

    def update(self, param, grad, state, group):
        momentum = group["momentum"]
        direction = grad
        if momentum != 0:
            if "velocity" in state:
                velocity = momentum * state["velocity"] + (1 - group["dampening"]) * grad
            else:
                velocity = grad.clone()
            state["velocity"] = velocity
            direction = grad + momentum * velocity if group["nesterov"] else velocity
        param -= group["lr"] * direction


class ASGD(UpdateRule):
    """Gradient descent whose result is the average of its path, kept in state["average"].

        θ ← (1 - lambd·η)·θ - η·g
        a ← a + (θ - a) / max(1, t - 1 - t0)        a follows θ until step t0
        η ← lr / (1 + lambd·lr·t)^alpha             η starts at lr

    Fixes the noise that mini-batches leave in the last point of the path: it averages out.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control
    and Optimization 30, 1992.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ):
        defaults = dict(lr=lr, lambd=lambd, alpha=alpha, t0=t0)
        defaults |= dict(weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, defaults)

    def update(self, param, grad, state, group):
        lr, lambd, step = group["lr"], group["lambd"], state["step"]
        eta = state.get("eta", lr)
        param.copy_(param * (1 - lambd * eta) - eta * grad)
        average = state.get("average", param)
        state["average"] = average + (param - average) / max(1, step - 1 - group["t0"])
        state["eta"] = lr / (1 + lambd * lr * step) ** group["alpha"]

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averages, which torch's ASGD never uses, in θ's place until `train`."""
        for param, state in self.state.items():
            state.setdefault("last", param.clone())
            param.copy_(state["average"])

    @torch.no_grad()
    def train(self) -> None:
        for param, state in self.state.items():
            param.copy_(state.pop("last", param))
