"""Rows about distributions: one row for each, and how a circuit does on other circuits' tasks. No torch.

Why: a claim holds on a distribution or it does not; a distribution says which, in words, and how much it rests on.
Cost: none, plain data.
"""

from dataclasses import dataclass
from typing import Literal

DistributionKind = Literal["prompts", "corpus", "repeats"]
DISCOVERY, FRESH, NATURAL, REPEATS, CORPUS = (
    "discovery",
    "fresh prompts",
    "natural text",
    "repeated random tokens",
    "corpus",
)
"""Names of the distributions that other modules look for; domains are named `domain: NAME`, variants by what was changed."""


@dataclass(frozen=True)
class Distribution:
    """One distribution of the check.

    Attributes:
        name: unique in the check; findings name it.
        ordinal: place from narrow (0, the discovery prompts) to wide.
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


@dataclass(frozen=True)
class CrossTask:
    """A circuit judged on the prompts of a task; where the task is not its own, high values mean shared machinery.

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
