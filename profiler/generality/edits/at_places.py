"""Edits at the places that a role names: is what stands there what the head reads? See placed.py and edits.py.

Why: attention to a place is no proof that what stands there is used. Where a role says `at end attends to S2`, the
  token
at S2 becomes another one, and the part of that change of value which shows in what the head mixed at the end says how
much of S2 arrives; beside it a control edit of a token nearby that no role names. What is put in stood at the same
place of another prompt; of a place of several tokens the one that the head attends to most is edited, or the first.
Places that are the token itself, the one before it or the first are left out: other claims say those (`current token`,
`previous token`, `first token`).
Cost: three forward passes of a distribution's clean prompts a member, for the discovery prompts and natural text.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from profiler.circuits.positions import PositionRole
from profiler.generality.coverage.at_places import NAMELESS, Claimed, attended, claimed_of, does_task, has, head_number
from profiler.generality.distributions.subject import PromptDistribution, Subject
from profiler.generality.edits import edits
from profiler.generality.edits.plans import NEAR, Plan
from profiler.generality.edits.texts import Text, Vocabulary, vocabulary_of
from profiler.generality.evidence.claims import CURRENT
from profiler.generality.evidence.distributions import DISCOVERY, NATURAL
from profiler.generality.faithfulness.prompts import unit_of
from profiler.prompts.pairs import TokenPair

OPERATION = "replace what is attended to"


def edited(subject: Subject) -> tuple[Any, ...]:
    """Findings and Edit rows of every role that names places of the pairs."""
    claimed = [one for one in claimed_of(subject) if one[1].to not in NAMELESS]
    distributions = [
        r
        for r in subject.distributions.prompts
        if r.distribution.name in (DISCOVERY, NATURAL) and r.setting and does_task(r.setting)
    ]
    if not claimed or not distributions:
        return ()
    vocabulary, rows = vocabulary_of(subject.run), []
    for one in distributions:
        for each in claimed:
            rows += on_distribution(subject, one, each, vocabulary)
    return tuple(rows)


def on_distribution(subject: Subject, one: PromptDistribution, claimed: Claimed, vocabulary: Vocabulary) -> list[Any]:
    """The edits of one role on one distribution; nothing where no prompt can be edited, which the coverage has said."""
    member, place = claimed
    batch, net = one.setting.batch, subject.net  # type: ignore[union-attr]
    if not (has(batch, place.at) and has(batch, place.to)):
        return []
    most = attended(net, batch, place.at).most[:, head_number(net, member)]
    sources = [_source(pair, place, int(offset)) for pair, offset in zip(batch.pairs, most, strict=True)]
    pool = sorted({pair.clean[i] for pair, i in zip(batch.pairs, sources, strict=True) if i is not None})
    rng = np.random.default_rng(subject.settings.seed)
    both = zip(batch.pairs, sources, strict=True)
    made = [plan for pair, i in both if i is not None and (plan := plan_of(pair, place, i, pool, vocabulary, rng))]
    if not made:
        return []
    claim, shares = replace(CURRENT, called=member.role), (f"data {one.distribution.name}",)
    found = edits.of_plans(
        net, member.component, claim, made, vocabulary, one.distribution.name, unit_of(one.distribution), shares
    )
    return [*found.findings, *found.edits]


def _source(pair: TokenPair, place: PositionRole, most: int) -> int | None:
    """The offset to edit: of the place that is attended to, before the one that attends; None where there is none."""
    roles = dict(pair.roles)
    before = [i for i in roles.get(place.to, ()) if i < max(roles.get(place.at, (0,)))]
    return (most if most in before else min(before)) if before else None


def plan_of(
    pair: TokenPair,
    place: PositionRole,
    source: int,
    pool: Sequence[int],
    vocabulary: Vocabulary,
    rng: np.random.Generator,
) -> Plan | None:
    """The clean prompt up to the one place, with the token at `source` replaced; None where no token can be put in.

    Args:
        pool: tokens that stand at the same place of prompts.
    """
    tokens = tuple(pair.clean[: max(dict(pair.roles)[place.at]) + 1])
    text = Text(pair.pair.stratum("document") or pair.pair.name, tokens, pair.answers[0])
    beside = _control(tokens, source, {i for _, offsets in pair.roles for i in offsets}, vocabulary)
    others = [token for token in pool if token not in (*tokens, *pair.answers, *pair.distractors)]
    if beside is None or not others:
        return None
    other = vocabulary.like(rng, tokens[beside], {*tokens, text.next_token})
    if other is None:
        return None
    return Plan(OPERATION, text, _put(tokens, source, int(rng.choice(others))), _put(tokens, beside, other), "arrival")


def _control(tokens: Sequence[int], source: int, named: set[int], vocabulary: Vocabulary) -> int | None:
    """The nearest ordinary token that no role names."""
    free = [i for i in range(1, len(tokens) - 1) if i not in named and vocabulary.ordinary[tokens[i]]]
    near = [i for i in free if abs(i - source) <= NEAR]
    return min(near, key=lambda i: (abs(i - source), i)) if near else None


def _put(tokens: Sequence[int], offset: int, token: int) -> tuple[int, ...]:
    """The text with another token at an offset."""
    return (*tokens[:offset], token, *tokens[offset + 1 :])
