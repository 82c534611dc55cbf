"""Corruption schemes as factors of one design: every combination of them, made of the same clean prompt. No torch.

Why: one scheme shows that a component moves, not what it listens to: a head that follows the name and one that follows
the place of the name both move when the names are swapped. Crossing the schemes tells them apart (Wang et al. 2022,
appendix A, cross token and position signals for the S-inhibition heads; the essay's advice to isolate circuits one at a
time by several corruptions). A factor has levels, the first of which changes nothing; schemes that exclude each other
are levels of one factor. A cell is one level of each factor. What is made of the responses is in
`profiler.patching.factorial`.

Cost: none, plain data.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from profiler.prompts.pairs.pair import Pair, Prompt

ASIS = ""
Cell = tuple[str, ...]


@dataclass(frozen=True)
class Factor:
    """Corruptions that exclude each other, such as `swapped` and `abc`; the level ASIS comes before them."""

    changes: tuple[str, ...]

    @property
    def levels(self) -> tuple[str, ...]:
        """Nothing, then each change."""
        return (ASIS, *self.changes)


def cells(factors: Sequence[Factor]) -> list[Cell]:
    """Every combination of levels, the last factor varying fastest; the first changes nothing."""
    return list(itertools.product(*(factor.levels for factor in factors)))


def cell_name(cell: Cell) -> str:
    """The changes of a cell, such as `s_only + swapped`."""
    return " + ".join(level for level in cell if level) or "as it is"


def changes(cell: Cell) -> frozenset[str]:
    """The changes of a cell as a set."""
    return frozenset(level for level in cell if level)


def crossed(clean: Pair, factors: Sequence[Factor], corrupt: Callable[[frozenset[str]], Prompt]) -> tuple[Pair, ...]:
    """A clean prompt with all its corruptions: a pair for each cell but the first.

    Args:
        clean: whose prompt, answers and roles every pair has; its corrupted prompt is not used.
        corrupt: the prompt with some changes made.
    """
    return tuple(
        replace(
            clean,
            name=f"{clean.name}/{cell_name(cell)}",
            scheme=cell_name(cell),
            corrupted=corrupt(changes(cell)),
            symmetric=False,
        )
        for cell in cells(factors)[1:]
    )
