"""Rules that can replace a head or neuron: what it is said to do, in executable form.

Why: an explanation that cannot replace what it explains leaves something out (Chan et al. 2022, "Causal scrubbing"; the
essay on replacing a component by our understanding). A rule sees one batch of windows and gives what the component
would have done if the rule were all that it does:

| gives | shape | what |
|---|---|---|
| pattern | window query key | attention; values and output matrix are kept |
| live | window offset d_head, or window offset | what the head mixed before W_O; the neuron's activation |
| write | window offset model | what is added to the residual stream |

Beside it, where the rule has something to say. Where it has not (no earlier copy to attend to) its fallback stands: a
head attends to the first token, a mean per class is the mean over all. Those positions are counted, never left out.

A rule may be fitted, on documents that it is not tested on: `fit` sums what it needs and makes the fitted rule of it.
Built-in rules are in `BUILT_IN`; a function of tokens, or a `Rule`, is a rule of the user's own. Cost: a few
comparisons of [window, query, key].
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.errors import PatchError
from profiler.generality.evidence.claims import claim_of
from profiler.model.steps.network import Network
from profiler.patching.sites import Target

Gives = Literal["pattern", "live", "write"]
Tokens = Int[Tensor, "window offset"]
Attended = Bool[Tensor, "window query key"]
Pattern = Float[Tensor, "window query key"]
Live = Float[Tensor, "window offset *inside"]
Says = Bool[Tensor, "window offset"]
LONGEST_PREFIX = 8
MOST_CLASSES = 64
"""Classes of tokens that a mean is made for."""


@dataclass(frozen=True, eq=False)
class RuleInput:
    """What a rule may use: one batch as the model ran it.

    Attributes:
        net, target: the model, and the head or neuron that is replaced.
        tokens: ids, padded on the right.
        classes: class ids of the tokens (profiler.text.token_classes).
        stream: the residual stream that the component's layer reads.
        live: what the component did: mixed values of a head, activation of a neuron.
        pattern, v: of a head, its attention and values; None for a neuron.
        mean: mean of `live` over the fitting documents.
    """

    net: Network
    target: Target
    tokens: Tokens
    classes: Tokens
    stream: Float[Tensor, "window offset model"]
    live: Live
    pattern: Pattern | None
    v: Float[Tensor, "window key d_head"] | None
    mean: Float[Tensor, "*inside"]

    @cached_property
    def same(self) -> Attended:
        """Earlier offsets that hold the same token."""
        return (self.tokens[:, :, None] == self.tokens[:, None, :]).tril(-1)


def pattern_of(seen: RuleInput) -> Pattern:
    """The attention of the head that is replaced.

    Raises:
        PatchError: a neuron is replaced, which has none.
    """
    if seen.pattern is None:
        raise PatchError(f"{seen.target.label} has no attention: give a rule for neurons, or name a head")
    return seen.pattern


def values_of(seen: RuleInput) -> Float[Tensor, "window key d_head"]:
    """The values of the head that is replaced.

    Raises:
        PatchError: a neuron is replaced, which has none.
    """
    if seen.v is None:
        raise PatchError(f"{seen.target.label} has no values: give a rule for neurons, or name a head")
    return seen.v


@dataclass(frozen=True, eq=False)
class Fit:
    """How a rule is fitted: sums over counted positions of many batches, and the rule that they make."""

    sums: Callable[[RuleInput, Bool[Tensor, "window offset"]], Tensor]
    rule: Callable[[Tensor], "Rule"]


@dataclass(frozen=True, eq=False)
class Rule:
    """What a component is said to do.

    Attributes:
        name: shown to people.
        gives: what `value` returns.
        value: what the component would do, and where the rule says something rather than falls back.
        fallback: what stands where it says nothing, in words.
        fit: how it is fitted; None where nothing is.
    """

    name: str
    gives: Gives
    value: Callable[[RuleInput], tuple[Tensor, Says]]
    fallback: str = "none needed"
    fit: Fit | None = None


def everywhere(seen: RuleInput) -> Says:
    """A rule that always says something."""
    return torch.ones_like(seen.tokens, dtype=torch.bool)


# --- attention ---


def back(seen: RuleInput, steps: int) -> Attended:
    """The offset `steps` before."""
    width = seen.tokens.shape[1]
    band = torch.ones(width, width, dtype=torch.bool, device=seen.tokens.device).tril(-steps).triu(-steps)
    return band.expand(len(seen.tokens), -1, -1)


def followers(copies: Attended) -> Attended:
    """The offsets after these, before the query's own (a doubled token follows its copy)."""
    return torch.nn.functional.pad(copies, (1, -1)).tril(-1)


def longest(seen: RuleInput) -> Attended:
    """Of the earlier copies, those before which most tokens agree with the tokens before here (up to
    LONGEST_PREFIX)."""
    matching = longest_match = seen.same
    for _ in range(LONGEST_PREFIX - 1):
        matching = seen.same & torch.nn.functional.pad(matching[:, :-1, :-1], (1, 0, 1, 0))
        longest_match = torch.where(matching.any(-1, keepdim=True), matching, longest_match)
    return longest_match


def latest(attended: Attended) -> Attended:
    """The last of the attended positions alone."""
    return attended & (attended.flip(-1).cumsum(-1).flip(-1) == 1)


def first(seen: RuleInput) -> Pattern:
    """All attention on the first token of the window."""
    pattern = torch.zeros_like(pattern_of(seen))
    pattern[..., 0] = 1.0
    return pattern


ATTENDED: dict[str, Callable[[RuleInput], Attended]] = {
    "induction": lambda seen: followers(seen.same),
    "prefix_induction": lambda seen: followers(longest(seen)),
    "latest_induction": lambda seen: followers(latest(seen.same)),
    "duplicate": lambda seen: seen.same,
    "previous_token": lambda seen: back(seen, 1),
    "two_back": lambda seen: back(seen, 2),
    "self": lambda seen: back(seen, 0),
}
"""Positions that a head is said to attend to: names and definitions of profiler.model.attention.MASSES.

`prefix_induction` takes the longest agreement there is, one token or more; `latest_induction` the last copy alone."""


def attends(name: str, attended: Callable[[RuleInput], Attended], weight: float = 1.0) -> Rule:
    """The rule that `weight` of the attention lies evenly on the attended positions, the rest on the first token."""

    def value(seen: RuleInput) -> tuple[Pattern, Says]:
        where = attended(seen)
        says = where.any(-1)
        even = where.to(pattern_of(seen).dtype) / where.sum(-1, keepdim=True).clamp_min(1)
        share = weight * says.to(even.dtype)[..., None]
        return share * even + (1 - share) * first(seen), says

    return Rule(name, "pattern", value, "attends to the first token")


def calibrated(name: str, attended: Callable[[RuleInput], Attended]) -> Rule:
    """The same with the mean attention that the head gives to such positions in other documents."""

    def sums(seen: RuleInput, counted: Says) -> Tensor:
        where = attended(seen)
        there = counted & where.any(-1)
        return torch.stack([(pattern_of(seen) * where).sum(-1)[there].sum().double(), there.sum().double()])

    def fitted(total: Tensor) -> Rule:
        weight = float(total[0] / total[1].clamp_min(1))
        return replace(
            attends(f"{name}_calibrated", attended, weight),
            fallback=f"first token; {weight:.2f} on the rule's positions",
        )

    return Rule(f"{name}_calibrated", "pattern", attends(name, attended).value, fit=Fit(sums, fitted))


def attends_first() -> Rule:
    """The rule that a head rests on the first token."""
    return Rule("first_token", "pattern", lambda seen: (first(seen), everywhere(seen)))


def own_pattern() -> Rule:
    """The head's own attention: replaces nothing, for checks."""
    return Rule("own_pattern", "pattern", lambda seen: (pattern_of(seen), everywhere(seen)))


# --- means ---


def mean_of(seen: RuleInput) -> Live:
    """The component's mean at every position: mean ablation."""
    return seen.mean.expand_as(seen.live)


def mean_per(name: str, group: Callable[[RuleInput], Tokens], n_groups: Callable[[RuleInput], int]) -> Rule:
    """The rule that a component depends on a position's group alone: its mean there in other documents."""

    def sums(seen: RuleInput, counted: Says) -> Tensor:
        live = seen.live[counted].flatten(1) if seen.pattern is not None else seen.live[counted][:, None]
        rows = torch.cat([torch.ones_like(live[:, :1]), live], 1).double()
        total = torch.zeros(n_groups(seen), rows.shape[1], dtype=torch.float64, device=rows.device)
        return total.index_add(0, group(seen)[counted], rows)

    def fitted(total: Tensor) -> Rule:
        known = total[:, 0] > 0
        overall = total[:, 1:].sum(0) / total[:, 0].sum().clamp_min(1)
        means = torch.where(known[:, None], total[:, 1:] / total[:, :1].clamp_min(1), overall)

        def value(seen: RuleInput) -> tuple[Tensor, Says]:
            means_here = means[group(seen)].to(seen.live.dtype)
            return (means_here if seen.pattern is not None else means_here[..., 0]), known[group(seen)]

        return _grouped(name, value)

    return replace(_grouped(name, lambda seen: (mean_of(seen), everywhere(seen))), fit=Fit(sums, fitted))


def _grouped(name: str, value: Callable[[RuleInput], tuple[Tensor, Says]]) -> Rule:
    return Rule(name, "live", value, "the mean over all groups")


def class_mean() -> Rule:
    """Depends on the class of the token alone."""
    return mean_per("class_mean", lambda seen: seen.classes, lambda seen: _at_least(seen.classes, MOST_CLASSES))


def token_mean() -> Rule:
    """Depends on the token alone."""
    return mean_per("token_mean", lambda seen: seen.tokens, lambda seen: seen.net.n_vocab)


def _at_least(ids: Tokens, least: int) -> int:
    if int(ids.max()) >= least:
        raise PatchError(f"there are more than {least} classes of tokens: a mean per class is made for at most {least}")
    return least


# --- rules by name ---

_ATTENTION = {name: attends(name, attended) for name, attended in ATTENDED.items()}
_CALIBRATED = {f"{name}_calibrated": calibrated(name, attended) for name, attended in ATTENDED.items()}
RULES: dict[str, Rule] = {
    **_ATTENTION,
    **_CALIBRATED,
    "first_token": attends_first(),
    "own_pattern": own_pattern(),
    "class_mean": class_mean(),
    "token_mean": token_mean(),
}
"""Rules of this module; copy_rules.py has those of copying and copy suppression."""


def of_function(function: Callable[[Tokens], Tensor], target: Target, name: str = "own rule") -> Rule:
    """A rule from a function of tokens alone.

    The function returns attention [window, query, key] of a head, or activations [window, offset] of a neuron.
    """

    def value(seen: RuleInput) -> tuple[Tensor, Says]:
        given = function(seen.tokens).to(seen.live.dtype)
        wanted = (pattern_of(seen) if target.site == "head" else seen.live).shape
        if given.shape != wanted:
            raise PatchError(
                f"the rule for {target.label} gave shape {tuple(given.shape)}, expected {tuple(wanted)}: "
                + ("attention [window, query, key]" if target.site == "head" else "activations [window, offset]")
            )
        return given, everywhere(seen)

    return Rule(getattr(function, "__name__", name), "pattern" if target.site == "head" else "live", value)


def rule_of_role(role: str, component: str) -> str:
    """Name of the built-in rule that a role's words claim; empty where there is none.

    A role that says where a head attends is that attention; movers and copiers keep their attention and write only
    towards what they attend to; negative ones only away from it; a neuron is its mean per class.
    """
    claim = claim_of(role, component)
    if claim is None:
        return ""
    if claim.kind == "neuron":
        return "class_mean"
    if claim.role == "copy suppression":
        return "copy_suppression"
    if claim.role in ("copying", "name mover"):
        return "copying"
    return claim.mass if claim.mass in RULES else ""
