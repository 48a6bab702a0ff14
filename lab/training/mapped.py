"""Rules that see a matrix, or all parameters, as a whole: mapped over the nets of a stack."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, groupby, pairwise
from typing import Literal, TypeAlias

from lab.training.adapt import MakeOptimizer, make, set_mode
from lab.training.parts import rules_of
from lab.training.proof import Unlike
from lab.training.runs import Training

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.optim import Optimizer

from optimizers.update_rule import Group, State, UpdateRule

Groups: TypeAlias = list[Group]
StepGroup: TypeAlias = Callable[[list[Tensor], list[Tensor], list[State], Group], None]


class Mapped(Optimizer):
    """What moves all nets of a stack, each as its own optimizer would, whatever that does.

    The formula of a rule that is written out is mapped over the nets, by `torch.func.vmap`: a
    parameter has its own shape there, and its gradient, its state and the learning rate are one
    net's. Nets that differ in their rates alone step at once. Outside, there are the param groups
    that an optimizer of one net has, for each group of nets in turn: schedules move these.
    """

    def __init__(
        self,
        matrix: Tensor,
        sizes: Sequence[int],
        net: nn.Module,
        firsts: Sequence[Training],
        make_optimizer: MakeOptimizer,
    ):
        """Take the nets as rows of a matrix: groups of these sizes, and the first training of each.

        A step finds the gradients in `matrix.grad`. `net` gives names and shapes.
        """
        made = [first.make_optimizer(make_optimizer, net).param_groups for first in firsts]
        ends = [0, *accumulate(sizes)]
        self.bunches = []
        for _, same in groupby(range(len(made)), lambda k: [without_lr(g) for g in made[k]]):
            some = list(same)
            rows = slice(ends[some[0]], ends[some[-1] + 1])
            rules = rules_of(firsts[some[0]].make_optimizer(make_optimizer, net))
            if not rules:
                raise Unlike  # and why it is not a stack has been said
            outside = [made[k] for k in some]
            own_sizes = [sizes[k] for k in some]
            self.bunches.append(Bunch(matrix, rows, net, rules, outside, own_sizes))
        super().__init__([{"params": [torch.zeros(1)]}], {})
        for groups, (start, stop) in zip(made, pairwise(ends), strict=True):
            for group in groups:
                group["params"] = [matrix[start:stop]]
        # The first group of every net comes before the second of any.
        self.param_groups = [group for groups in zip(*made, strict=True) for group in groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        with torch.enable_grad():
            loss = closure()
        for bunch in self.bunches:
            bunch.step()
        return loss

    def train(self) -> None:
        self.set_modes("train")

    def eval(self) -> None:
        self.set_modes("eval")

    def set_modes(self, mode: Literal["train", "eval"]) -> None:
        for bunch in self.bunches:
            for rule in bunch.rules:
                set_mode(rule, mode)


def ways(make_optimizer: MakeOptimizer) -> list[bool]:
    """Return whether to map an optimizer's rule over the nets of a stack, in the order to try.

    A rule that treats each element for itself moves two parameters as one that holds the elements
    of both. It may take a stack's as one, which is quicker. Others would take that for a matrix.
    """
    start, *grads = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()
    ends: list[Tensor] = []
    for parts in ([start[:4].view(2, 2), start[4:]], [start]):
        params: list[Tensor] = [nn.Parameter(part.clone()) for part in parts]
        try:
            with torch.random.fork_rng(devices=[]):
                optimizer = make(make_optimizer, params, 0.01)
                if not rules_of(optimizer):
                    return [False]
                set_mode(optimizer, "train")
                for grad in grads:
                    own = grad.split([param.numel() for param in params])
                    for param, values in zip(params, own, strict=True):
                        param.grad = values.view_as(param)
                    optimizer.step()
        except Exception:  # it does not take these
            return [True] if ends else [False, True]
        ends.append(torch.cat([param.detach().flatten() for param in params]))
    is_alike = torch.allclose(ends[0], ends[1], rtol=1e-9)
    return [False, True] if is_alike else [True]


def without_lr(group: Group) -> Group:
    """Return a group's other hyperparameters."""
    return {name: value for name, value in group.items() if name not in ("params", "lr")}


class Bunch:
    """Nets that differ in their learning rates alone, and the rules that move them."""

    def __init__(
        self,
        matrix: Tensor,
        rows: slice,
        net: nn.Module,
        rules: list[UpdateRule],
        outside: Sequence[Groups],
        sizes: Sequence[int],
    ):
        """Have the rules, made for `net`, move these rows: with the settings of `outside`.

        There are the param groups of each `sizes` nets.
        """
        self.matrix, self.rows, self.rules = matrix, rows, rules
        self.outside, self.sizes = outside, torch.tensor(sizes)
        params: list[Tensor] = list(net.parameters())
        self.columns = [param.numel() for param in params]
        self.params = [
            column.view(-1, *param.shape)
            for column, param in zip(matrix[rows].split(self.columns, 1), params, strict=True)
        ]
        of_all = dict(zip(params, self.params, strict=True))
        for rule in rules:
            for group in rule.param_groups:
                group["params"] = [of_all[param] for param in group["params"]]
            states = {of_all[param]: state for param, state in rule.state.items()}
            rule.state = defaultdict(
                dict, {param: of_each_net(s, len(param)) for param, s in states.items()}
            )
            vars(rule)["step_group"] = partial(step_of_each, rule.step_group)

    def step(self) -> None:
        """Take a step with the gradients and the settings of the moment."""
        assert self.matrix.grad is not None
        for param, grad in zip(
            self.params, self.matrix.grad[self.rows].split(self.columns, 1), strict=True
        ):
            param.grad = grad.view(param.shape)
        inside = [group for rule in self.rules for group in rule.param_groups]
        for group, *groups in zip(inside, *self.outside, strict=True):
            group |= without_lr(groups[0])
            if "lr" in group:
                lrs = torch.tensor([float(one["lr"]) for one in groups], dtype=torch.float64)
                group["lr"] = lrs.repeat_interleave(self.sizes).to(self.matrix.device)
        for rule in self.rules:
            rule.step()


def of_each_net(state: State, n_nets: int) -> State:
    """Return what a constructor has put into a parameter's state, once for each net."""
    return {
        name: value.expand(n_nets, *value.shape).clone() if isinstance(value, Tensor) else value
        for name, value in state.items()
    }


def step_of_each(
    step_group: StepGroup,
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    group: Group,
) -> None:
    """Do what `step_group` does for every net: tensors, the lr too, have a row for each.

    What a state holds beside tensors, as the number of a step, is the same for all nets.
    """
    lr = {"lr": group["lr"]} if "lr" in group else {}
    others: list[State] = []

    def step_of_one(
        params: list[Tensor], grads: list[Tensor], tensors: list[State], lr: Group
    ) -> list[State]:
        own = [state | kept for state, kept in zip(states, tensors, strict=True)]
        step_group(params, grads, own, group | lr)
        others.extend(tensors_and_rest(state)[1] for state in own)
        return [tensors_and_rest(state)[0] for state in own]

    tensors = vmap(step_of_one)(params, grads, [tensors_and_rest(state)[0] for state in states], lr)
    for state, kept, rest in zip(states, tensors, others, strict=True):
        state |= kept | rest


def tensors_and_rest(state: State) -> tuple[State, State]:
    """Return what of a state is a tensor, and what is not."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in state.items() if name not in tensors}
