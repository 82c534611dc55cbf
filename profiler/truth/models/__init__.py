"""The models written by hand, by name: what is in each module is a few lines of weights and of plain Python."""

from collections.abc import Callable, Sequence

from profiler.errors import CircuitError
from profiler.truth.models import copying, counting, gates
from profiler.truth.sketch import HandModel

MODELS: dict[str, Callable[[], HandModel]] = {**gates.MODELS, **copying.MODELS, **counting.MODELS}
"""Every model, simplest first."""


def hand_models(names: Sequence[str] = ()) -> list[HandModel]:
    """The models of these names; all of them for none.

    Raises:
        CircuitError: there is no such model.
    """
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise CircuitError(f"there is no model {unknown[0]!r} with a known circuit: choose {', '.join(MODELS)}")
    return [MODELS[name]() for name in names or MODELS]
