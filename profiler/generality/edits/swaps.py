"""Token swaps that break a claim: the gradient proposes, forward passes confirm, random swaps show what chance would
find.

Why: sampled text shows what is common. A claim can also be wrong where nobody would look: for one token, in one
combination. HotFlip (Ebrahimi et al. 2018, "HotFlip: White-Box Adversarial Examples for Text Classification", section
3) finds such places: to first order, putting token y at offset i changes a number f by

    (E[y] - E[x_i]) . df / dE_i

for every offset and token at once, from one backward pass. Two searches, each over single swaps:

* break: the role says that the component should act, and it does; the trigger and the offsets to attend to stay exactly
  as they were (checked on the swapped text, not by the gradient). Success: f falls to half or less.
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

from profiler.errors import PatchError
from profiler.generality.edits.edits import Edit, spell
from profiler.generality.edits.sites import CARRIERS, UNEDITABLE
from profiler.generality.edits.swap_search import (
    Asked,
    Case,
    Search,
    Tried,
    at_random,
    cases_of,
    measured,
    one_each,
    propose,
)
from profiler.generality.edits.texts import Text, Vocabulary
from profiler.generality.evidence.claims import Claim
from profiler.generality.evidence.finding import FEWEST, Finding, Setting, Unit, refused
from profiler.model.network import Network
from profiler.patching.sites import parse_target
from profiler.statistics import mcnemar_p, proportion, share_interval

TRIED = 16
HALF = 0.5
LEAST_ACT = {"attention": 0.5, "logit": 0.1, "activation": 0.0}


@dataclass(frozen=True)
class Swapped:
    """Both searches: the best swap of each text, and their rates."""

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
    tried: int = TRIED,
    shares: tuple[str, ...] = ("data corpus",),
) -> Swapped:
    """Search for swaps that break the claim, and for swaps that make the component act where it should not.

    Args:
        component: label of a head or neuron.
        texts: of one document each; where they end is where prompts ask (`fixed_end`), or no matter.
        tried: swaps measured for each text and search, and as many random ones.

    Raises:
        PatchError: the label cannot be read, or the claim is about another kind of component.
    """
    target = parse_target(component)
    if target.site != claim.kind:
        raise PatchError(
            f"{component} is a {target.site}, and {claim.role!r} is claimed of a {claim.kind}: give one of these"
        )
    rng = np.random.default_rng(seed)
    told = _Told(component, claim, distribution, unit, (*shares, "gradients"), tried)
    breaking = Asked(net, target, claim, vocabulary, "break")
    barred = claim.untestable or (UNEDITABLE.get(claim.role, "") if claim.role in CARRIERS else "")
    acting = [] if barred else _acting(breaking, texts, rng, fixed_end)
    top = max((case.before for case in acting), default=1.0) if breaking.watch == "activation" else 1.0
    found = [_search(breaking, acting, rng, told, lambda case, after: after <= HALF * case.before, len(acting), top)]
    if not claim.everywhere and not barred:
        firing = Asked(net, target, claim, vocabulary, "fire")
        level = _level(firing, acting)
        resting = one_each(case for case in cases_of(firing, texts, False, rng, fixed_end) if case.before < level)
        found.append(_search(firing, resting, rng, told, lambda _, after: after >= level, len(acting), level))
    return Swapped(tuple(e for edits, _ in found for e in edits), tuple(f for _, fs in found for f in fs))


def _acting(subject: Asked, texts: Sequence[Text], rng: np.random.Generator, fixed_end: bool) -> list[Case]:
    """Texts where the component should act and does: half of the attention, 0.1 logits, or a tenth of the largest
    activation."""
    cases = cases_of(subject, texts, True, rng, fixed_end)
    top = max((case.before for case in cases), default=0.0)
    least = 0.1 * top if subject.watch == "activation" else LEAST_ACT[subject.watch]
    return one_each(case for case in cases if case.before >= least and case.before > 0)


def _level(subject: Asked, acting: Sequence[Case]) -> float:
    """What a component writes where it acts as claimed: the median norm, or activation."""
    values = subject.measure([(case.text, case.here) for case in acting])
    return float(np.median(values)) if len(values) else float("inf")


def _search(
    subject: Asked,
    cases: Sequence[Case],
    rng: np.random.Generator,
    told: "_Told",
    succeeds: Callable[[Case, np.ndarray], np.ndarray],
    acting: int,
    scale: float,
) -> tuple[tuple[Edit, ...], tuple[Finding, ...]]:
    """One search over all cases, if the component acts in enough texts for a claim to be broken; shifts in units of
    `scale`."""
    chosen = cases if acting >= FEWEST else ()
    guided = [measured(subject, case, propose(subject, case, told.tried)) for case in chosen if case.groups]
    random = [measured(subject, case, at_random(subject, case, told.tried, rng)) for case in chosen if case.groups]
    findings = told.findings(subject.search, guided, random, succeeds, acting)
    return (
        tuple(_edit(subject, g, r, told, scale) for g, r in zip(guided, random, strict=True) if g.swaps and r.swaps),
        findings,
    )


def _edit(subject: Asked, guided: Tried, random: Tried, told: "_Told", scale: float) -> Edit:
    """The best swap of a text, beside the best random one."""
    sign = -1.0 if subject.search == "break" else 1.0
    moved, chance = (sign * (one.after - one.case.before) / scale for one in (guided, random))
    swap = guided.swaps[int(moved.argmax())]
    text = guided.case.text
    after = swap.on(text.tokens)
    before, changed = (spell(tokens, swap.offsets, subject.vocabulary) for tokens in (text.tokens, after))
    return Edit(
        told.component,
        told.claim.label,
        f"swap to {subject.search}",
        told.distribution,
        before,
        changed,
        text.end,
        float(moved.max()),
        float(chance.max()),
    )


@dataclass(frozen=True)
class _Told:
    """What all findings of one check have in common."""

    component: str
    claim: Claim
    distribution: str
    unit: Unit
    shares: tuple[str, ...]
    tried: int

    def findings(
        self,
        search: Search,
        guided: Sequence[Tried],
        random: Sequence[Tried],
        succeeds: Callable[[Case, np.ndarray], np.ndarray],
        acting: int,
    ) -> tuple[Finding, ...]:
        """Share of texts for which a swap was found, and share of swaps that do it."""
        names = (f"{search} rate", f"{search} rate of a swap")
        if len(guided) < FEWEST:
            n = min(len(guided), acting) if acting < FEWEST else len(guided)
            which = (
                "with the trigger where the component acts"
                if acting < FEWEST or search == "break"
                else "without the trigger"
            )
            barred = UNEDITABLE.get(self.claim.role, "") if self.claim.role in CARRIERS else ""
            why = (
                self.claim.untestable
                or barred
                or f"only {acting if acting < FEWEST else n} texts {which}: {FEWEST} are needed"
            )
            return tuple(
                refused(self.component, self.claim.label, "swaps", self.distribution, name, n, self.unit, why)
                for name in names
            )
        by_swap = [[succeeds(one.case, one.after) for one in many] for many in (guided, random)]
        some, chance = (np.array([bool(one.any()) for one in many]) for many in by_swap)
        one = proportion(some)
        texts = self._finding(
            names[0], one.value, one.low, one.high, len(some), float(chance.mean()), mcnemar_p(some * 1.0, chance * 1.0)
        )
        return texts, self._per_swap(names[1], *by_swap)

    def _per_swap(self, name: str, guided: Sequence[np.ndarray], random: Sequence[np.ndarray]) -> Finding:
        n, held = (np.array([f(one) for one in guided], dtype=float) for f in (len, np.sum))
        value = float(held.sum() / n.sum())
        lo, hi = share_interval(value, n, held, n.sum() ** 2 / (n**2).sum())
        chance = float(np.concatenate(random).mean())
        return self._finding(name, value, lo, hi, len(n), chance, None)

    def _finding(
        self, name: str, value: float, lo: float | None, hi: float | None, n: int, null: float, p: float | None
    ) -> Finding:
        setting = Setting(
            "node", self.claim.kind, "token swap", "last token", "gradient against random", f"{self.tried} swaps a text"
        )
        return Finding(
            self.component,
            self.claim.label,
            "swaps",
            self.distribution,
            name,
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
