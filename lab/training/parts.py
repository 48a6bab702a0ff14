"""Two optimizers as one: one for the weight matrices of hidden layers, one for all the rest."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

from lab.training.adapt import set_mode

import torch
from torch import nn
from torch.optim import Optimizer

import optimizers
from optimizers.update_rule import Group, UpdateRule


class Parts(Optimizer):
    """Two optimizers that step as one.

    Its param groups are those of the first, then those of the second, and each parameter's state is
    where either keeps it. So schedules and `state_dict` know no difference. A closure is called
    once, before both step. A group that is added goes to the second.
    """

    def __init__(self, first: Optimizer, second: Optimizer):
        super().__init__([*first.param_groups, *second.param_groups], {})
        self.parts = first, second
        self.state.update({**first.state, **second.state})
        self.share()

    def share(self) -> None:
        """Have both work with the groups and the state that this one holds."""
        first, second = self.parts
        n_first = len(first.param_groups)
        first.param_groups, second.param_groups = (
            self.param_groups[:n_first],
            self.param_groups[n_first:],
        )
        first.state = second.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of both; return the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            step: Callable[[], object] = part.step
            step()
        return loss

    def add_param_group(self, param_group: Group) -> None:
        super().add_param_group(param_group)
        if hasattr(self, "parts"):
            self.parts[1].add_param_group(param_group)

    def train(self) -> None:
        self.set_modes("train")

    def eval(self) -> None:
        self.set_modes("eval")

    def set_modes(self, mode: Literal["train", "eval"]) -> None:
        for part in self.parts:
            set_mode(part, mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # as it is called by load_state_dict, too
        self.share()


def hidden_matrices(net: nn.Module) -> list[int]:
    """Return which of the net's parameters are weight matrices of hidden layers.

    All matrices are that are trained, but those of embeddings and that of the last layer, the head:
    as K. Jordan has it in "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    embeddings = [
        module.weight
        for module in net.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
    ]
    # A head that is an embedding, too, stands twice: here its second place counts.
    weights = [p for _, p in net.named_parameters(remove_duplicate=False) if p.ndim > 1]
    apart = {id(param) for param in [*embeddings, *weights[-1:]]}
    return [
        k
        for k, p in enumerate(net.parameters())
        if p.ndim == 2 and p.requires_grad and id(p) not in apart
    ]


def rules_of(optimizer: Optimizer) -> list[UpdateRule]:
    """Return the rules that an optimizer has, written out; none if it is something else.

    A class of torch.optim has that of the same name in optimizers/, with its param groups.
    """
    if isinstance(optimizer, Parts):
        rules = [rules_of(part) for part in optimizer.parts]
        return rules[0] + rules[1] if all(rules) else []
    if f"{type(optimizer).__module__}.".startswith("torch.optim."):
        make: Any = getattr(optimizers, type(optimizer).__name__)
        optimizer = make([dict(group) for group in optimizer.param_groups])
    as_written = inspect.unwrap(type(optimizer).step) is inspect.unwrap(UpdateRule.step)
    return [optimizer] if isinstance(optimizer, UpdateRule) and as_written else []
