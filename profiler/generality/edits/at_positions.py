"""Edits at the positions that a role names: whether what stands there is what the head reads.

Why: attention to a position is no proof that what stands there is used. Where a role says `at end attends to S2`, the
token at S2 becomes another one, and the part of that change of value which shows in what the head mixed at the end says
how much of S2 arrives; beside it a control edit of a token nearby that no role names. What is put in is the
token of the corrupted prompt, whose effect the circuit is about; where that is the same, a token that stood at the same
position of another clean prompt. Prompts in which the head reads the same of both show nothing and are left out. Of a
position of several tokens the one that the head attends to most is edited, or the
first. Positions that are the token itself, the one before it or the first are left out: other claims say those
(`current token`, `previous token`, `first token`). See edits.py and coverage/at_positions.py.
Cost: three forward passes of a distribution's clean prompts a member, for the discovery prompts and natural text.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from profiler.circuits.positions import PositionRole
from profiler.generality.coverage.at_positions import NAMELESS, attended, claimed_of, does_task, has, head_number
from profiler.generality.distributions.subject import CheckSubject, PromptDistribution
from profiler.generality.edits import edits
from profiler.generality.edits.plans import NEAR, EditPlan
from profiler.generality.edits.texts import EditText, Vocabulary, vocabulary_of
from profiler.generality.evidence.claims import CURRENT
from profiler.generality.evidence.distributions import DISCOVERY, NATURAL
from profiler.generality.evidence.finding import Question, StageResult, joined
from profiler.patching.setting import PairRuns
from profiler.prompts.pairs import TokenPair

OPERATION = "replace what is attended to"


def edited(subject: CheckSubject) -> StageResult:
    """Rates and Edit rows of every role that names positions of the pairs."""
    claimed = [(member, role) for member, role in claimed_of(subject) if role.to not in NAMELESS]
    distributions = [
        prompts
        for prompts in subject.distributions.prompts
        if prompts.distribution.name in (DISCOVERY, NATURAL)
        and prompts.setting
        and does_task(prompts.setting, subject.settings.thresholds)
    ]
    if not claimed or not distributions:
        return StageResult()
    vocabulary = vocabulary_of(subject.run)
    return joined(
        on_distribution(
            subject,
            prompts,
            subject.question("edits", prompts.distribution, member.component, member.role),
            role,
            vocabulary,
        )
        for prompts in distributions
        for member, role in claimed
    )


def on_distribution(
    subject: CheckSubject, prompts: PromptDistribution, question: Question, role: PositionRole, vocabulary: Vocabulary
) -> StageResult:
    """The edits of one role on one distribution; empty where no prompt can be edited, which the coverage says."""
    setting: PairRuns = prompts.setting  # type: ignore[assignment]
    batch, net = setting.batch, subject.net
    if not (has(batch, role.at) and has(batch, role.to)):
        return StageResult()
    most = attended(net, batch, role.at).most[:, head_number(net, question.subject)]
    sources = [_source(pair, role, int(offset)) for pair, offset in zip(batch.pairs, most, strict=True)]
    pool = sorted({pair.clean[i] for pair, i in zip(batch.pairs, sources, strict=True) if i is not None})
    rng = np.random.default_rng(subject.settings.seed)
    both = zip(batch.pairs, sources, strict=True)
    made = [plan for pair, i in both if i is not None and (plan := plan_of(pair, role, i, pool, vocabulary, rng))]
    if not made:
        return StageResult()
    done = edits.of_plans(net, question, replace(CURRENT, called=question.role), made, vocabulary)
    return StageResult(done.findings, done.edits)


def _source(pair: TokenPair, role: PositionRole, most: int) -> int | None:
    """The offset to edit: of the position attended to, before the one that attends; None where there is none."""
    roles = dict(pair.roles)
    before = [i for i in roles.get(role.to, ()) if i < max(roles.get(role.at, (0,)))]
    return (most if most in before else min(before)) if before else None


def plan_of(
    pair: TokenPair,
    role: PositionRole,
    source: int,
    pool: Sequence[int],
    vocabulary: Vocabulary,
    rng: np.random.Generator,
) -> EditPlan | None:
    """The clean prompt up to the position, with the token at `source` replaced; None where no token can be put in.

    Args:
        pool: tokens that stand at the same position of prompts, for pairs that do not differ there.
    """
    tokens = tuple(pair.clean[: max(dict(pair.roles)[role.at]) + 1])
    corrupted = pair.corrupted[source]
    text = EditText(pair.pair.stratum("document") or pair.pair.name, tokens, pair.answers[0])
    beside = _control(tokens, source, {i for _, offsets in pair.roles for i in offsets}, vocabulary)
    fillers = [token for token in pool if token not in (*tokens, *pair.answers, *pair.distractors)]
    fillers = [corrupted] if corrupted != tokens[source] else fillers
    if beside is None or not fillers:
        return None
    other = vocabulary.like(rng, tokens[beside], {*tokens, text.next_token})
    if other is None:
        return None
    return EditPlan(
        OPERATION, text, _put(tokens, source, int(rng.choice(fillers))), _put(tokens, beside, other), "arrival"
    )


def _control(tokens: Sequence[int], source: int, named: set[int], vocabulary: Vocabulary) -> int | None:
    """The nearest ordinary token that no role names."""
    free = [i for i in range(1, len(tokens) - 1) if i not in named and vocabulary.ordinary[tokens[i]]]
    near = [i for i in free if abs(i - source) <= NEAR]
    return min(near, key=lambda i: (abs(i - source), i)) if near else None


def _put(tokens: Sequence[int], offset: int, token: int) -> tuple[int, ...]:
    """The text with another token at an offset."""
    return (*tokens[:offset], token, *tokens[offset + 1 :])
