"""The base class: the books that every optimizer keeps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

NOT_NEGATIVE = (
    "lr",
    "eps",
    "initial_accumulator_value",
    "lr_decay",
    "momentum",
    "momentum_decay",
    "weight_decay",
)


class UpdateRule(torch.optim.Optimizer):
    """The books that every optimizer keeps, so that a subclass is its formula, `update`.

    For each parameter that has a gradient, `step` counts the step, turns the gradient round where
    the group says `maximize`, adds its `weight_decay`, and calls `update`. Learning rates may be
    0-dim tensors. Gradients have to be real, and dense, or sparse where the rule `is_sparse`;
    others raise RuntimeError.
    """

    is_sparse = False

    def __init__(self, params: ParamsT, defaults: dict[str, Any]):
        """Take parameters or param groups, and every hyperparameter by name.

        Raises ValueError for a value out of range.
        """
        lr = defaults.get("lr")
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"Invalid lr value: {lr} has not one element")
        for name in NOT_NEGATIVE:
            value = defaults.get(name, 0)
            parts = value if isinstance(value, tuple) else (value,)
            if not all(part is None or part >= 0 for part in parts):
                raise ValueError(f"Invalid {name} value: {value}")
        if not all(0 <= beta < 1 for beta in defaults.get("betas", ())):
            raise ValueError(f"Invalid betas value: {defaults['betas']}")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient; return the closure's loss, if one is given.

        The closure clears the gradients, computes the loss, calls its backward and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step_one(param, param.grad, self.state[param], group)
        return loss

    def _step_one(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        if grad.is_sparse != self.is_sparse or grad.is_complex():
            kind = "sparse" if self.is_sparse else "dense"
            raise RuntimeError(f"{type(self).__name__} takes {kind}, real gradients only")
        state["step"] = state.get("step", 0) + 1
        if group.get("maximize"):
            grad = -grad
        self.update(param, self.decay(param, grad, group), state, group)

    def decay(self, param: Tensor, grad: Tensor, group: dict) -> Tensor:
        """Return the gradient with the weight decay added, or shrink `param` by a decoupled one."""
        if weight_decay := group.get("weight_decay", 0):
            if not group.get("decoupled_weight_decay"):
                return grad + weight_decay * param
            param *= 1 - group["lr"] * weight_decay
        return grad

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict) -> None:
        """Change `param` in place (`param -= ...`), given its gradient.

        `state` is the parameter's own memory: its `step`, and whatever the rule keeps there.
        `group` holds the hyperparameters.
        """
        raise NotImplementedError
