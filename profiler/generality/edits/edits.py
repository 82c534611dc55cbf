"""Edits that a claim says matter, against edits that it says do not: whether the component moves as claimed.

Why: a predicate that fits what was recorded may fit for another reason. A role predicts what happens to texts that
nobody wrote: remove the earlier copy and an induction head lets go; put one in and it takes hold; replace the token
before, and that is what a previous-token head now writes. Each edit stands beside a control edit of the same text (as
many tokens, nearby, as frequent) that the role says does not matter: Wang et al. 2022, "Interpretability in the Wild",
appendix on adversarial examples, whose duplicated names broke the circuit in 23.4 % of prompts and whose controls did
in 0.4 %.

What moves, in the claimed direction (`shift`):

| watch | unit | what |
|---|---|---|
| attention | share | mean of attention gained where it should rise and lost where it should fall |
| arrival | share | change of what the head mixed, along the change of the replaced token's value; without a contrast,
  where that value hardly changes, there is no share |
| logit | logits | what the head writes directly for the token that was put in, centred over the vocabulary |
| activation | share | of the largest |activation| among all the texts |

An edit succeeds where its shift is at least the threshold `edit_shift` and more than the control's; the control's own
rate, by the same rule the other way round, is the null. One text a document and operation: Wilson's interval for an
operation; over all operations together, and of the mean shift, a jackknife over documents within domains. p: exact
McNemar test, one-sided; mean shift over control: paired sign flips.

Cost: three forward passes of about 100 texts an operation, some seconds on one core.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from profiler.generality.edits.observe import ComponentState, logit_written, mass, see
from profiler.generality.edits.plans import EditPlan, plans
from profiler.generality.edits.results import (
    Edit,
    Edited,
    by_document,
    mean_by_document,
    share_of_texts,
    spell,
    target_of,
)
from profiler.generality.edits.sites import UNEDITABLE
from profiler.generality.edits.texts import EditText, Vocabulary
from profiler.generality.evidence.claims import Claim
from profiler.generality.evidence.finding import CausalChoices, Finding, Null, Question
from profiler.generality.evidence.thresholds import DEFAULT
from profiler.model.steps.network import Network
from profiler.patching.sites import parse_target
from profiler.statistics import ROUNDING, mcnemar_p, sign_flip_p

RATE = "success rate"
LEAST_CONTRAST = 1e-3
"""Least change of a value, beside its size, that a share of is given: float32 loses up to a ten thousandth of it on the
way, and the change is divided by."""
NO_CONTRAST = "what was put in does not change what the component reads there: no contrast, so nothing can arrive"


def check(
    net: Network,
    question: Question,
    claim: Claim,
    texts: Sequence[EditText],
    vocabulary: Vocabulary,
    *,
    seed: int = 0,
    fixed_end: bool = False,
) -> Edited:
    """Edit texts as a claim says matters, and see whether the component moves.

    Args:
        question: of the technique `edits` about the component; its unit is what `EditText.document` names.
        texts: of one document each; where they end is where prompts ask (`fixed_end`), or does not matter.

    Raises:
        PatchError: the label cannot be read, or the claim is about another kind of component.
    """
    target_of(question, claim)
    made = () if claim.untestable else plans(claim, texts, vocabulary, seed=seed, fixed_end=fixed_end)
    if not made:
        return Edited((), (question.refused(RATE, 0, claim.untestable or _why_none(claim)),))
    return of_plans(net, question, claim, made, vocabulary)


def of_plans(
    net: Network, question: Question, claim: Claim, made: Sequence[EditPlan], vocabulary: Vocabulary
) -> Edited:
    """What edits do that were planned already: at least one."""
    shift, control = shifts(net, question.subject, made)
    known, control = np.isfinite(shift), np.nan_to_num(control)  # of a control that changes nothing nothing arrives
    if not known.any():
        return Edited((), (question.refused(RATE, 0, NO_CONTRAST),))
    made, shift, control = (
        [plan for plan, is_known in zip(made, known, strict=True) if is_known],
        shift[known],
        control[known],
    )
    edits = tuple(
        Edit(
            question.subject,
            question.role,
            plan.operation,
            question.distribution,
            spell(plan.text.tokens, plan.changed, vocabulary),
            spell(plan.edited, plan.changed, vocabulary),
            plan.text.end,
            float(moved),
            float(control_moved),
        )
        for plan, moved, control_moved in zip(made, shift, control, strict=True)
    )
    kind = "head" if claim.kind == "head" else "neuron"
    choices = CausalChoices(
        "node", kind, "token edit", "last token", "edit against control edit", "one text a document"
    )
    return Edited(edits, _findings(question.using("edits", choices=choices), made, shift, control))


def _why_none(claim: Claim) -> str:
    if claim.role in UNEDITABLE:
        return UNEDITABLE[claim.role]
    if claim.role.startswith("fires before"):
        return (
            "the claim is about the next token, which the component does not see: no edit of the text is an edit of it"
        )
    return "no text of this distribution can be edited as the claim asks: its trigger is not there, or stands too often"


def shifts(
    net: Network, component: str, made: Sequence[EditPlan]
) -> tuple[Float[np.ndarray, " plan"], Float[np.ndarray, " plan"]]:
    """How far the component moves in the claimed direction under each edit, and under its control.

    NaN where what the component reads does not change, so that there is nothing to divide by.
    """
    target = parse_target(component)
    rows = [[p.text.tokens for p in made], [p.edited for p in made], [p.control for p in made]]
    watches_logit = any(p.watch == "logit" for p in made)
    before, edited, control = (see(net, target, some, residual=watches_logit) for some in rows)
    top = torch.cat([seen.norm.abs() for seen in (before, edited, control)]).max()

    def moved(after: ComponentState, changed: Sequence[tuple[int, ...]]) -> np.ndarray:
        by_watch = {
            "attention": lambda: _attention(before, after, made),
            "arrival": lambda: _arrival(before, after, changed),
            "logit": lambda: _logit(net, component, before, after, made),
            "activation": lambda: _signs(made) * (after.norm - before.norm) / top,  # NaN where it never fires
        }
        (watch,) = {p.watch for p in made}
        return by_watch[watch]().double().cpu().numpy()

    return moved(edited, [p.changed for p in made]), moved(control, [p.control_changed for p in made])


def _signs(made: Sequence[EditPlan]) -> torch.Tensor:
    return torch.tensor([p.sign for p in made])


def _attention(before: ComponentState, after: ComponentState, made: Sequence[EditPlan]) -> torch.Tensor:
    """Attention gained where it should rise and lost where it should fall; the mean where both are claimed."""
    change = after.attention - before.attention
    gained, lost = mass(change, [p.rises for p in made]), -mass(change, [p.falls for p in made])
    return (gained + lost) / torch.tensor([bool(p.rises) + bool(p.falls) for p in made])


def _arrival(before: ComponentState, after: ComponentState, changed: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """The part of the replaced token's change of value that shows in what the head mixed; NaN without a change."""
    rows, offsets = torch.arange(len(changed)), torch.tensor([c[0] for c in changed])
    was, is_now = before.values[rows, offsets], after.values[rows, offsets]
    value = is_now - was
    least = LEAST_CONTRAST * torch.maximum(was.norm(dim=-1), is_now.norm(dim=-1))
    share = ((after.mixed - before.mixed) * value).sum(-1) / value.square().sum(-1)
    return share.masked_fill(value.norm(dim=-1) <= least, torch.nan)


def _logit(
    net: Network, component: str, before: ComponentState, after: ComponentState, made: Sequence[EditPlan]
) -> torch.Tensor:
    tokens = torch.tensor([p.token for p in made])
    first, second = (logit_written(net, parse_target(component), seen, tokens) for seen in (before, after))
    return _signs(made) * (second - first)


def succeeds(
    shift: Float[np.ndarray, " plan"], control: Float[np.ndarray, " plan"], least: float = DEFAULT.edit_shift
) -> Float[np.ndarray, " plan"]:
    """1 where the first moved by at least `least` and by more than the second, beyond rounding, else 0."""
    return ((shift >= least) & (shift > control + ROUNDING)).astype(float)


def _findings(
    question: Question, made: Sequence[EditPlan], shift: np.ndarray, control: np.ndarray
) -> tuple[Finding, ...]:
    """Rates over all operations, then of each, and how much further than the control it moved."""
    least = question.thresholds.edit_shift
    won, lost = succeeds(shift, control, least), succeeds(control, shift, least)
    operations = np.array([plan.operation for plan in made])
    rows = [_together(question, made, won, lost)]
    for name in dict.fromkeys(operations):
        mine = np.nonzero(operations == name)[0]
        own, n = [made[i] for i in mine.tolist()], len(mine)
        rate, further = f"{RATE}: {name}", f"shift over control: {name}"
        if n < question.thresholds.fewest:
            rows += [question.refused(statistic, n, _too_few(question, n)) for statistic in (rate, further)]
            continue
        null = Null(float(lost[mine].mean()), None, mcnemar_p(won[mine], lost[mine]))
        rows.append(question.finding(rate, share_of_texts(won[mine]), null))
        rows.append(_shift(question, further, own, shift[mine], control[mine]))
    return tuple(rows)


def _together(question: Question, made: Sequence[EditPlan], won: np.ndarray, lost: np.ndarray) -> Finding:
    """The success rate over all operations; p by sign flips over documents."""
    texts = [plan.text for plan in made]
    rate = by_document(texts, won, np.ones_like(won))
    if rate.n < question.thresholds.fewest:
        return question.refused(RATE, rate.n, _too_few(question, rate.n))
    _, document = np.unique([text.document for text in texts], return_inverse=True)
    more = np.bincount(document, weights=won) - np.bincount(document, weights=lost)
    return question.finding(RATE, rate, Null(float(lost.mean()), None, _one_sided(more)))


def _shift(
    question: Question, statistic: str, made: Sequence[EditPlan], shift: np.ndarray, control: np.ndarray
) -> Finding:
    """How much further than its control the component moved, on average."""
    more = shift - control
    measured = mean_by_document([plan.text for plan in made], more)
    return question.finding(statistic, measured, Null(float(control.mean()), None, _one_sided(more)))


def _one_sided(more: np.ndarray) -> float:
    """One-sided p that the mean is not above 0, by sign flips."""
    p = float(sign_flip_p(more[None])[0]) / 2
    return p if more.mean() > 0 else 1 - p


def _too_few(question: Question, n: int) -> str:
    return f"only {n} {question.unit} can be edited so: {question.thresholds.fewest} are needed"
