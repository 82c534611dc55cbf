"""Token swaps that break a claim: the gradient proposes, forward passes confirm, random swaps show what chance would find.

Why: sampled text shows what is common. A claim can also be wrong where nobody would look: for one token, in one
combination. HotFlip (Ebrahimi et al. 2018, "HotFlip: White-Box Adversarial Examples for Text Classification", section
3) finds such places: to first order, putting token y at offset i changes a number f by

    (E[y] - E[x_i]) . df / dE_i

for every offset and token at once, from one backward pass. Two searches, each over single swaps:

* break: the role says that the component should act, and it does; the trigger and the offsets to attend to stay exactly as
  they were (checked on the swapped text, not by the gradient). Success: f falls to half or less.
* fire: the role says that it should not act, and still does after the swap. Success: f reaches the median of the texts
  where it acts as claimed.

f is the attention to the claim's offsets, the logit written for what is copied, or the activation; in the second search
the norm of what a head writes. Tokens that the trigger needs to be the same (the last token and its copies) are swapped
together. For the `tried` swaps of largest predicted effect, and for as many random ones, f is measured; a text counts as
broken if any of them succeeds. `break rate` and `fire rate` are shares of texts, with the rate of random swaps as null:
a high one speaks against the claim. `break rate of a swap` is the share of single swaps.

Cost: one backward pass a text, and 2 x `tried` forward passes of one text.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler.errors import PatchError
from profiler.generality.claims import Claim
from profiler.generality.counterexamples_rates import interval
from profiler.generality.edits import Edit, mcnemar_p, spell
from profiler.generality.edits_places import CARRIERS, Place, place
from profiler.generality.edits_seen import Seen, logit_written, mass, padded, see_once
from profiler.generality.edits_texts import Text, Vocabulary
from profiler.generality.finding import FEWEST, Finding, Setting, Unit, refused
from profiler.patching.network import Network
from profiler.patching.sites import Target, parse_target
from profiler.scores.intervals import proportion

TRIED = 16
CHECKED = 5000
"""Proposals of one text that are held against the claim before the search gives up."""
HALF = 0.5
LEAST_ACT = {"attention": 0.5, "logit": 0.1, "activation": 0.0}
Search = Literal["break", "fire"]
Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Swap:
    """Some offsets of a text, all given one other token."""

    offsets: tuple[int, ...]
    token: int

    def on(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The swapped text."""
        return tuple(self.token if i in self.offsets else t for i, t in enumerate(tokens))


@dataclass(frozen=True, eq=False)
class Case:
    """One text of a search: what the claim says of it, and what may be swapped.

    Attributes:
        groups: offsets that are swapped together.
        before: f of the text.
    """

    text: Text
    here: Place
    groups: Groups
    before: float


@dataclass(frozen=True, eq=False)
class Tried:
    """The swaps that were measured on one case, and f after each."""

    case: Case
    swaps: tuple[Swap, ...]
    after: Float[np.ndarray, " swap"]


@dataclass(frozen=True, eq=False)
class _Subject:
    """The model, the component and the claim that a search is about; `f` is what it lowers or raises."""

    net: Network
    target: Target
    claim: Claim
    vocabulary: Vocabulary
    search: Search

    @property
    def watch(self) -> str:
        """What f is: attention, logit or activation (or norm)."""
        if self.target.site == "neuron" or self.search == "fire":
            return "activation"
        return "logit" if self.claim.role in CARRIERS else "attention"

    def f(self, seen: Seen, cases: Sequence[tuple[Text, Place]]) -> Float[Tensor, " text"]:
        """The number that a search moves, one a text."""
        if self.watch == "activation":
            return seen.norm
        if self.watch == "attention":
            return mass(seen.attention, [here.targets for _, here in cases])
        tokens = torch.tensor([text.next_token for text, _ in cases], device=self.net.device)
        return CARRIERS[self.claim.role] * logit_written(self.net, self.target, seen, tokens)

    def measure(self, cases: Sequence[tuple[Text, Place]]) -> Float[np.ndarray, " text"]:
        """f of each text, exactly."""
        parts = []
        with torch.inference_mode():
            for begin in range(0, len(cases), 32):
                some = cases[begin : begin + 32]
                tokens, ends = padded([text.tokens for text, _ in some], self.net.device)
                parts.append(self.f(see_once(self.net, self.target, tokens, ends), some).double().cpu())
        return torch.cat(parts).numpy() if parts else np.zeros(0)

    def allowed(self, text: Text, here: Place, swap: Swap) -> bool:
        """Whether the claim says the same of the swapped text."""
        return place(self.claim, replace(text, tokens=swap.on(text.tokens)), self.vocabulary) == here


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
    rung: str = "corpus",
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
    told = _Told(component, claim, rung, unit, (*shares, "gradients"), tried)
    breaking = _Subject(net, target, claim, vocabulary, "break")
    acting = [] if claim.untestable else _acting(breaking, texts, rng, fixed_end)
    found = [_search(breaking, acting, rng, told, lambda case, after: after <= HALF * case.before, acting)]
    if not claim.everywhere and not claim.untestable:
        firing = _Subject(net, target, claim, vocabulary, "fire")
        level = _level(firing, acting)
        resting = [case for case in _cases(firing, texts, False, rng, fixed_end) if case.before < level]
        found.append(_search(firing, resting, rng, told, lambda _, after: after >= level, acting))
    return Swapped(tuple(e for edits, _ in found for e in edits), tuple(f for _, fs in found for f in fs))


def _acting(subject: _Subject, texts: Sequence[Text], rng: np.random.Generator, fixed_end: bool) -> list[Case]:
    """Texts where the component should act and does: half of the attention, 0.1 logits, or a tenth of the largest activation."""
    cases = _cases(subject, texts, True, rng, fixed_end)
    top = max((case.before for case in cases), default=0.0)
    least = 0.1 * top if subject.watch == "activation" else LEAST_ACT[subject.watch]
    return [case for case in cases if case.before >= least and case.before > 0]


def _level(subject: _Subject, acting: Sequence[Case]) -> float:
    """What a component writes where it acts as claimed: the median norm, or activation."""
    values = subject.measure([(case.text, case.here) for case in acting])
    return float(np.median(values)) if len(values) else float("inf")


def _cases(
    subject: _Subject, texts: Sequence[Text], trigger: bool, rng: np.random.Generator, fixed_end: bool, tries: int = 24
) -> list[Case]:
    """Of each text, cut at a random token where the trigger is as asked for, the case; texts without one are left out."""
    chosen: list[tuple[Text, Place]] = []
    for text in texts:
        ends = [] if fixed_end else rng.permutation(np.arange(4, text.end))[:tries].tolist()
        for cut in [text] if fixed_end else [text.upto(int(end)) for end in ends]:
            here = place(subject.claim, cut, subject.vocabulary)
            if here.trigger == trigger and cut.end not in here.targets[:-1]:
                chosen.append((cut, here))
                break
    before = subject.measure(chosen)
    return [
        Case(text, here, groups_of(text, here, subject.vocabulary), float(f))
        for (text, here), f in zip(chosen, before, strict=True)
    ]


def groups_of(text: Text, here: Place, vocabulary: Vocabulary) -> Groups:
    """What may be swapped: each ordinary offset alone; where copies make the trigger, these and the last token together."""
    same = [i for i in here.causes if text.tokens[i] == text.tokens[text.end]]
    tied = {*here.causes, text.end} if same else set(here.causes)
    alone = tuple((i,) for i in range(text.end + 1) if i not in tied and vocabulary.ordinary[text.tokens[i]])
    together = tuple(sorted(tied))
    movable = together and all(vocabulary.ordinary[text.tokens[i]] for i in together)
    return (*alone, together) if movable else alone


def slopes(subject: _Subject, case: Case) -> Float[Tensor, "offset model"]:
    """Gradient of f with respect to each token embedding of a text."""
    tokens, ends = padded([case.text.tokens], subject.net.device)
    with torch.enable_grad():
        embedding = subject.net.embed[tokens].detach().clone().requires_grad_(True)
        seen = see_once(subject.net, subject.target, tokens, ends, embedding)
        (found,) = torch.autograd.grad(subject.f(seen, [(case.text, case.here)]).sum(), embedding, allow_unused=True)
    return (torch.zeros_like(embedding) if found is None else found)[0].detach()


def predicted(subject: _Subject, case: Case) -> Float[Tensor, "group vocab"]:
    """First-order change of f for every group of offsets and every token; a group's changes add up."""
    slope = slopes(subject, case)
    tokens = torch.tensor(case.text.tokens, device=slope.device)
    own = (slope * subject.net.embed[tokens]).sum(-1)
    group = torch.zeros(len(case.groups), len(tokens), dtype=slope.dtype, device=slope.device)
    for row, offsets in enumerate(case.groups):
        group[row, list(offsets)] = 1.0
    return group @ slope @ subject.net.embed.T - (group @ own)[:, None]


def propose(subject: _Subject, case: Case, n: int) -> tuple[Swap, ...]:
    """The `n` allowed swaps of largest predicted effect, at most half of them of offsets that are swapped together.

    A first-order prediction cannot see that two tokens that must match still do when both are swapped, so it overrates
    these; the other half keeps the search open.
    """
    change = predicted(subject, case).masked_fill(~_usable(subject, case), torch.nan)
    change = -change if subject.search == "break" else change
    change = change.nan_to_num(nan=-torch.inf)
    order, width = change.flatten().argsort(descending=True, stable=True), change.shape[1]
    listed = (Swap(case.groups[i // width], i % width) for i in order[: int(change.isfinite().sum())].tolist())
    return _first(subject, case, listed, n, most_together=n // 2)


def at_random(subject: _Subject, case: Case, n: int, rng: np.random.Generator) -> tuple[Swap, ...]:
    """`n` allowed swaps, groups and tokens drawn uniformly."""
    groups, tokens = (index.tolist() for index in _usable(subject, case).nonzero(as_tuple=True))
    order = rng.permutation(len(tokens))[:CHECKED]
    return _first(subject, case, (Swap(case.groups[groups[i]], tokens[i]) for i in order), n, most_together=n)


def _usable(subject: _Subject, case: Case) -> Bool[Tensor, "group vocab"]:
    """Which tokens may be put where: ordinary ones, not the one there, and a neuron's own token on its side of the class."""
    vocabulary, text = subject.vocabulary, case.text
    usable = np.repeat(vocabulary.ordinary[None], len(case.groups), 0)
    for row, offsets in enumerate(case.groups):
        usable[row, text.tokens[offsets[0]]] = False
        if subject.claim.kind == "neuron" and text.end in offsets and not subject.claim.role.startswith("fires before"):
            usable[row] &= vocabulary.with_property(subject.claim.token_property) == case.here.trigger
    return torch.from_numpy(usable).to(subject.net.device)


def _first(subject: _Subject, case: Case, swaps: Iterable[Swap], n: int, most_together: int) -> tuple[Swap, ...]:
    """The first `n` of some swaps of which the claim says the same as before, among the first CHECKED."""
    kept: list[Swap] = []
    together = 0
    for swap in islice(swaps, CHECKED):
        if len(kept) == n:
            break
        joint = len(swap.offsets) > 1
        if (joint and together == most_together) or not subject.allowed(case.text, case.here, swap):
            continue
        kept.append(swap)
        together += joint
    return tuple(kept)


def measured(subject: _Subject, case: Case, swaps: Sequence[Swap]) -> Tried:
    """f after each swap, by forward passes."""
    texts = [(replace(case.text, tokens=swap.on(case.text.tokens)), case.here) for swap in swaps]
    return Tried(case, tuple(swaps), subject.measure(texts))


def _search(
    subject: _Subject,
    cases: Sequence[Case],
    rng: np.random.Generator,
    told: "_Told",
    succeeds: Callable[[Case, np.ndarray], np.ndarray],
    acting: Sequence[Case],
) -> tuple[tuple[Edit, ...], tuple[Finding, ...]]:
    """One search over all cases."""
    enough = len(acting) >= FEWEST
    chosen = cases if enough else ()
    guided = [measured(subject, case, propose(subject, case, told.tried)) for case in chosen if case.groups]
    random = [measured(subject, case, at_random(subject, case, told.tried, rng)) for case in chosen if case.groups]
    findings = told.findings(subject.search, guided, random, succeeds, len(acting))
    top = max((case.before for case in acting), default=1.0)
    scale = top if subject.target.site == "neuron" or subject.search == "fire" else 1.0
    return tuple(
        _edit(subject, g, r, told, scale) for g, r in zip(guided, random, strict=True) if g.swaps and r.swaps
    ), findings


def _edit(subject: _Subject, guided: Tried, random: Tried, told: "_Told", scale: float) -> Edit:
    """The best swap of a text, beside the best random one."""
    sign = -1.0 if subject.search == "break" else 1.0
    moved, chance = (sign * (one.after - one.case.before) / scale for one in (guided, random))
    swap = guided.swaps[int(moved.argmax())]
    text = guided.case.text
    after = swap.on(text.tokens)
    before, changed = (spell(tokens, swap.offsets, subject.vocabulary) for tokens in (text.tokens, after))
    return Edit(told.component, told.claim.role, f"swap to {subject.search}", told.rung, before, changed, text.end, float(moved.max()),
                float(chance.max()))  # fmt: skip


@dataclass(frozen=True)
class _Told:
    """What all findings of one check have in common."""

    component: str
    claim: Claim
    rung: str
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
            why = self.claim.untestable or f"only {acting if acting < FEWEST else n} texts {which}: {FEWEST} are needed"
            return tuple(
                refused(self.component, self.claim.role, "swaps", self.rung, name, n, self.unit, why) for name in names
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
        lo, hi = interval(value, n, held, len(n), n.sum() ** 2 / (n**2).sum())
        chance = float(np.concatenate(random).mean())
        return self._finding(name, value, lo, hi, len(n), chance, None)

    def _finding(
        self, name: str, value: float, lo: float | None, hi: float | None, n: int, null: float, p: float | None
    ) -> Finding:
        setting = Setting(
            "node", self.claim.kind, "token swap", "last token", "gradient against random", f"{self.tried} swaps a text"
        )
        return Finding(self.component, self.claim.role, "swaps", self.rung, name, value, lo, hi, n, self.unit, null, None, p, setting,
                       self.shares)  # fmt: skip
