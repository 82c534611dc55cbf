"""One number about one claim on one distribution: what every technique returns and the evidence ledger is made of. No
torch.

Why: faithfulness, coverage, a replacement and a counter-example rate come from different modules and must stand in one
table, each with its interval, the number of examples that it rests on, and the null that it is compared with.
Cost: none, plain data.
"""

from dataclasses import dataclass
from typing import Literal

Technique = Literal[
    "faithfulness",
    "necessity",
    "corpus faithfulness",
    "coverage",
    "mixture",
    "self-repair",
    "replacement",
    "weights",
    "counter-examples",
    "edits",
    "swaps",
    "trend",
]
"""How a number was come by."""

Unit = Literal["prompts", "documents", "positions", "components"]

FEWEST = 20
"""Fewest prompts, documents or positions that a rate is given for; below it a finding is refused."""


@dataclass(frozen=True)
class Setting:
    """The six choices behind a causal number (Miller et al. 2024, "Transformer circuit faithfulness metrics are not
    robust").

    Empty strings stand for choices that a technique does not have.
    """

    granularity: str = ""
    components: str = ""
    ablation: str = ""
    positions: str = ""
    direction: str = ""
    set: str = ""


@dataclass(frozen=True)
class Finding:
    """One number about a claim.

    Attributes:
        subject: the circuit's name, or the label of one component.
        role: what is claimed of the component; empty for the circuit as a whole.
        technique: how the number was come by.
        distribution: name of the distribution it holds for.
        statistic: name of the number, in the words of the technique's module.
        value, lo, hi: estimate and 95 % interval in the statistic's unit; all None where refused.
        n, unit: how many independent examples it rests on, and of what.
        null, null_hi: the same number for the null (random circuits, scrambled roles, matched components): its mean,
        and
            its 95th percentile; None where there is none.
        p: one-sided p-value against the null; None where there is none.
        setting: the six choices of a causal number.
        shares: names of what other findings may have in common with it: data, or gradients.
        refused: why no number is given; empty otherwise.
        general_form_of: the circuit's own words, where they name places of prompts and `role` is what they would be if
          they
            were claimed of every position; empty where `role` is what the circuit claims.
    """

    subject: str
    role: str
    technique: Technique
    distribution: str
    statistic: str
    value: float | None
    lo: float | None
    hi: float | None
    n: int
    unit: Unit
    null: float | None = None
    null_hi: float | None = None
    p: float | None = None
    setting: Setting = Setting()
    shares: tuple[str, ...] = ()
    refused: str = ""
    general_form_of: str = ""


def refused(
    subject: str, role: str, technique: Technique, distribution: str, statistic: str, n: int, unit: Unit, why: str
) -> Finding:
    """A finding without a number, and why there is none."""
    return Finding(subject, role, technique, distribution, statistic, None, None, None, n, unit, refused=why)
