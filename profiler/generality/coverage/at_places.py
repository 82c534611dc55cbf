"""Whether roles that name places hold there: on every distribution of prompts, natural text among them. See
profiler.circuits.positions.

Why: `at end attends to S2` is a claim about the last token of a prompt. Asked at every position of a text it fails
  whatever
the head does; asked where a text has an end and an S2, it can hold on text that nobody wrote for it, or fail. What the
same head does everywhere else is another question: its role's general form (`Subject.general`) is asked by the other
stages.

A prompt counts as holding where the token that the head attends to most, from the (last) token of the one place, is in
the
other place. Where that is the prompt's end, prompts weigh by |DLA| to the answer there: what the head writes matters no
more than that. At earlier places what a head writes acts through later heads, and each prompt weighs the same. `null`
is the mean over the other heads of the layer: a claim that all of them meet may be true, and is not about this one.

Where the model itself does not do the task (its effect is not above 0 beyond doubt), the question does not arise: the
share is given under another name (UNDONE) and decides nothing. Beside each role stands what the head attends to at its
place, as a mixture: the other places of the prompts by name, and all other tokens together.
Cost: one forward pass of each distribution's clean prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits.circuit import Member
from profiler.circuits.positions import BEFORE, FIRST, ITSELF, PositionRole, position_role
from profiler.generality.coverage.everywhere import PROMPTS_AT_ONCE, bounded, heads_at
from profiler.generality.distributions.subject import PromptDistribution, Subject
from profiler.generality.evidence.distributions import Distribution
from profiler.generality.evidence.finding import FEWEST, Finding, Technique, refused
from profiler.generality.faithfulness.prompts import clusters_of, own_question, ratio, unit_of
from profiler.model.network import Network
from profiler.patching.batch import PairBatch
from profiler.patching.setting import PairRuns
from profiler.patching.sites import parse_target
from profiler.statistics import sign_flip_p

END = "end"
NAMELESS = (ITSELF, BEFORE, FIRST)
UNDONE = "coverage where the model does not do the task"
ALPHA = 0.05
Claimed = tuple[Member, PositionRole]
PerHead = Float[np.ndarray, "prompt head"]


def findings(subject: Subject) -> tuple[Finding, ...]:
    """Coverage of every role that names places, on every distribution of prompts."""
    claimed = claimed_of(subject)
    distributions = [
        one for one in subject.distributions.prompts if one.setting is not None and own_question(subject, one)
    ]
    return tuple(
        row for one in distributions for row in (on_distribution(subject.net, one, claimed) if claimed else ())
    )


def claimed_of(subject: Subject) -> list[Claimed]:
    """Heads of the circuit whose roles name places."""
    heads = [m for m in subject.circuit.members if parse_target(m.component).site == "head"]
    return [(m, place) for m in heads if (place := position_role(m.role))]


def head_number(net: Network, member: Member) -> int:
    """The number of a head through all layers."""
    target = parse_target(member.component)
    return target.layer * net.n_heads + (target.unit or 0)


def on_distribution(net: Network, one: PromptDistribution, claimed: Sequence[Claimed]) -> list[Finding]:
    """Coverage and mixture of each role on one distribution; refused where its prompts lack a place."""
    setting: PairRuns = one.setting  # type: ignore[assignment]
    statistic = "coverage" if does_task(setting) else UNDONE
    seen = {at: attended(net, setting.batch, at) for at in {place.at for _, place in claimed} if has(setting.batch, at)}
    rows = []
    for member, place in claimed:
        found = seen.get(place.at)
        why = _lacking(setting.batch, found, place)
        about = (member.component, member.role)
        if why or found is None:
            rows.append(refused(*about, "coverage", one.distribution.name, statistic, 0, "prompts", why))
        else:
            rows += _Asked(net, one.distribution, setting, member, place, found).findings(statistic)
    return rows


def does_task(setting: PairRuns) -> bool:
    """Whether the model's effect on these pairs is above 0 beyond doubt."""
    return bool(setting.whole.mean() > 0 and sign_flip_p(setting.whole) < ALPHA)


def _lacking(batch: PairBatch, seen: "Attended | None", place: PositionRole) -> str:
    """Why a role cannot be asked of these prompts; empty where it can."""
    lost = next((name for name in (place.at, place.to) if not has(batch, name)), "")
    if lost or seen is None:
        return f"these prompts have no place called {lost!r}"
    n = int((seen.there & _present(batch, seen, place.to)).sum())
    return f"{n} prompts have both places; at least {FEWEST} are needed" if n < FEWEST else ""


def has(batch: PairBatch, name: str) -> bool:
    """Whether the pairs have a place of this name."""
    return name in NAMELESS or name in batch.roles


@dataclass(frozen=True, eq=False)
class Attended:
    """Of every head, from one place of each prompt: the offset it attends to most, and its importance there.

    Attributes:
        offsets: of the place, its last token; 0 where a prompt lacks it.
        there: which prompts have the place.
        most: offset with the most attention.
        importance: |DLA| to the answer at the prompt's end, in logits; 1 at earlier places.
    """

    offsets: Int[np.ndarray, " prompt"]
    there: Bool[np.ndarray, " prompt"]
    most: Int[np.ndarray, "prompt head"]
    importance: PerHead


def attended(net: Network, batch: PairBatch, at: str) -> Attended:
    """What every head attends to most from a place of the clean prompts; heads are numbered through all layers."""
    place = batch.mask(at)
    there = place.any(1)
    offsets = torch.where(place, torch.arange(place.shape[1], device=place.device), -1).amax(1).clamp_min(0)
    parts = []
    for begin in range(0, len(batch), PROMPTS_AT_ONCE):
        rows = slice(begin, begin + PROMPTS_AT_ONCE)
        parts.append(_run(net, batch.clean[rows], offsets[rows], batch.options.answers[rows, 0]))
    most, importance = (np.concatenate(column) for column in zip(*parts, strict=True))
    weight = importance if at == END else np.ones_like(importance)
    return Attended(offsets.cpu().numpy(), there.cpu().numpy(), most, weight)


def _run(
    net: Network, tokens: Int[Tensor, "prompt offset"], offsets: Int[Tensor, " prompt"], answers: Int[Tensor, " prompt"]
) -> tuple[Int[np.ndarray, "prompt head"], PerHead]:
    """The offset attended to most, and |DLA| to the answer, of all heads at one offset a prompt."""
    rows = (torch.arange(len(tokens), device=tokens.device), offsets)
    patterns, dla = heads_at(net, tokens, rows, answers)
    most = torch.cat([pattern.argmax(-1) for pattern in patterns], 1)
    return most.cpu().numpy(), dla.abs().double().cpu().numpy()


def holds(batch: PairBatch, seen: Attended, to: str) -> Bool[np.ndarray, "prompt head"]:
    """Whether what each head attends to most is the place that is claimed."""
    here = seen.offsets[:, None]
    if to in NAMELESS:
        return seen.most == {ITSELF: here, BEFORE: here - 1, FIRST: np.zeros_like(here)}[to]
    return np.take_along_axis(batch.mask(to).cpu().numpy(), seen.most, 1)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A role on a distribution that has its places."""

    net: Network
    distribution: Distribution
    setting: PairRuns
    member: Member
    place: PositionRole
    seen: Attended

    def findings(self, statistic: str) -> list[Finding]:
        """The coverage, beside other heads of the layer, and what is attended to at the place."""
        batch, place = self.setting.batch, self.place
        counted = self.seen.there & _present(batch, self.seen, place.to)
        weight, held = self.seen.importance[counted], holds(batch, self.seen, place.to)[counted]
        covered = self.share("coverage", statistic, counted, weight, held)
        null = float(((weight * held).sum(0) / weight.sum(0))[self.others].mean()) if self.others else None
        return [replace(covered, null=null), *self.mixture(counted, weight)]

    def mixture(self, counted: Bool[np.ndarray, " prompt"], weight: Float[np.ndarray, "counted head"]) -> list[Finding]:
        """Shares of what the head attends to at the place; each token counts for the first name that fits."""
        left = np.ones_like(weight, dtype=bool)
        rows = []
        for name in (*self.setting.batch.roles, *NAMELESS, None):
            fits = left if name is None else left & holds(self.setting.batch, self.seen, name)[counted]
            left = left & ~fits
            if (weight[:, self.own] * fits[:, self.own]).any():
                text = f"share: attends to {name or 'another token'}"
                rows.append(self.share("mixture", text, counted, weight, fits))
        return rows

    def share(
        self,
        technique: Technique,
        statistic: str,
        counted: Bool[np.ndarray, " prompt"],
        weight: Float[np.ndarray, "counted head"],
        held: Bool[np.ndarray, "counted head"],
    ) -> Finding:
        """Share of the head's importance at the place on which something holds."""
        own, clusters = self.own, clusters_of(self.setting)[counted]
        found = ratio(weight[:, own] * held[:, own], weight[:, own], clusters)
        return Finding(
            self.member.component,
            self.member.role,
            technique,
            self.distribution.name,
            statistic,
            found.value,
            *bounded(found),
            found.n,
            unit_of(self.distribution),
            shares=(f"data {self.distribution.name}",),
        )

    @property
    def own(self) -> int:
        """The head's number through all layers."""
        return head_number(self.net, self.member)

    @property
    def others(self) -> list[int]:
        """Numbers of the other heads of its layer."""
        first = self.own - self.own % self.net.n_heads
        return [i for i in range(first, first + self.net.n_heads) if i != self.own]


def _present(batch: PairBatch, seen: Attended, to: str) -> Bool[np.ndarray, " prompt"]:
    """Which prompts have the place that is claimed to be attended to."""
    if to in (ITSELF, FIRST):
        return np.ones(len(batch), dtype=bool)
    return seen.offsets > 0 if to == BEFORE else batch.mask(to).any(1).cpu().numpy()
