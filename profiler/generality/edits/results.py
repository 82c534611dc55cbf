"""Rows, rates and tests that edits and swaps have in common. No torch.

Rates over several texts of a document have a jackknife over documents within domains, since domains are fixed and
documents sampled (profiler.statistics); one text a document is a plain proportion with Wilson's interval.
Cost: none beyond a sum over texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from profiler.errors import PatchError
from profiler.generality.edits.texts import EditText, Vocabulary
from profiler.generality.evidence.claims import Claim
from profiler.generality.evidence.finding import Finding, Interval, Question
from profiler.patching.sites import Target, parse_target
from profiler.statistics import proportion, ratio_error, share_interval
from profiler.text.token_classes import join_texts

AROUND = 6


@dataclass(frozen=True)
class Edit:
    """One edit and what it did.

    Attributes:
        component, role: the claim.
        operation: of profiler.generality.edits.plans, or a search of profiler.generality.edits.swaps.
        distribution: where the text is from.
        before, after: the text around the edited tokens and the token read, in « »; not escaped.
        position: offset of the token where the component is read.
        shift, control_shift: how far it moved in the claimed direction, and under the control edit.
    """

    component: str
    role: str
    operation: str
    distribution: str
    before: str
    after: str
    position: int
    shift: float
    control_shift: float


@dataclass(frozen=True)
class Edited:
    """All edits of one claim, and their rates."""

    edits: tuple[Edit, ...]
    findings: tuple[Finding, ...]


def target_of(question: Question, claim: Claim) -> Target:
    """The component of a question, if the claim is about its kind.

    Raises:
        PatchError: the label cannot be read, or the claim is about another kind of component.
    """
    target = parse_target(question.subject)
    if target.site != claim.kind:
        raise PatchError(
            f"{question.subject} is a {target.site}, and {claim.role!r} is claimed of a {claim.kind}: give one of these"
        )
    return target


def by_document(
    texts: Sequence[EditText], counted: Float[np.ndarray, " text"], total: Float[np.ndarray, " text"]
) -> Interval:
    """Sum of what was counted over the total, with its jackknife interval over the documents of each domain.

    Args:
        texts: may be of one document.
        counted, total: of each text.
    """
    documents = np.array([f"{text.domain}\n{text.document}" for text in texts])
    _, first, document = np.unique(documents, return_index=True, return_inverse=True)
    n, part = (np.bincount(document, weights=x, minlength=len(first)) for x in (total, counted))
    value = float(counted.sum() / total.sum())
    domains = domain_numbers([texts[i] for i in first])
    lo, hi = share_interval(value, n, part, n.sum() ** 2 / (n**2).sum(), domains)
    return Interval(value, lo, hi, len(first))


def mean_by_document(texts: Sequence[EditText], values: Float[np.ndarray, " text"]) -> Interval:
    """Mean of values with its t interval, the error stratified by domain; one text a document."""
    n, mean = len(values), float(values.mean())
    error = ratio_error(values, np.ones(n), domain_numbers(texts))
    return Interval(mean, None, None, n) if error is None else Interval(mean, mean - error.half, mean + error.half, n)


def domain_numbers(texts: Sequence[EditText]) -> Int[np.ndarray, " text"]:
    """A number for the domain of each text."""
    return np.unique([text.domain for text in texts], return_inverse=True)[1]


def share_of_texts(succeeded: np.ndarray) -> Interval:
    """Share of texts that succeeded, one a document, with Wilson's interval."""
    share = proportion(succeeded > 0)
    return Interval(share.value, share.low, share.high, share.n)


def spell(tokens: Sequence[int], changed: Sequence[int], vocabulary: Vocabulary, around: int = AROUND) -> str:
    """Tokens near the changed ones and near the last as text; the last in « », the changed ones in ⟦ ⟧, gaps as …."""
    end = len(tokens) - 1
    shown = [i for i in range(end + 1) if any(abs(i - offset) <= around for offset in (*changed, end))]
    parts: list[str] = []
    for i, last in zip(shown, [-1, *shown], strict=False):
        word = vocabulary.texts[tokens[i]]
        marked = ["⟦", word, "⟧"] if i in changed else [word]
        parts += [*(["…"] if i > last + 1 else []), *(["«", *marked, "»"] if i == end else marked)]
    return join_texts(parts)
