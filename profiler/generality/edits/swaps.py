"""Token swaps that break a claim: proposed by the gradient, confirmed by forward passes, beside random swaps.

Why: sampled text shows what is common. A claim can also be wrong where nobody would look: for one token, in one
combination. HotFlip (Ebrahimi et al. 2018, "HotFlip: White-Box Adversarial Examples for Text Classification", section
3) finds such places: to first order, putting token y at offset i changes a number f by

    (E[y] - E[x_i]) . df / dE_i

for every offset and token at once, from one backward pass. Two searches, each over single swaps:

* break: the role says that the component should act, and it does; the trigger and the offsets to attend to stay exactly
  as they were (checked on the swapped text, not by the gradient). Success: f falls to the threshold
  `broken_share` of what it was, half, or less.
* fire: the role says that it should not act, and still does after the swap. Success: f reaches the median of the texts
  where it acts as claimed.

f is the attention to the claim's offsets, the logit written for what is copied, or the activation; in the second search
the norm of what a head writes. Tokens that the trigger needs to be the same (the last token and its copies) are swapped
together. For the `tried` swaps of largest predicted effect, and for as many random ones, f is measured; a text counts
as broken if any of them succeeds. `break rate` and `fire rate` are shares of texts, with the rate of random swaps as
null: a high one speaks against the claim. `break rate of a swap` is the share of single swaps.

Cost: one backward pass a text, and 2 x `tried` forward passes of one text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from profiler.generality.edits.results import Edit, Edited, by_document, share_of_texts, spell, target_of
from profiler.generality.edits.sites import CARRIERS, UNEDITABLE
from profiler.generality.edits.swap_search import (
    Case,
    SwapSearch,
    Tried,
    at_random,
    cases_of,
    measured,
    one_each,
    propose,
)
from profiler.generality.edits.texts import EditText, Vocabulary
from profiler.generality.evidence.claims import Claim
from profiler.generality.evidence.finding import CausalChoices, Finding, Null, Question
from profiler.generality.evidence.thresholds import Thresholds
from profiler.model.steps.network import Network
from profiler.statistics import mcnemar_p

TRIED = 16


def check(
    net: Network,
    question: Question,
    claim: Claim,
    texts: Sequence[EditText],
    vocabulary: Vocabulary,
    *,
    seed: int = 0,
    fixed_end: bool = False,
    tried: int = TRIED,
) -> Edited:
    """Search for swaps that break the claim, and for swaps that make the component act where it should not.

    Args:
        question: of the technique `swaps` about the component; its unit is what `EditText.document` names.
        texts: of one document each; where they end is where prompts ask (`fixed_end`), or does not matter.
        tried: swaps measured for each text and search, and as many random ones.

    Raises:
        PatchError: the label cannot be read, or the claim is about another kind of component.
    """
    target = target_of(question, claim)
    rng, thresholds = np.random.default_rng(seed), question.thresholds
    choices = CausalChoices(
        "node", claim.kind, "token swap", "last token", "gradient against random", f"{tried} swaps a text"
    )
    question = question.using("swaps", choices=choices, shares=(*question.shares, "gradients"))
    breaking = SwapSearch(net, target, claim, vocabulary, "break")
    barred = claim.untestable or (UNEDITABLE.get(claim.role, "") if claim.role in CARRIERS else "")
    acting = [] if barred else _acting(breaking, texts, rng, thresholds, fixed_end=fixed_end)
    top = max((case.before for case in acting), default=1.0) if breaking.watch == "activation" else 1.0
    broken = thresholds.broken_share
    results = [
        _Search(question, breaking, barred, len(acting), tried, top, lambda case, f: f <= broken * case.before).run(
            acting, rng
        )
    ]
    if not claim.everywhere and not barred:
        firing = SwapSearch(net, target, claim, vocabulary, "fire")
        level = _level(firing, acting)
        cases = cases_of(firing, texts, rng, trigger=False, fixed_end=fixed_end)
        resting = one_each(case for case in cases if case.before < level)
        search = _Search(question, firing, barred, len(acting), tried, level, lambda _, f: f >= level)
        results.append(search.run(resting, rng))
    return Edited(
        tuple(edit for result in results for edit in result.edits),
        tuple(row for result in results for row in result.findings),
    )


def _acting(
    subject: SwapSearch,
    texts: Sequence[EditText],
    rng: np.random.Generator,
    thresholds: Thresholds,
    *,
    fixed_end: bool,
) -> list[Case]:
    """Texts where the component should act and does."""
    cases = cases_of(subject, texts, rng, trigger=True, fixed_end=fixed_end)
    top = max((case.before for case in cases), default=0.0)
    least = {
        "attention": thresholds.acts_attention,
        "logit": thresholds.acts_logit,
        "activation": thresholds.acts_activation * top,
    }[subject.watch]
    return one_each(case for case in cases if case.before >= least and case.before > 0)


def _level(subject: SwapSearch, acting: Sequence[Case]) -> float:
    """What a component writes where it acts as claimed: the median norm, or activation."""
    values = subject.measure([(case.text, case.here) for case in acting])
    return float(np.median(values)) if len(values) else float("inf")


@dataclass(frozen=True, eq=False)
class _Search:
    """One search over all cases.

    Attributes:
        question: what its findings answer.
        subject: the component, the claim and what is searched for.
        barred: why the claim cannot be tested so; empty where it can.
        acting: texts in which the component acts as claimed; too few leave nothing to break.
        tried: swaps of a text, and random ones.
        scale: unit of shifts.
        succeeds: whether swaps of a case succeed, from f after them.
    """

    question: Question
    subject: SwapSearch
    barred: str
    acting: int
    tried: int
    scale: float
    succeeds: Callable[[Case, np.ndarray], np.ndarray]

    def run(self, cases: Sequence[Case], rng: np.random.Generator) -> Edited:
        """Measure guided and random swaps of each case."""
        enough = self.acting >= self.question.thresholds.fewest
        chosen = [case for case in cases if case.groups] if enough else []
        guided = [measured(self.subject, case, propose(self.subject, case, self.tried)) for case in chosen]
        random = [measured(self.subject, case, at_random(self.subject, case, self.tried, rng)) for case in chosen]
        pairs = [(g, r) for g, r in zip(guided, random, strict=True) if g.swaps and r.swaps]
        return Edited(tuple(self._edit(*pair) for pair in pairs), self._findings(guided, random))

    def _edit(self, guided: Tried, random: Tried) -> Edit:
        """The best swap of a text, beside the best random one."""
        sign = -1.0 if self.subject.search == "break" else 1.0
        moved, chance = (sign * (result.after - result.case.before) / self.scale for result in (guided, random))
        swap = guided.swaps[int(moved.argmax())]
        text = guided.case.text
        before, after = (
            spell(tokens, swap.offsets, self.subject.vocabulary) for tokens in (text.tokens, swap.on(text.tokens))
        )
        return Edit(
            self.question.subject,
            self.question.role,
            f"swap to {self.subject.search}",
            self.question.distribution,
            before,
            after,
            text.end,
            float(moved.max()),
            float(chance.max()),
        )

    def _findings(self, guided: Sequence[Tried], random: Sequence[Tried]) -> tuple[Finding, ...]:
        """Share of texts for which a swap succeeds, and share of swaps that succeed."""
        of_texts, of_swaps = f"{self.subject.search} rate", f"{self.subject.search} rate of a swap"
        if len(guided) < self.question.thresholds.fewest:
            n = min(len(guided), self.acting)
            return tuple(self.question.refused(name, n, self._why(len(guided))) for name in (of_texts, of_swaps))
        by_swap, by_chance = ([self.succeeds(swap.case, swap.after) for swap in many] for many in (guided, random))
        some, chance = (np.array([float(swap.any()) for swap in many]) for many in (by_swap, by_chance))
        total, succeeded = (np.array([f(swap) for swap in by_swap], dtype=float) for f in (len, np.sum))
        per_swap = by_document([swap.case.text for swap in guided], succeeded, total)
        return (
            self.question.finding(
                of_texts, share_of_texts(some), Null(float(chance.mean()), None, mcnemar_p(some, chance))
            ),
            self.question.finding(of_swaps, per_swap, Null(float(np.concatenate(by_chance).mean()))),
        )

    def _why(self, n: int) -> str:
        """Why there are too few texts."""
        if self.barred:
            return self.barred
        fewest = self.question.thresholds.fewest
        few_act = self.acting < fewest
        where = "with the trigger where the component acts"
        if not few_act and self.subject.search == "fire":
            where = "without the trigger"
        return f"only {self.acting if few_act else n} texts {where}: {fewest} are needed"
