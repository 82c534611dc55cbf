"""Single token swaps of a text: which are allowed, what the gradient predicts, and what a forward pass measures.

The search of `profiler.generality.edits.swaps` in its parts. A swap is allowed where the claim says the same of the
swapped text: the trigger as it was, and the same offsets to attend to. Expected changes are those of HotFlip (Ebrahimi
et al. 2018),

    (E[y] - E[x_i]) . df / dE_i

summed over offsets that are swapped together. Cost: one backward pass a text for all offsets and tokens; then one
forward pass a swap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler.generality.edits.observe import ComponentState, logit_written, mass, padded, see_once
from profiler.generality.edits.sites import CARRIERS, Expectation, expectation
from profiler.generality.edits.texts import EditText, Vocabulary
from profiler.generality.evidence.claims import Claim
from profiler.model.steps.network import Network
from profiler.patching.sites import Target

CUTS = 4
"""Cuts of one text among which the search looks for one where the component acts (or rests)."""
CHECKED = 5000
"""Proposals of one text that are compared with the claim before the search gives up."""
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

    text: EditText
    here: Expectation
    groups: Groups
    before: float


@dataclass(frozen=True, eq=False)
class Tried:
    """The swaps that were measured on one case, and f after each."""

    case: Case
    swaps: tuple[Swap, ...]
    after: Float[np.ndarray, " swap"]


@dataclass(frozen=True, eq=False)
class SwapSearch:
    """The model, the component and the claim of a search; `f` is what it lowers or raises."""

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

    def f(self, seen: ComponentState, cases: Sequence[tuple[EditText, Expectation]]) -> Float[Tensor, " text"]:
        """The number that a search moves, one a text."""
        if self.watch == "activation":
            return seen.norm
        if self.watch == "attention":
            return mass(seen.attention, [here.targets for _, here in cases])
        tokens = torch.tensor([text.next_token for text, _ in cases], device=self.net.device)
        return CARRIERS[self.claim.role] * logit_written(self.net, self.target, seen, tokens)

    def measure(self, cases: Sequence[tuple[EditText, Expectation]]) -> Float[np.ndarray, " text"]:
        """f of each text, exactly."""
        parts = []
        with torch.inference_mode():
            for begin in range(0, len(cases), 32):
                some = cases[begin : begin + 32]
                tokens, ends = padded([text.tokens for text, _ in some], self.net.device)
                seen = see_once(self.net, self.target, tokens, ends, residual=self.watch == "logit")
                parts.append(self.f(seen, some).double().cpu())
        return torch.cat(parts).numpy() if parts else np.zeros(0)

    def allowed(self, text: EditText, here: Expectation, swap: Swap) -> bool:
        """Whether the claim says the same of the swapped text."""
        return expectation(self.claim, replace(text, tokens=swap.on(text.tokens)), self.vocabulary) == here


def one_each(cases: Iterable[Case]) -> list[Case]:
    """The first case of each document."""
    by_document: dict[str, Case] = {}
    for case in cases:
        by_document.setdefault(case.text.document, case)
    return list(by_document.values())


def cases_of(
    subject: SwapSearch, texts: Sequence[EditText], rng: np.random.Generator, *, trigger: bool, fixed_end: bool
) -> list[Case]:
    """Up to CUTS cases of each text, cut at random tokens where the trigger is as asked for."""
    chosen: list[tuple[EditText, Expectation]] = []
    for text in texts:
        ends = [] if fixed_end else rng.permutation(np.arange(4, text.end))[: 8 * CUTS].tolist()
        cuts = [text] if fixed_end else (text.upto(int(end)) for end in ends)
        pairs = ((cut, expectation(subject.claim, cut, subject.vocabulary)) for cut in cuts)
        chosen += islice((pair for pair in pairs if pair[1].trigger == trigger), CUTS)
    before = subject.measure(chosen)
    return [
        Case(text, here, groups_of(text, here, subject.vocabulary), float(f))
        for (text, here), f in zip(chosen, before, strict=True)
    ]


def groups_of(text: EditText, here: Expectation, vocabulary: Vocabulary) -> Groups:
    """Offsets that may be swapped: each ordinary one alone; copies that make the trigger with the last token."""
    same = [i for i in here.causes if text.tokens[i] == text.tokens[text.end]]
    tied = {*here.causes, text.end} if same else set(here.causes)
    alone = tuple((i,) for i in range(text.end + 1) if i not in tied and vocabulary.ordinary[text.tokens[i]])
    together = tuple(sorted(tied))
    movable = together and all(vocabulary.ordinary[text.tokens[i]] for i in together)
    return (*alone, together) if movable else alone


def slopes(subject: SwapSearch, case: Case) -> Float[Tensor, "offset model"]:
    """Gradient of f with respect to each token embedding of a text."""
    tokens, ends = padded([case.text.tokens], subject.net.device)
    with torch.enable_grad():
        embedding = subject.net.embed[tokens].detach().clone().requires_grad_()
        seen = see_once(subject.net, subject.target, tokens, ends, embedding, residual=subject.watch == "logit")
        (gradient,) = torch.autograd.grad(subject.f(seen, [(case.text, case.here)]).sum(), embedding, allow_unused=True)
    return (torch.zeros_like(embedding) if gradient is None else gradient)[0].detach()


def predicted(subject: SwapSearch, case: Case) -> Float[Tensor, "group vocab"]:
    """First-order change of f for every group of offsets and every token; a group's changes add up."""
    slope = slopes(subject, case)
    tokens = torch.tensor(case.text.tokens, device=slope.device)
    own = (slope * subject.net.embed[tokens]).sum(-1)
    group = torch.zeros(len(case.groups), len(tokens), dtype=slope.dtype, device=slope.device)
    for row, offsets in enumerate(case.groups):
        group[row, list(offsets)] = 1.0
    return group @ slope @ subject.net.embed.T - (group @ own)[:, None]


def propose(subject: SwapSearch, case: Case, n: int) -> tuple[Swap, ...]:
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


def at_random(subject: SwapSearch, case: Case, n: int, rng: np.random.Generator) -> tuple[Swap, ...]:
    """`n` allowed swaps, groups and tokens drawn uniformly."""
    groups, tokens = (index.tolist() for index in _usable(subject, case).nonzero(as_tuple=True))
    order = rng.permutation(len(tokens))[:CHECKED]
    return _first(subject, case, (Swap(case.groups[groups[i]], tokens[i]) for i in order), n, most_together=n)


def _usable(subject: SwapSearch, case: Case) -> Bool[Tensor, "group vocab"]:
    """Tokens that may be put in: ordinary, not the one there, and for a neuron's own token of the same class."""
    vocabulary, text = subject.vocabulary, case.text
    usable = np.repeat(vocabulary.ordinary[None], len(case.groups), 0)
    for row, offsets in enumerate(case.groups):
        usable[row, text.tokens[offsets[0]]] = False
        if subject.claim.kind == "neuron" and text.end in offsets and not subject.claim.role.startswith("fires before"):
            usable[row] &= vocabulary.with_property(subject.claim.token_property) == case.here.trigger
    unknown = len(subject.net.embed) - usable.shape[1]  # ids of the model that the run has no token for
    return torch.from_numpy(np.pad(usable, ((0, 0), (0, unknown)))).to(subject.net.device)


def _first(subject: SwapSearch, case: Case, swaps: Iterable[Swap], n: int, most_together: int) -> tuple[Swap, ...]:
    """The first `n` of some swaps of which the claim says the same as before, among the first CHECKED."""
    first: list[Swap] = []
    together = 0
    for swap in islice(swaps, CHECKED):
        if len(first) == n:
            break
        joint = len(swap.offsets) > 1
        if (joint and together == most_together) or not subject.allowed(case.text, case.here, swap):
            continue
        first.append(swap)
        together += joint
    return tuple(first)


def measured(subject: SwapSearch, case: Case, swaps: Sequence[Swap]) -> Tried:
    """f after each swap, by forward passes."""
    texts = [(replace(case.text, tokens=swap.on(case.text.tokens)), case.here) for swap in swaps]
    return Tried(case, tuple(swaps), subject.measure(texts))
