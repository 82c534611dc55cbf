"""What changes the numbers of a pass of total effects: methods, references, sizes of samples. No torch here."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from profiler.errors import ProfilerError

Method = str
METHODS: tuple[Method, ...] = ("gradient", "frozen", "integrated")
Reference = Literal["zero", "mean"]
REFERENCES: tuple[Reference, ...] = ("zero", "mean")
LEAST = {
    "tokens": 1,
    "integrated_tokens": 1,
    "steps": 1,
    "checked": 0,
    "checked_windows": 2,
    "repair": 0,
    "routes": 0,
    "seed": 0,
}
"""Least values of the numbers."""


@dataclass(frozen=True)
class EffectSettings:
    """Everything that changes the numbers of a pass of total effects.

    Attributes:
        methods: `gradient`: the gradient at what the model did; `frozen`: the same with attention patterns and
            denominators of norms held; `integrated`: averaged along the way of a block from its reference to what it
            did (Sundararajan et al. 2017), which sees what a saturated softmax hides; of heads.
        tokens: tokens of the run's text to read, in windows chosen by hash; None reads what the run read.
        integrated_tokens: the same for `integrated`, whose cost is steps * blocks * references as large.
        steps: points along the way of `integrated`.
        checked: ablations of each block and method that estimates are held against; 0 makes none.
        checked_windows: windows that these are drawn from.
        repair: positions of each head at which self-repair is measured; 0 measures none.
        routes: heads, those of the largest total effect, whose effect is split over later components; 0 splits none.
        seed: of every draw.
    """

    methods: tuple[Method, ...] = ("gradient", "integrated")
    tokens: int | None = 20_000
    integrated_tokens: int = 4_000
    steps: int = 8
    checked: int = 24
    checked_windows: int = 12
    repair: int = 16
    routes: int = 8
    seed: int = 0

    def as_facts(self) -> dict[str, Any]:
        """As plain values, for the run."""
        return asdict(self)


def refuse_bad(settings: EffectSettings) -> None:
    """Refuse settings out of range.

    Raises:
        ProfilerError: a number is too small, or a method is unknown or missing.
    """
    unknown = [name for name in settings.methods if name not in METHODS]
    if unknown or not settings.methods:
        raise ProfilerError(
            f"methods {', '.join(map(repr, unknown)) or 'none'} cannot be used: choose among {', '.join(METHODS)}"
        )
    for name, least in LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ProfilerError(f"{name} {value} is too few: give {least} or more")
