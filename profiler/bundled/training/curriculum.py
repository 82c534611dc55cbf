"""What is trained and how: the model's shape and the schedule, as plain data.

Why: a schedule that depends on the step alone (not on the clock) lets a run stop and continue anywhere with the same
result. The curriculum begins with short windows, half of them repeated random tokens, which bring induction heads;
most of the budget then goes to ordinary text in longer windows. Cost: none.
"""

from dataclasses import dataclass
from typing import Literal

from profiler.bundled.training.mixture import MixtureShares


@dataclass(frozen=True)
class ModelShape:
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
    """A stretch of the curriculum.

    Attributes:
        until: first step that is no longer part of it; the last phase goes on to the end of the run.
        context, windows: tokens in a window, and windows in a step.
        shares: what the windows are made of.
        rate: learning rate, before warm-up and decay.
        first_copies: whether the loss counts the first copy of random segments, which nothing can predict. Without
            it the gradient has less noise; with it the model stays calibrated on what it cannot know.
        loose: how freely the wordings of task texts are changed (see `Mixture.batch`).
    """

    until: int
    context: int
    windows: int
    shares: MixtureShares
    rate: float
    first_copies: bool = True
    loose: float = 0.0


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides a run's result.

    Attributes:
        shape, phases: see there.
        steps: optimizer steps in all.
        warmup: steps over which the learning rate rises from zero.
        decay_from: fraction of all steps after which the rate falls in a straight line, to `floor` times itself.
        betas, weight_decay, clip: AdamW's, and the largest gradient norm. Decay is on matrices only.
        precision: of the forward and backward pass; weights and optimizer state are always float32.
        seed: of initial weights and windows.
        checkpoint_every: steps between checkpoints.
    """

    shape: ModelShape
    phases: tuple[Phase, ...]
    steps: int
    warmup: int = 150
    decay_from: float = 0.6
    floor: float = 0.001
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    seed: int = 0
    checkpoint_every: int = 250

    def phase(self, step: int) -> Phase:
        """The phase that a step (counted from 0) belongs to."""
        return next((p for p in self.phases if step < p.until), self.phases[-1])

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step (counted from 0)."""
        left = (1 - step / self.steps) / (1 - self.decay_from)
        return self.phase(step).rate * min(1, (step + 1) / self.warmup) * max(self.floor, min(1, left))


PLANS = {
    "bundled": TrainingPlan(
        shape=ModelShape(width=256, layers=4, heads=8, vocabulary=2944, context=256),
        phases=(
            Phase(1_650, 64, 32, MixtureShares(repeats=0.5), 2e-3),
            Phase(2_750, 128, 16, MixtureShares(repeats=0.25), 2e-3),
            Phase(3_417, 64, 32, MixtureShares(repeats=0.5), 0.7e-3),
            Phase(4_500, 64, 32, MixtureShares(repeats=0.5), 1.2e-3),
            Phase(5_000, 64, 32, MixtureShares(repeats=0.5), 2e-3, first_copies=False),
            Phase(6_000, 128, 24, MixtureShares(repeats=0.2), 1.5e-3, first_copies=False),
            Phase(6_250, 256, 16, MixtureShares(repeats=0.10), 1.2e-3),
            Phase(7_500, 256, 16, MixtureShares(repeats=0.10, ioi=0.18, docstring=0.11), 1.1e-3, loose=0.3),
            Phase(9_000, 128, 32, MixtureShares(repeats=0.08, ioi=0.24), 0.7e-3, loose=0.4),
            Phase(
                10_250,
                128,
                32,
                MixtureShares(repeats=0.14, ioi=0.36, docstring=0.07, sequences=0.03),
                0.4e-3,
                loose=0.4,
            ),
            Phase(
                12_050,
                128,
                32,
                MixtureShares(repeats=0.10, ioi=0.40, docstring=0.06, sequences=0.03),
                0.3e-3,
                loose=0.4,
            ),
            Phase(
                12_150,
                128,
                32,
                MixtureShares(repeats=0.10, ioi=0.30, docstring=0.08, sequences=0.03),
                0.1e-3,
                loose=0.4,
            ),
            Phase(
                13_500,
                128,
                32,
                MixtureShares(repeats=0.10, ioi=0.35, docstring=0.08, sequences=0.03),
                1.2e-3,
                loose=0.4,
            ),
            Phase(16_750, 128, 32, MixtureShares(0.10, 0.36, 0.08, 0.02, mentions=0.06), 1.2e-3, loose=0.6),
        ),
        steps=16_750,
        decay_from=0.8,
    ),
    "tiny": TrainingPlan(
        shape=ModelShape(width=32, layers=2, heads=2, vocabulary=800, context=32),
        phases=(Phase(6, 16, 4, MixtureShares(repeats=0.5), 2e-3), Phase(12, 32, 4, MixtureShares(repeats=0.2), 1e-3)),
        steps=12,
        warmup=2,
        precision="float32",
        checkpoint_every=4,
    ),
}
"""Plans by name: the model that ships, and one for tests."""
