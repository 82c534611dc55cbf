"""Rows about distributions: one for each, and one for each circuit on another circuit's task. No torch.

Why: a claim holds on a distribution or it does not; the row says in words what stands there and how much there is.
Cost: none, plain data.
"""

from dataclasses import dataclass
from typing import Literal

from profiler.generality.evidence.finding import Unit

DistributionKind = Literal["prompts", "corpus", "repeats"]
DISCOVERY, FRESH, NATURAL, REPEATS, CORPUS = (
    "discovery",
    "fresh prompts",
    "natural text",
    "repeated random tokens",
    "corpus",
)
"""Names of the distributions that other modules look for.

Domains are named `domain: NAME`, variants by what was changed."""

MARKED, TRIGGERS, DOMAIN = "held-out pairs", "triggers in the corpus", "domain: "
"""Pairs that a user's file marks with another split; the corpus where a task's question arises; one domain of it."""
VARIANTS = (
    "held-out names",
    "held-out templates",
    "held-out words and templates",
    "extra mention",
    "two extra mentions",
    "distractor",
    "longer gap",
    "annotations",
    "word order",
    "lower case",
    "capital letters",
)
"""What is changed in prompts that are written by templates (distributions/variants.py)."""
NAMES = (DISCOVERY, FRESH, *VARIANTS, MARKED, NATURAL, REPEATS, TRIGGERS, CORPUS)
"""Every distribution that a check makes of its own, but for domains."""


@dataclass(frozen=True)
class Distribution:
    """One distribution of the check.

    Attributes:
        name: unique in the check; findings name it.
        ordinal: 0 for the discovery prompts, larger is farther from them.
        kind: pairs of prompts, repeated random tokens, or positions of running text.
        description: what stands there, in a sentence.
        n_prompts: pairs that were used; 0 for running text.
        n_tokens: tokens of the prompts, or positions of running text that belong to the distribution.
        n_documents: documents that these come from; 0 where prompts were written by a template.
        refused: why there is nothing to measure; empty otherwise.
    """

    name: str
    ordinal: int
    kind: DistributionKind
    description: str
    n_prompts: int = 0
    n_tokens: int = 0
    n_documents: int = 0
    refused: str = ""

    @property
    def unit(self) -> Unit:
        """What is drawn independently."""
        return "documents" if self.kind == "corpus" or self.n_documents else "prompts"

    @property
    def n_units(self) -> int:
        """How many independent units there are."""
        return self.n_documents or self.n_prompts

    @property
    def shares(self) -> tuple[str, ...]:
        """Names of what findings on this distribution have in common."""
        return ("data corpus",) if self.kind == "corpus" else (f"data {self.name}",)


@dataclass(frozen=True)
class CrossTask:
    """Faithfulness of a circuit on the prompts of a task; high values on another circuit's task mean shared components.

    Attributes:
        circuit: whose members are kept.
        task: whose discovery prompts are asked.
        statistic: `faithfulness`, normalised as on the check's own distributions.
        value, lo, hi: estimate and 95 % interval; None where the model shows no effect to explain.
        n: pairs.
    """

    circuit: str
    task: str
    statistic: str
    value: float | None
    lo: float | None
    hi: float | None
    n: int
