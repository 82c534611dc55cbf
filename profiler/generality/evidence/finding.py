"""One number about one claim on one distribution: what every technique returns and the evidence ledger is made of.

Why: faithfulness, coverage, a replacement and a counter-example rate come from different modules and must stand in one
table, each with its interval, the number of examples that it rests on, and the null that it is compared with. A
technique is asked a `Question` and answers with `question.finding(...)` or `question.refused(...)`; a stage of a check
returns a `StageResult`. No torch. Cost: none, plain data.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from profiler.generality.evidence.thresholds import DEFAULT, Thresholds

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
"""How a number was measured."""

Unit = Literal["prompts", "documents", "positions", "components"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval (None where there is none) over `n` independent units."""

    value: float
    lo: float | None
    hi: float | None
    n: int


@dataclass(frozen=True)
class Null:
    """The same number for what a claim is compared with (random circuits, other heads, control edits).

    Attributes:
        mean: its mean; None where only the p value is known.
        hi: its 95th percentile; None where there is none.
        p: one-sided p-value against it; None where there is none.
        p_least: the smallest p that this null can give; None where it is not limited.
        near: by how much the best 5 % of them fall short, for numbers that are best at 1: |1 - value|, or by what
            their necessity is less where that was measured and is more; None for others.
        distance: the mean of |1 - value| over them; None as `near`.
        n: random circuits or components behind it; None where it is not made of such.
    """

    mean: float | None = None
    hi: float | None = None
    p: float | None = None
    p_least: float | None = None
    near: float | None = None
    distance: float | None = None
    n: int | None = None


NO_NULL = Null()


@dataclass(frozen=True)
class CausalChoices:
    """The six choices behind a causal number.

    Source: Miller et al. 2024, "Transformer circuit faithfulness metrics are not robust".

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
        technique: how the number was measured.
        distribution: name of the distribution it holds for.
        statistic: name of the number, in the words of the technique's module.
        value, lo, hi: estimate and 95 % interval in the statistic's unit; all None where refused.
        n, unit: how many independent examples it rests on, and of what.
        null, null_hi: the same number for the null (random circuits, scrambled roles, matched components): its mean,
            and its 95th percentile; None where there is none.
        p: one-sided p-value against the null; None where there is none.
        p_least: the smallest p that the null can give; None where there is none.
        null_near, null_distance: where 1 is the best value, by how much the best 5 % of the null fall short (see Null),
            and its mean |1 - value|; None elsewhere.
        null_n: random circuits or components of the null; None where it is not made of such.
        choices: the six choices of a causal number.
        shares: names of what other findings may have in common with it: data, or gradients.
        refused: why no number is given; empty otherwise.
        general_form_of: the circuit's own words, where they name positions of prompts and `role` is what they would be
            if they were claimed of every position; empty where `role` is what the circuit claims.
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
    choices: CausalChoices = CausalChoices()
    shares: tuple[str, ...] = ()
    refused: str = ""
    general_form_of: str = ""
    p_least: float | None = None
    null_near: float | None = None
    null_distance: float | None = None
    null_n: int | None = None

    @property
    def estimate(self) -> float:
        """The value.

        Raises:
            ValueError: there is none.
        """
        return self._known(self.value)

    @property
    def lower(self) -> float:
        """The lower bound of the interval; raises ValueError where there is none."""
        return self._known(self.lo)

    @property
    def upper(self) -> float:
        """The upper bound of the interval; raises ValueError where there is none."""
        return self._known(self.hi)

    def _known(self, number: float | None) -> float:
        if number is None:
            raise ValueError(f"{self.statistic} of {self.subject} on {self.distribution} has no such number")
        return number


@dataclass(frozen=True)
class Question:
    """What one technique is asked about one claim on one distribution; it makes the findings that answer it.

    Attributes:
        subject, role, technique, distribution, unit, choices, shares, general_form_of: as in Finding.
        thresholds: what decides.
    """

    subject: str
    role: str
    technique: Technique
    distribution: str
    unit: Unit
    choices: CausalChoices = CausalChoices()
    shares: tuple[str, ...] = ()
    general_form_of: str = ""
    thresholds: Thresholds = DEFAULT

    def finding(self, statistic: str, measured: Interval, null: Null = NO_NULL) -> Finding:
        """The answer: a number with its interval, beside the null where there is one."""
        return Finding(
            self.subject,
            self.role,
            self.technique,
            self.distribution,
            statistic,
            measured.value,
            measured.lo,
            measured.hi,
            measured.n,
            self.unit,
            null.mean,
            null.hi,
            null.p,
            self.choices,
            self.shares,
            general_form_of=self.general_form_of,
            p_least=null.p_least,
            null_near=null.near,
            null_distance=null.distance,
            null_n=null.n,
        )

    def refused(self, statistic: str, n: int, why: str) -> Finding:
        """The answer without a number, and why there is none."""
        return Finding(
            self.subject,
            self.role,
            self.technique,
            self.distribution,
            statistic,
            None,
            None,
            None,
            n,
            self.unit,
            refused=why,
            general_form_of=self.general_form_of,
        )

    def using(self, technique: Technique, **changes: Any) -> "Question":
        """The same question for another technique; other fields may be changed with it."""
        return replace(self, technique=technique, **changes)

    def on(self, distribution: str) -> "Question":
        """The same question on another distribution."""
        return replace(self, distribution=distribution)


@dataclass(frozen=True)
class StageResult:
    """What a stage of a check measured.

    Attributes:
        findings: numbers about the claims.
        rows: details, as dataclasses that the run file has a table for (profiler.generality.store).
    """

    findings: tuple[Finding, ...] = ()
    rows: tuple[Any, ...] = ()


def joined(results: Iterable[StageResult], findings: Sequence[Finding] = ()) -> StageResult:
    """Several results as one, after some `findings` that stand alone."""
    parts = tuple(results)
    return StageResult(
        (*findings, *(finding for part in parts for finding in part.findings)),
        tuple(row for part in parts for row in part.rows),
    )
