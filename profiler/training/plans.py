"""What is trained and how: the model's shape and the schedule, as plain data.

Why: a schedule that depends on the step alone (not on the clock) lets a run stop and continue anywhere with the same
result. The curriculum begins with short windows, half of them repeated random tokens, which bring induction heads;
most of the budget then goes to ordinary text in longer windows. Cost: none.
"""

from dataclasses import dataclass
from typing import Literal

from profiler.training.mixture import Shares


@dataclass(frozen=True)
class Shape:
    """Size of a GPT-NeoX model (sequential residual, rotary positions on whole heads, tied embeddings).

    Attributes:
        width: residual stream; a multiple of `heads`.
        layers, heads: attention and MLP blocks, and heads in each.
        vocabulary: number of token ids asked of the tokenizer.
        context: longest window, in tokens.
    """

    width: int
    layers: int
    heads: int
    vocabulary: int
    context: int


@dataclass(frozen=True)
class Phase:
    """A stretch of the curriculum, until this fraction of all steps."""

    until: float
    context: int
    windows: int
    shares: Shares


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run's result.

    Attributes:
        shape, phases: see there; the last phase's `until` is 1.
        steps: optimizer steps in all.
        peak: learning rate after `warmup` steps; constant until fraction `decay_from`, then falling in a straight
            line to `floor` times the peak.
        betas, weight_decay, clip: AdamW's, and the largest gradient norm. Decay is on matrices only.
        precision: of the forward and backward pass; weights and optimizer state are always float32.
        seed: of initial weights and windows.
        checkpoint_every: steps between checkpoints.
    """

    shape: Shape
    phases: tuple[Phase, ...]
    steps: int
    peak: float = 2e-3
    warmup: int = 150
    decay_from: float = 0.55
    floor: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    seed: int = 0
    checkpoint_every: int = 250

    def phase(self, step: int) -> Phase:
        """The phase that a step belongs to."""
        return next(p for p in self.phases if step < p.until * self.steps or p is self.phases[-1])

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step (counted from 0)."""
        left = (1 - step / self.steps) / (1 - self.decay_from)
        return self.peak * min(1, (step + 1) / self.warmup) * max(self.floor, min(1, left))


PLANS = {
    "bundled": Plan(
        shape=Shape(width=256, layers=4, heads=8, vocabulary=2944, context=256),
        phases=(
            Phase(0.15, 64, 32, Shares(repeats=0.5)),
            Phase(0.30, 128, 16, Shares(repeats=0.25)),
            Phase(0.50, 128, 24, Shares(repeats=0.15)),
            Phase(1.00, 256, 16, Shares(repeats=0.10)),
        ),
        steps=11_000,
    ),
    "tiny": Plan(
        shape=Shape(width=32, layers=2, heads=2, vocabulary=800, context=32),
        phases=(Phase(0.5, 16, 4, Shares(repeats=0.5)), Phase(1.0, 32, 4, Shares(repeats=0.2))),
        steps=12,
        warmup=2,
        precision="float32",
        checkpoint_every=4,
    ),
}
"""Plans by name: the model that ships, and one for tests."""
