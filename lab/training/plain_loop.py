"""The loop that a stack knows: is that of training.py still the same?"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any

import training

PLAIN = """
for _ in range(epochs):
    for x, y in loader:

        def closure():
            optimizer.zero_grad()
            loss = loss_function(net(x), y)
            loss.backward()
            return loss

        returned: Any = optimizer.step(closure)
        loss = returned.item()
        yield loss
        if not math.isfinite(loss):
            return
"""


def loop_is_plain() -> bool:
    """Tell whether `training.train` is the loop above, but for comments and layout.

    A stack has a loop of its own. So nets are trained one by one, as the loop is written, as soon
    as a line of it is another.
    """
    return statements_of(training.train) == ast.unparse(ast.parse(PLAIN))


@cache
def statements_of(function: Callable[..., Any]) -> str:
    """Return what a function does, written in one way whatever its layout; nothing if unknown."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # no file has it
        return ""
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    if ast.get_docstring(definition):
        definition.body.pop(0)
    return ast.unparse(ast.Module(definition.body, type_ignores=[]))
