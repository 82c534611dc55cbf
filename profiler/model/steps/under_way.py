"""What the hooks of a network do in the call under way: what they give to whom, what they put in, where they stop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from profiler.model.steps.network import Edit, Offsets, unchanged

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]
"""Of each layer the arguments that it is called with."""


class Reached(Exception):
    """A layer has come as far as it was asked to."""

    def __init__(self, value: Tensor):
        self.value = value


@dataclass
class LayerCall:
    """What hooks do in the call under way; nothing where `layer` is -1 and no calls are collected.

    Attributes:
        layer: the layer that is called.
        rows: of the residual stream it is called with.
        edit: what each site's value is given to.
        ends: offsets at which the MLP is computed alone; `local_ends` are the same, counted from the stream's first.
        given: of sites, the values that are put in.
        until: the site at which the layer stops.
        patterns: whether the edit is to see attention patterns.
        calls: where each layer leaves what it is called with, instead of doing its work.
    """

    layer: int = -1
    rows: int = 0
    edit: Edit = unchanged
    ends: Offsets = None
    local_ends: Offsets = None
    given: dict[str, Tensor] = field(default_factory=dict)
    until: str | None = None
    patterns: bool = False
    calls: Calls | None = None

    @contextmanager
    def being(self, **values: Any) -> Iterator[None]:
        """Act so for a while."""
        vars(self).update(vars(LayerCall()) | values)
        try:
            yield
        finally:
            vars(self).update(vars(LayerCall()))
