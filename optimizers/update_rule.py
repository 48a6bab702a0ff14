"""The base class: all that the optimizers have in common."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

State = dict[str, Any]  # what an optimizer remembers of one parameter
Group = dict[str, Any]  # a param group: its hyperparameters, and its parameters under "params"

NOT_NEGATIVE = "lr eps initial_accumulator_value lr_decay momentum momentum_decay weight_decay"


class UpdateRule(torch.optim.Optimizer):
    """What all optimizers do in the same way: a subclass adds only its formula, `update`.

    For each parameter that has a gradient, `step` counts the step, changes the sign of the gradient
    if the group's `maximize` is set, applies its `weight_decay`, and calls `update`. Learning rates
    may be 0-dim tensors. Gradients have to be real and dense, or real and sparse if the class sets
    `takes_sparse_gradients`; others raise RuntimeError.
    """

    takes_sparse_gradients = False
    is_exact = True  # False where rounding errors grow: in bfloat16, or among eigenvectors

    def __init__(self, params: ParamsT, defaults: dict[str, Any]):
        """Take parameters or param groups, and the default of each hyperparameter by its name.

        Raises ValueError for a value out of range.
        """
        lr = defaults.get("lr")
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"Invalid lr value: {lr} does not have exactly one element")
        for name in NOT_NEGATIVE.split():
            value = defaults.get(name, 0)
            parts = value if isinstance(value, tuple) else (value,)
            if not all(part is None or part >= 0 for part in parts):
                raise ValueError(f"Invalid {name} value: {value}")
        if not all(0 <= beta < 1 for beta in defaults.get("betas", ())):
            raise ValueError(f"Invalid betas value: {defaults['betas']}")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return the closure's loss, if one is given.

        The closure clears the gradients, computes the loss, calls its `backward()` and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            grads = [param.grad for param in params]
            self.step_group(params, grads, [self.state[param] for param in params], group)
        return loss

    def step_group(
        self, params: list[Tensor], grads: list[Any], states: list[State], group: Group
    ) -> None:
        """Update the parameters of a group, each for itself: a rule that couples them overrides it.

        Nothing else may be changed than `params` and `states`, in place.
        """
        for param, grad, state in zip(params, grads, states, strict=True):
            self._step_one(param, grad, state, group)

    def _step_one(self, param: Tensor, grad: Tensor, state: State, group: Group) -> None:
        if grad.is_sparse != self.takes_sparse_gradients or grad.is_complex():
            kind = "sparse" if self.takes_sparse_gradients else "dense"
            raise RuntimeError(f"{type(self).__name__} takes {kind}, real gradients only")
        state["step"] = state.get("step", 0) + 1
        if group.get("maximize"):
            grad = -grad
        self.update(param, self.apply_weight_decay(param, grad, group), state, group)

    def apply_weight_decay(self, param: Tensor, grad: Tensor, group: Group) -> Tensor:
        """Return the gradient with the weight decay added.

        If the group sets `decoupled_weight_decay`, shrink `param` instead; the gradient stays.
        """
        if weight_decay := group.get("weight_decay", 0):
            if not group.get("decoupled_weight_decay"):
                return grad + weight_decay * param
            param.copy_(param * (1 - group["lr"] * weight_decay))
        return grad

    def update(self, param: Tensor, grad: Tensor, state: State, group: Group) -> None:
        """Change `param` in place (`param -= ...`), given its gradient.

        `state` is the parameter's own memory: it holds `step`, counted from 1, and all that the
        formula keeps for the next step. `group` holds the hyperparameters.
        """
        raise NotImplementedError
