"""Coverage of roles that name positions of prompts, on every distribution of prompts. See profiler.circuits.positions.

Why: `at end attends to S2` is a claim about the last token of a prompt. Asked at every position of a text it fails
whatever the head does; asked where a text has an end and an S2, it can hold on text that nobody wrote for it, or fail.
What the same head does everywhere else is another question: its role's general form (`CheckSubject.general`) is asked
by the other stages.

A prompt counts where the token that the head attends to most, from the (last) token of the one position, is in the
other position. Prompts weigh by what the head does there for the answer, through whatever it acts on: the change of the
logit difference, in size, when what it writes at the position becomes what it writes there on the corrupted prompt, or
the change that its clean value makes in the corrupted prompt, whichever is larger. (An S-inhibition head writes nothing
of the answer itself; |DLA| would weigh its prompts by chance. A head that another one can stand in for loses nothing
when it alone is changed, and restores the answer alone.) `null` is the mean over
the other heads of the layer, on prompts weighed alike: a claim that all of them meet may be true, and is not about this
one.

Where the model itself does not do the task (its effect is not above 0 beyond doubt), the share is given under another
name (UNDONE) and decides nothing. Beside each role stands what the head attends to at its position, as a mixture: the
other positions of the prompts by name, and all other tokens together.
Cost: three forward passes of each distribution's prompts, and two thirds of one for each role.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits.circuit import Member
from profiler.circuits.positions import BEFORE, FIRST, ITSELF, PositionRole, position_role
from profiler.generality.coverage.everywhere import PROMPTS_AT_ONCE, bounded, heads_at
from profiler.generality.distributions.subject import CheckSubject, PromptDistribution
from profiler.generality.evidence.finding import NO_NULL, Finding, Interval, Null, Question, StageResult
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.generality.faithfulness.prompts import clusters_of, own_question, ratio
from profiler.model.steps.network import Network
from profiler.patching.batch import PairBatch, trace
from profiler.patching.setting import PairRuns
from profiler.patching.sites import parse_target
from profiler.patching.sweep import resample, sweep
from profiler.statistics import ROUNDING, is_higher

NAMELESS = (ITSELF, BEFORE, FIRST)
UNDONE = "coverage where the model does not do the task"
Claimed = tuple[Member, PositionRole]


def findings(subject: CheckSubject) -> StageResult:
    """Coverage of every role that names positions, on every distribution of prompts."""
    claimed = claimed_of(subject)
    rows: list[Finding] = []
    for prompts in subject.distributions.prompts if claimed else ():
        if prompts.setting is not None and own_question(subject, prompts):
            asked = [
                (subject.question("coverage", prompts.distribution, member.component, member.role), role)
                for member, role in claimed
            ]
            rows += on_distribution(subject.net, prompts, asked)
    return StageResult(tuple(rows))


def claimed_of(subject: CheckSubject) -> list[Claimed]:
    """Heads of the circuit whose roles name positions."""
    heads = [m for m in subject.circuit.members if parse_target(m.component).site == "head"]
    return [(m, role) for m in heads if (role := position_role(m.role))]


def head_number(net: Network, component: str) -> int:
    """The number of a head through all layers."""
    target = parse_target(component)
    return net.first_head(target.layer) + (target.unit or 0)


def on_distribution(
    net: Network, prompts: PromptDistribution, asked: Sequence[tuple[Question, PositionRole]]
) -> list[Finding]:
    """Coverage and mixture of each role on one distribution; refused where its prompts lack a position."""
    setting: PairRuns = prompts.setting  # type: ignore[assignment]
    origins = {role.at for _, role in asked if has(setting.batch, role.at)}
    attention = {at: attended(net, setting.batch, at) for at in origins}
    known = [(question.subject, role.at) for question, role in asked if role.at in attention]
    weights = importance(setting, known)
    rows = []
    for question, role in asked:
        statistic = "coverage" if does_task(setting, question.thresholds) else UNDONE
        here = attention.get(role.at)
        weight = weights.get((question.subject, role.at))
        why = _lacking(setting.batch, here, role, question.thresholds)
        if not why and weight is not None and weight.mean() <= ROUNDING:
            why = "what it writes there changes nothing of the answer: no importance to take a share of"
        if why or here is None or weight is None:
            by_prompts = question.using("coverage", unit="prompts")
            rows.append(by_prompts.refused(statistic, 0, why))
        else:
            rows += _RoleOnPrompts(net, setting, question, role, here, weight).findings(statistic)
    return rows


def importance(
    setting: PairRuns, claimed: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Float[np.ndarray, " prompt"]]:
    """How much each head does at a position on each prompt: |change of the metric|.

    The larger of what is lost when the head alone writes there what it writes on the corrupted prompt, and of what its
    clean value there restores of the corrupted prompt; everything after it runs.

    Args:
        claimed: labels of heads, and a position of each that some pair has.
    """
    if not claimed:
        return {}
    net, batch = setting.net, setting.batch
    targets = [parse_target(component, at) for component, at in claimed]
    clean, corrupted = (trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    sizes = dict.fromkeys(claimed, np.zeros(len(batch)))
    for base, other, before in ((clean, corrupted, setting.metric_clean), (corrupted, clean, setting.metric_corrupted)):
        for indices, logits in sweep(net, base, batch, targets, resample(other)):
            after = batch.options.rows(len(indices)).values(logits.flatten(0, 1))
            for i, own in zip(indices, after.reshape(len(indices), -1), strict=True):
                sizes[claimed[i]] = np.maximum(sizes[claimed[i]], np.abs(before - own))
    return sizes


def does_task(setting: PairRuns, thresholds: Thresholds = DEFAULT) -> bool:
    """Whether the model's effect on these pairs is above 0 beyond doubt."""
    return is_higher(setting.metric_clean, setting.metric_corrupted, thresholds.alpha)


def _lacking(batch: PairBatch, here: "Attended | None", role: PositionRole, thresholds: Thresholds) -> str:
    """Why a role cannot be asked of these prompts; empty where it can."""
    lost = next((name for name in (role.at, role.to) if not has(batch, name)), "")
    if lost or here is None:
        return f"these prompts have no position called {lost!r}"
    n = int((here.there & _present(batch, here, role.to)).sum())
    return f"{n} prompts have both positions; at least {thresholds.fewest} are needed" if n < thresholds.fewest else ""


def has(batch: PairBatch, name: str) -> bool:
    """Whether the pairs have a position of this name."""
    return name in NAMELESS or name in batch.roles


@dataclass(frozen=True, eq=False)
class Attended:
    """The token that every head attends to most from one position of each prompt.

    Attributes:
        offsets: of the position, its last token; 0 where a prompt lacks it.
        there: which prompts have the position.
        most: offset with the most attention.
    """

    offsets: Int[np.ndarray, " prompt"]
    there: Bool[np.ndarray, " prompt"]
    most: Int[np.ndarray, "prompt head"]


def attended(net: Network, batch: PairBatch, at: str) -> Attended:
    """What every head attends to most from a position of the clean prompts; heads are numbered through all layers."""
    here = batch.mask(at)
    there = here.any(1)
    offsets = torch.where(here, torch.arange(here.shape[1], device=here.device), -1).amax(1).clamp_min(0)
    parts = []
    for begin in range(0, len(batch), PROMPTS_AT_ONCE):
        rows = slice(begin, begin + PROMPTS_AT_ONCE)
        parts.append(_run(net, batch.clean[rows], offsets[rows], batch.options.answers[rows, 0]))
    return Attended(offsets.cpu().numpy(), there.cpu().numpy(), np.concatenate(parts))


def _run(
    net: Network, tokens: Int[Tensor, "prompt offset"], offsets: Int[Tensor, " prompt"], answers: Int[Tensor, " prompt"]
) -> Int[np.ndarray, "prompt head"]:
    """The offset attended to most, of all heads at one offset a prompt."""
    rows = (torch.arange(len(tokens), device=tokens.device), offsets)
    patterns, _ = heads_at(net, tokens, rows, answers)
    return torch.cat([pattern.argmax(-1) for pattern in patterns], 1).cpu().numpy()


def holds(batch: PairBatch, here: Attended, to: str) -> Bool[np.ndarray, "prompt head"]:
    """Whether what each head attends to most is the position that is claimed."""
    offsets = here.offsets[:, None]
    if to in NAMELESS:
        return np.asarray(here.most == {ITSELF: offsets, BEFORE: offsets - 1, FIRST: np.zeros_like(offsets)}[to])
    return np.take_along_axis(batch.mask(to).cpu().numpy(), here.most, 1)


@dataclass(frozen=True, eq=False)
class _RoleOnPrompts:
    """A role on a distribution that has its positions."""

    net: Network
    setting: PairRuns
    question: Question
    role: PositionRole
    here: Attended
    importance: Float[np.ndarray, " prompt"]

    def findings(self, statistic: str) -> list[Finding]:
        """The coverage beside other heads of the layer, and what is attended to at the position."""
        batch, to = self.setting.batch, self.role.to
        counted = self.here.there & _present(batch, self.here, to)
        weight, covered = self.importance[counted], holds(batch, self.here, to)[counted]
        null = NO_NULL
        if self.peers:
            null = Null(float((weight @ covered[:, self.peers] / weight.sum()).mean()))
        share = self.share(counted, weight, covered)
        return [self.question.finding(statistic, share, null), *self.mixture(counted, weight)]

    def mixture(self, counted: Bool[np.ndarray, " prompt"], weight: Float[np.ndarray, " counted"]) -> list[Finding]:
        """Shares of what the head attends to at the position; each token counts for the first name that fits."""
        left = np.ones_like(self.here.most[counted], dtype=bool)
        mixture, rows = self.question.using("mixture"), []
        for name in (*self.setting.batch.roles, *NAMELESS, None):
            fits = left if name is None else left & holds(self.setting.batch, self.here, name)[counted]
            left = left & ~fits
            if (weight * fits[:, self.own]).any():
                statistic = f"share: attends to {name or 'another token'}"
                rows.append(mixture.finding(statistic, self.share(counted, weight, fits)))
        return rows

    def share(
        self,
        counted: Bool[np.ndarray, " prompt"],
        weight: Float[np.ndarray, " counted"],
        covered: Bool[np.ndarray, "counted head"],
    ) -> Interval:
        """Share of the head's importance at the position on which something holds."""
        return bounded(ratio(weight * covered[:, self.own], weight, clusters_of(self.setting)[counted]))

    @property
    def own(self) -> int:
        """The head's number through all layers."""
        return head_number(self.net, self.question.subject)

    @property
    def peers(self) -> list[int]:
        """Numbers of the other heads of its layer."""
        layer = parse_target(self.question.subject).layer
        first = self.net.first_head(layer)
        return [i for i in range(first, first + self.net.heads(layer)) if i != self.own]


def _present(batch: PairBatch, here: Attended, to: str) -> Bool[np.ndarray, " prompt"]:
    """Which prompts have the position that is claimed to be attended to."""
    if to in (ITSELF, FIRST):
        return np.ones(len(batch), dtype=bool)
    return here.offsets > 0 if to == BEFORE else batch.mask(to).any(1).cpu().numpy()
