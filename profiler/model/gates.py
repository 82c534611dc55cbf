"""The two factors of gated neurons: an activation is act(gate) * value, and both have a sign.

Which matrix gives which is asked of the MLP itself: what its writer reads is linear in the value, so it doubles where
the value is doubled, and not where the gate is. The two may be halves of one matrix. An MLP that no such pair is
found in is not gated, or of a form that is not read (routed experts are not). Cost: a few calls of each MLP on three
random rows, when a model is loaded.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from profiler.model.components import Block
from profiler.model.writers import Sources, Writer

ROWS = 3
NEAR = 1e-3
"""Largest relative difference of what is called equal."""


@dataclass(frozen=True)
class Half:
    """One factor: columns of what a module gives.

    Attributes:
        site: the module's path.
        part: which half of its columns, 0 or 1; None takes all.
    """

    site: str
    part: int | None = None

    def of(self, output: Float[Tensor, "*position column"]) -> Float[Tensor, "*position unit"]:
        """The factor in a module's output."""
        return output if self.part is None else output.chunk(2, -1)[self.part]


@dataclass(frozen=True)
class Gate:
    """The factors of a block's neurons; `gate` is that before its nonlinearity."""

    gate: Half
    value: Half


Gates = Mapping[Block, Gate]


class _Read(Exception):
    """What a writer read; ends a call of its MLP."""


@torch.no_grad()
def gates_of(network: nn.Module, sources: Sources) -> dict[Block, Gate]:
    """The gate of each block of neurons that has one which can be read."""
    modules, gates = dict(network.named_modules()), {}
    for writer in sources.writers:
        if writer.block.kind != "neuron" or writer.expert is not None:
            continue
        for gate in _candidates(writer, modules):
            if _is_value(gate.value, writer, modules) and not _is_value(gate.gate, writer, modules):
                gates[writer.block] = gate
                break
    return gates


def _candidates(writer: Writer, modules: dict[str, nn.Module]) -> Iterator[Gate]:
    """Pairs of matrices, and halves of one, that may be a gate and its value."""
    units = writer.block.units
    wide = {
        path: _columns(module)
        for path, module in modules.items()
        if path.startswith(f"{writer.reader}.") and path != writer.site and _columns(module) in (units, 2 * units)
    }
    for path, columns in wide.items():
        if columns == 2 * units:
            yield from (Gate(Half(path, first), Half(path, 1 - first)) for first in (0, 1))
    whole = [path for path, columns in wide.items() if columns == units]
    yield from (Gate(Half(a), Half(b)) for a in whole for b in whole if a != b)


def _columns(module: nn.Module) -> int | None:
    """Columns of what a matrix gives; None of other modules."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != len(("row", "column")):
        return None
    columns = getattr(module, "out_features", getattr(module, "nf", None))
    return columns if isinstance(columns, int) else None


def _is_value(factor: Half, writer: Writer, modules: dict[str, nn.Module]) -> bool:
    """Whether what the writer reads doubles where the factor is doubled."""
    module, mlp = modules[factor.site], modules[writer.reader]
    width = getattr(module, "in_features", getattr(module, "nx", None))
    weight = module.get_parameter("weight")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1, ROWS, width or 0, generator=generator).to(weight.device, weight.dtype)

    def doubled(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        factor.of(changed).mul_(2)
        return changed

    plain = _read(mlp, modules[writer.site], rows)
    handle = module.register_forward_hook(doubled)
    try:
        twice = _read(mlp, modules[writer.site], rows)
    finally:
        handle.remove()
    if plain is None or twice is None or not bool(plain.abs().max() > 0):
        return False
    return bool((twice - 2 * plain).abs().max() <= NEAR * plain.abs().max())


def _read(mlp: nn.Module, writer: nn.Module, rows: Tensor) -> Tensor | None:
    """What the writer of an MLP reads on some rows; None where the MLP cannot be called by itself."""
    left: list[Tensor] = []

    def leave(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        left.append(args[0])
        raise _Read

    handle = writer.register_forward_pre_hook(leave)
    try:
        mlp(rows)
    except _Read:
        return left[0]
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return None
    finally:
        handle.remove()
    return None


def factors_left(gates: Gates, leave: Callable[[str, Tensor], None]) -> dict[str, Callable[..., None]]:
    """Of each module that gives a factor, the hook that leaves what it gives with the pass under way."""

    def hook_of(site: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            leave(site, output)

        return hook

    sites = dict.fromkeys(site for gate in gates.values() for site in (gate.gate.site, gate.value.site))
    return {site: hook_of(site) for site in sites}


def factors(gate: Gate, left: Mapping[str, Tensor], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Gate and value of a block, [window, offset, unit], from what hooks left."""
    return _factor(gate.gate, left, shape), _factor(gate.value, left, shape)


def _factor(factor: Half, left: Mapping[str, Tensor], shape: tuple[int, ...]) -> Float[Tensor, "window offset unit"]:
    return factor.of(left[factor.site].reshape(*shape, -1))
