"""Changes of components in a forward pass: a head or neuron removed, scaled or set, and everything after it computed
again.

A change acts where the writer of the component's block reads: on what a head mixed, on a neuron's activation, on a
channel of a mixer. So it works in every model that is recorded, and what comes after sees it. Cost: none beside the
pass.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from profiler.errors import ComponentError
from profiler.model.components import ComponentId, parse_label
from profiler.model.load import Model
from profiler.model.writers import Writer


@dataclass(frozen=True)
class Change:
    """What is done to a component at every position.

    Attributes:
        component: a head, neuron or channel.
        factor: what its value is multiplied by: 0 removes it.
        value: what its activation is set to afterwards; None leaves it.
    """

    component: ComponentId
    factor: float = 1.0
    value: float | None = None

    @property
    def described(self) -> str:
        """The change in words: "L2H1 removed", "L1N3 times 2", "L1N3 set to 5"."""
        if self.value is not None:
            return f"{self.component.label} set to {self.value:g}"
        return (
            f"{self.component.label} removed" if self.factor == 0 else f"{self.component.label} times {self.factor:g}"
        )


def read_changes(
    remove: Sequence[str] = (), scale: Sequence[str] = (), set_to: Sequence[str] = ()
) -> tuple[Change, ...]:
    """Changes as they are written on a command line: `L2H1`, `L2H1=0.5`, `L1N3=5`.

    Raises:
        ComponentError: one cannot be read, or two are of one component.
    """
    changes = [Change(parse_label(label.strip()), factor=0.0) for label in remove]
    changes += [Change(component, factor=number) for component, number in map(_pair, scale)]
    changes += [Change(component, factor=0.0, value=number) for component, number in map(_pair, set_to)]
    named = [change.component for change in changes]
    if len(set(named)) < len(named):
        double = next(component for component in named if named.count(component) > 1)
        raise ComponentError(f"{double.label} is changed twice: name it once")
    return tuple(changes)


def _pair(text: str) -> tuple[ComponentId, float]:
    label, _, number = text.partition("=")
    try:
        return parse_label(label.strip()), float(number)
    except ValueError:
        raise ComponentError(f"{text!r} cannot be read: write a component and a number, such as L2H1=0.5") from None


@contextmanager
def changed(model: Model, changes: Sequence[Change]) -> Iterator[None]:
    """Have every forward pass of the block make these changes.

    Raises:
        ComponentError: the model lacks a component, it is a neuron of an expert, an embedding or a bias, or a head is
            to be set.
    """
    writers = {change.component: _writer_of(model, change) for change in changes}
    with ExitStack() as hooks:
        for change in changes:
            module = model.network.get_submodule(writers[change.component].site)
            hook = _hook(change, writers[change.component])
            hooks.callback(module.register_forward_pre_hook(hook, prepend=True).remove)
        yield


def _writer_of(model: Model, change: Change) -> Writer:
    component = change.component
    writer = model.weights.writers[model.spec.block_of(component)]
    if writer.expert is not None:
        raise ComponentError(
            f"{component.label} is a neuron of an expert, whose values never leave its module: it cannot be changed"
        )
    if change.value is not None and writer.width > 1:
        raise ComponentError(
            f"{component.label} is a head: what it mixes is a vector of {writer.width} numbers, which cannot be set to"
            " one; remove it or scale it"
        )
    return writer


def _hook(change: Change, writer: Writer) -> Any:
    unit = change.component.unit or 0
    own = slice(unit * writer.width, (unit + 1) * writer.width)

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = args[0].clone()
        values[..., own] = values[..., own] * change.factor + (change.value or 0.0)
        return (values, *args[1:])

    return hook
