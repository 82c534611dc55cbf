"""Edits that a claim says matter, against edits that it says do not: does the component move as claimed?

Why: a predicate that fits what was recorded may fit for another reason. A role predicts what happens to texts that
  nobody
wrote: take the earlier copy away and an induction head lets go; put one in and it takes hold; replace the token before,
and that is what a previous-token head now writes. Each edit stands beside a control edit of the same text (as many
tokens, nearby, as frequent) that the role says is no matter: Wang et al. 2022, "Interpretability in the Wild", appendix
on adversarial examples, whose duplicated names broke the circuit in 23.4 % of prompts and whose controls did in 0.4 %.

What moves, in the claimed direction (`shift`):

| watch | unit | what |
|---|---|---|
| attention | share | attention gained by the offsets that should gain it, lost by those that should lose it; their mean |
| arrival | share | the change of what the head mixed, along the change of the replaced token's value: 1 if it is all that moved |
| logit | logits | what the head writes directly for the token that was put in, centred over the vocabulary |
| activation | share | of the largest |activation| among all the texts |

An edit succeeds where its shift is at least MARGIN and more than the control's; the control's own rate is the null, by
the same rule the other way round. One text a document and operation: Wilson's interval for an operation, and over all
operations together a jackknife over documents. p: exact McNemar test, one-sided; mean shift over control: paired sign
flips.

Cost: three forward passes of about 100 texts an operation, some seconds on one core.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from profiler.errors import PatchError
from profiler.generality.edits.observe import Seen, logit_written, mass, see
from profiler.generality.edits.plans import Plan, plans
from profiler.generality.edits.sites import UNEDITABLE
from profiler.generality.edits.texts import Text, Vocabulary
from profiler.generality.evidence.claims import Claim
from profiler.generality.evidence.finding import FEWEST, Finding, Setting, Unit, refused
from profiler.model.network import Network
from profiler.patching.sites import parse_target
from profiler.statistics import ROUNDING, mcnemar_p, proportion, share_interval, sign_flip_p, student_interval
from profiler.text.token_classes import join_texts

MARGIN = 0.1
"""Least move that counts: a tenth of the attention, of the changed value, of the largest activation; 0.1 logits."""
AROUND = 6
RATE = "success rate"


@dataclass(frozen=True)
class Edit:
    """One edit and what it did.

    Attributes:
        component, role: the claim.
        operation: of profiler.generality.edits.plans.
        distribution: where the text is from.
        before, after: the text around the places that were edited and the token read, in « »; not escaped.
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


def check(
    net: Network,
    component: str,
    claim: Claim,
    texts: Sequence[Text],
    vocabulary: Vocabulary,
    distribution: str = "corpus",
    unit: Unit = "documents",
    seed: int = 0,
    fixed_end: bool = False,
    shares: tuple[str, ...] = ("data corpus",),
) -> Edited:
    """Edit texts as a claim says matters, and see whether the component moves.

    Args:
        component: label of a head or neuron.
        texts: of one document each; where they end is where prompts ask (`fixed_end`), or no matter.
        distribution: name of the distribution that they are from.
        unit: what `Text.document` names.
        shares: what the findings may have in common with others.

    Raises:
        PatchError: the label cannot be read, or the claim is about another kind of component.
    """
    if (site := parse_target(component).site) != claim.kind:
        raise PatchError(f"{component} is a {site}, and {claim.role!r} is claimed of a {claim.kind}: give one of these")
    made = () if claim.untestable else plans(claim, texts, vocabulary, seed, fixed_end)
    if not made:
        why = claim.untestable or _why_none(claim)
        return Edited((), (_Head(component, claim, distribution, unit, shares).refused(RATE, 0, why),))
    return of_plans(net, component, claim, made, vocabulary, distribution, unit, shares)


def of_plans(
    net: Network,
    component: str,
    claim: Claim,
    made: Sequence[Plan],
    vocabulary: Vocabulary,
    distribution: str,
    unit: Unit,
    shares: tuple[str, ...],
) -> Edited:
    """What edits do that were planned already: at least one."""
    head = _Head(component, claim, distribution, unit, shares)
    shift, control = shifts(net, component, made)
    kept = tuple(
        Edit(
            component,
            claim.label,
            p.operation,
            distribution,
            spelled(p, p.text.tokens, vocabulary),
            spelled(p, p.edited, vocabulary),
            p.text.end,
            float(s),
            float(c),
        )
        for p, s, c in zip(made, shift, control, strict=True)
    )
    return Edited(kept, head.findings(made, shift, control))


def _why_none(claim: Claim) -> str:
    if claim.role in UNEDITABLE:
        return UNEDITABLE[claim.role]
    if claim.role.startswith("fires before"):
        return (
            "the claim is about the next token, which the component does not see: no edit of the text is an edit of it"
        )
    return "no text of this distribution can be edited as the claim asks: its trigger is not there, or stands too often"


def shifts(
    net: Network, component: str, made: Sequence[Plan]
) -> tuple[Float[np.ndarray, " plan"], Float[np.ndarray, " plan"]]:
    """How far the component moves in the claimed direction under each edit, and under its control."""
    target = parse_target(component)
    rows = [[p.text.tokens for p in made], [p.edited for p in made], [p.control for p in made]]
    watches_logit = any(p.watch == "logit" for p in made)
    before, edited, control = (see(net, target, some, watches_logit) for some in rows)
    top = torch.cat([seen.norm.abs() for seen in (before, edited, control)]).max()

    def moved(after: Seen, changed: Sequence[tuple[int, ...]]) -> np.ndarray:
        by_watch = {
            "attention": lambda: _attention(before, after, made),
            "arrival": lambda: _arrival(before, after, changed),
            "logit": lambda: _logit(net, component, before, after, made),
            "activation": lambda: _signs(made) * (after.norm - before.norm) / top,
        }
        (watch,) = {p.watch for p in made}
        return by_watch[watch]().double().cpu().numpy()

    return moved(edited, [p.changed for p in made]), moved(control, [p.control_changed for p in made])


def _signs(made: Sequence[Plan]) -> torch.Tensor:
    return torch.tensor([p.sign for p in made])


def _attention(before: Seen, after: Seen, made: Sequence[Plan]) -> torch.Tensor:
    """Attention gained where it should be, and lost where it should be; the mean of the two where both are asked
    for."""
    change = after.attention - before.attention
    gained, lost = mass(change, [p.rises for p in made]), -mass(change, [p.falls for p in made])
    return (gained + lost) / torch.tensor([bool(p.rises) + bool(p.falls) for p in made])


def _arrival(before: Seen, after: Seen, changed: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """The part of the replaced token's change of value that shows in what the head mixed."""
    rows, places = torch.arange(len(changed)), torch.tensor([c[0] for c in changed])
    value = (after.values - before.values)[rows, places]
    return ((after.mixed - before.mixed) * value).sum(-1) / value.square().sum(-1).clamp_min(1e-12)


def _logit(net: Network, component: str, before: Seen, after: Seen, made: Sequence[Plan]) -> torch.Tensor:
    tokens = torch.tensor([p.token for p in made])
    first, second = (logit_written(net, parse_target(component), seen, tokens) for seen in (before, after))
    return _signs(made) * (second - first)


def succeeds(shift: Float[np.ndarray, " plan"], control: Float[np.ndarray, " plan"]) -> Float[np.ndarray, " plan"]:
    """1 where the first moved by at least MARGIN and by more than the second, beyond rounding, else 0."""
    return ((shift >= MARGIN) & (shift > control + ROUNDING)).astype(float)


@dataclass(frozen=True)
class _Head:
    """What all findings of one check have in common."""

    component: str
    claim: Claim
    distribution: str
    unit: Unit
    shares: tuple[str, ...]

    def findings(self, made: Sequence[Plan], shift: np.ndarray, control: np.ndarray) -> tuple[Finding, ...]:
        """Rates over all operations, then of each, and how much further than the control it moved."""
        won, lost = succeeds(shift, control), succeeds(control, shift)
        operations = np.array([p.operation for p in made])
        documents = np.array([p.text.document for p in made])
        found = [self._together(documents, won, lost)]
        for name in dict.fromkeys(operations):
            mine = operations == name
            found.append(self._one(f"{RATE}: {name}", won[mine], lost[mine]))
            found.append(self._shift(f"shift over control: {name}", shift[mine], control[mine]))
        return tuple(found)

    def _together(self, documents: np.ndarray, won: np.ndarray, lost: np.ndarray) -> Finding:
        names, at = np.unique(documents, return_inverse=True)
        n, held, also = (np.bincount(at, weights=x, minlength=len(names)) for x in (np.ones_like(won), won, lost))
        if len(names) < FEWEST:
            return self.refused(RATE, len(names), _too_few(len(names), self.unit))
        lo, hi = share_interval(float(won.mean()), n, held, n.sum() ** 2 / (n**2).sum())
        more = held - also
        p = float(sign_flip_p(more[None])[0]) / 2
        return self._finding(
            RATE, float(won.mean()), lo, hi, len(names), float(lost.mean()), p if more.mean() > 0 else 1 - p
        )

    def _one(self, statistic: str, won: np.ndarray, lost: np.ndarray) -> Finding:
        if len(won) < FEWEST:
            return self.refused(statistic, len(won), _too_few(len(won), self.unit))
        one = proportion(won > 0)
        return self._finding(statistic, one.value, one.low, one.high, one.n, float(lost.mean()), mcnemar_p(won, lost))

    def _shift(self, statistic: str, shift: np.ndarray, control: np.ndarray) -> Finding:
        n, more = len(shift), shift - control
        if n < FEWEST:
            return self.refused(statistic, n, _too_few(n, self.unit))
        mean, (lo, hi) = float(more.mean()), student_interval(more)
        p = float(sign_flip_p(more[None])[0]) / 2
        return self._finding(statistic, mean, lo, hi, n, float(control.mean()), p if mean > 0 else 1 - p)

    def _finding(
        self, statistic: str, value: float, lo: float | None, hi: float | None, n: int, null: float, p: float
    ) -> Finding:
        kind = "head" if self.claim.kind == "head" else "neuron"
        setting = Setting("node", kind, "token edit", "last token", "edit against control edit", "one text a document")
        return Finding(
            self.component,
            self.claim.label,
            "edits",
            self.distribution,
            statistic,
            value,
            lo,
            hi,
            n,
            self.unit,
            null,
            None,
            p,
            setting,
            self.shares,
        )

    def refused(self, statistic: str, n: int, why: str) -> Finding:
        """A finding without a number."""
        return refused(self.component, self.claim.label, "edits", self.distribution, statistic, n, self.unit, why)


def _too_few(n: int, unit: str) -> str:
    return f"only {n} {unit} can be edited so: {FEWEST} are needed"


def spelled(plan: Any, tokens: Sequence[int], vocabulary: Vocabulary, around: int = AROUND) -> str:
    """The text around the edited places and the token read, what is left out as …; changed tokens in ⟦ ⟧."""
    return spell(tokens, plan.changed, vocabulary, around)


def spell(tokens: Sequence[int], changed: Sequence[int], vocabulary: Vocabulary, around: int = AROUND) -> str:
    """Tokens near the changed ones and near the last as text; the last in « », the changed ones in ⟦ ⟧, gaps as …."""
    end = len(tokens) - 1
    shown = [i for i in range(end + 1) if any(abs(i - place) <= around for place in (*changed, end))]
    parts: list[str] = []
    for i, last in zip(shown, [-1, *shown], strict=False):
        word = vocabulary.texts[tokens[i]]
        marked = ["⟦", word, "⟧"] if i in changed else [word]
        parts += [*(["…"] if i > last + 1 else []), *(["«", *marked, "»"] if i == end else marked)]
    return join_texts(parts)
