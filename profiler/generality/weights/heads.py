"""Scores of heads from weights alone, beside null heads, budgets of what they leave out, and behaviour on text.

Why: weights are a witness of their own: they were not chosen with any prompt. But a score means little by itself, so
beside each stand the same score of all other heads of the model (the null), its rank, the share of variance that it
ignores on text, and whether heads rank alike by weights and by behaviour.

    found = read(model, documents)
    found.rows("L2H3"), found.agreement("QK previous")

Cost: layer 0 on every token of the vocabulary, [token, vocab] products per head, and one pass over a few thousand
tokens with all attention scores: some 8 seconds for the bundled model on one core.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from profiler.circuits.circuit import Member
from profiler.errors import ModelError
from profiler.generality.distributions.subject import CheckSubject
from profiler.generality.evidence.claims import claim_of
from profiler.generality.evidence.finding import CausalChoices, Finding, Interval, Null, Question, StageResult
from profiler.generality.replacement.run import TextBatch
from profiler.generality.replacement.text import of_documents, of_windows
from profiler.generality.weights import left_out as budgets
from profiler.generality.weights.composition import Composition, compositions
from profiler.generality.weights.inputs import alone
from profiler.generality.weights.scores import SCORES, HeadScores, heads, score, vocabulary
from profiler.model.load import Model
from profiler.model.steps.as_network import plain_of
from profiler.model.steps.plain import PlainNetwork
from profiler.patching.sites import parse_target
from profiler.statistics import (
    DRAWS,
    level,
    percentile_interval,
    random_set_p,
    rank,
    resampled_units,
    spearman,
    spearman_of_rows,
)

FIT_TOKENS = 4_000
OF_MASS = {
    "previous_token": "QK previous",
    "duplicate": "QK duplicate",
    "induction": "QK induction",
    "prefix_induction": "QK induction",
}
OF_ROLE = {"copying": ("OV copying", 1), "name mover": ("OV copying", 1), "copy suppression": ("OV copying", -1)}
"""The score that a role's words claim, and its sign."""
PAIRS = 100


@dataclass(frozen=True)
class WeightScore:
    """One score of one head; a row of the run file.

    Attributes:
        component: label of the head.
        score: of profiler.generality.weights.scores.SCORES; a term of a budget; or a composition, corrected, with an
          earlier head.
        value: the score.
        null_mean, null_sd: of all other heads of the model; of a composition, of random pairs of heads.
        rank: among all heads, 1 for the highest.
        ignored_share: share of the variance of its attention scores (of its values) on text that the score's term
            leaves out; None where no text was read.
    """

    component: str
    score: str
    value: float
    null_mean: float
    null_sd: float
    rank: int
    ignored_share: float | None


@dataclass(frozen=True, eq=False)
class WeightsOfHeads:
    """Scores of all heads of a model, and what text shows of them (None without text)."""

    net: PlainNetwork
    scored: HeadScores
    seen: budgets.HeadsOnText | None

    def rows(self, component: str | None = None) -> tuple[WeightScore, ...]:
        """Scores of one head, or of all."""
        chosen = [(i, j) for i, j in heads(self.net) if component in (None, f"L{i}H{j}")]
        return tuple(self._row(name, i, j) for name in SCORES for i, j in chosen)

    def _row(self, name: str, layer: int, head: int) -> WeightScore:
        value, null = self.split(name, layer, head)
        ignored = None if self.seen is None else float(self.seen.ignored[name][layer, head])
        if name == "QK induction" and self.scored.partners[layer] is None:
            ignored = None
        return _against(f"L{layer}H{head}", name, value, null.tolist(), ignored)

    def split(self, name: str, layer: int, head: int) -> tuple[float, np.ndarray]:
        """A head's score, and those of all other heads."""
        values = self.scored.values[name].flatten().numpy()
        own = layer * self.net.n_heads + head
        return float(values[own]), np.delete(values, own)

    def budget(self, component: str | None = None) -> tuple[WeightScore, ...]:
        """Share of variance on text that each term adds (`QK variance: positions`), of one head or all.

        Empty without text.
        """
        if self.seen is None:
            return ()
        table: dict[str, dict[str, float]] = {}
        for row in budgets.budget_rows(self.seen):
            table.setdefault(f"{row.circuit} variance: {row.term}", {})[row.component] = row.share
        return tuple(
            _against(label, name, share, [v for other, v in shares.items() if other != label])
            for name, shares in table.items()
            for label, share in shares.items()
            if component in (None, label)
        )

    def composed(self, members: Sequence[str]) -> tuple[WeightScore, ...]:
        """Corrected compositions of every pair of these heads (`K-composition with L1H3`), against random pairs."""
        targets = [parse_target(label) for label in members]
        chosen_heads = sorted((t.layer, t.unit or 0) for t in targets if t.site == "head")
        chosen = compositions(self.net, [(a, b) for a in chosen_heads for b in chosen_heads if a[0] < b[0]])
        every = [(a, b) for a in heads(self.net) for b in heads(self.net) if a[0] < b[0]]
        drawn = np.random.default_rng(0).permutation(len(every))[:PAIRS] if chosen else ()
        null = compositions(self.net, [every[i] for i in drawn])
        return tuple(
            _against(pair.reader, f"{pair.kind}-composition with {pair.writer}", pair.corrected, _others(null, pair))
            for pair in chosen
        )

    def agreement(self, name: str) -> tuple[float, float, float]:
        """Rank correlation over heads of a score with behaviour, with its bootstrap interval; NaN if constant.

        Raises:
            ValueError: no text was read.
        """
        if self.seen is None:
            raise ValueError("weights can be compared with behaviour only where text was read")
        x, y = (level(v[name].flatten().numpy()) for v in (self.scored.values, self.seen.behaviour))
        rho = spearman(y, x)
        if not np.isfinite(rho):
            return rho, rho, rho
        at = np.stack(list(resampled_units(len(x), DRAWS, np.random.default_rng(0))))
        lo, hi = percentile_interval(spearman_of_rows(y[at], x[at]))
        return rho, float(lo), float(hi)


def _others(null: Sequence[Composition], composition: Composition) -> list[float]:
    same = (composition.writer, composition.reader)
    return [
        other.corrected for other in null if other.kind == composition.kind and (other.writer, other.reader) != same
    ]


def _against(label: str, name: str, value: float, peers: Sequence[float], ignored: float | None = None) -> WeightScore:
    null = np.array(peers if len(peers) else [np.nan])
    return WeightScore(label, name, value, float(null.mean()), float(null.std()), rank(value, null), ignored)


def of_network(
    net: PlainNetwork, readings: Sequence[TextBatch] = (), bos: int | None = None, seed: int = 0
) -> WeightsOfHeads:
    """Scores of a network's heads; with text also budgets and behaviour, and tokens weighted by frequency."""
    counts = None
    if readings:
        tokens = torch.cat([reading.tokens[reading.counted] for reading in readings])
        counts = torch.bincount(tokens, minlength=net.embed.shape[0])
    words, seen = vocabulary(net, counts, seed), alone(net, bos)
    scored = score(net, seen, words)
    return WeightsOfHeads(net, scored, budgets.see(net, readings, seen, words, scored) if readings else None)


def read(model: Model, documents: Iterable[str] = ()) -> WeightsOfHeads:
    """Scores of a model's heads; see `of_network`."""
    texts = of_documents(model, documents, FIT_TOKENS, FIT_TOKENS)
    return of_network(plain_of(model), (*texts.fitting, *texts.testing), model.bos_id)


# --- the stage of a check ---


def findings(subject: CheckSubject) -> StageResult:
    """Scores, budgets and compositions as rows; members' scores and agreement with behaviour as findings."""
    readings: tuple[TextBatch, ...] = ()
    if subject.text.batches:
        readings = of_windows(subject.model, subject.text.windows, subject.text.layout, 1, FIT_TOKENS).fitting
    members = [m for m in subject.general.members if parse_target(m.component).site == "head"]
    try:
        net = subject.net.plain
    except ModelError as error:
        return StageResult(tuple(question_of(subject, m).refused("score by weights", 0, str(error)) for m in members))
    weights = of_network(net, readings, subject.model.bos_id, subject.settings.seed)
    labels = [member.component for member in members]
    budgets_of_members = (row for label in labels for row in weights.budget(label))
    rows: list[Finding] = []
    for member in members:
        rows += of_member(weights, question_of(subject, member))
    if weights.seen is not None:
        rows += agreements(weights, subject.question("weights", subject.corpus, unit="components"))
    return StageResult(tuple(rows), (*weights.rows(), *budgets_of_members, *weights.composed(labels)))


def question_of(subject: CheckSubject, member: Member) -> Question:
    """What is asked of a member's weights."""
    return subject.question("weights", subject.corpus, member.component, member.role, unit="components", shares=())


def of_member(weights: WeightsOfHeads, question: Question) -> list[Finding]:
    """A member's score for its role against all other heads, and its ranks by weights and by behaviour."""
    claimed = score_of_role(question.role, question.subject)
    if claimed is None:
        what = f"the role {question.role!r}" if question.role else "a member without a role"
        return [question.refused("score by weights", 0, f"no score of weights stands for {what}")]
    name, sign = claimed
    target = parse_target(question.subject)
    layer, head = target.layer, target.unit or 0
    value, peers = weights.split(name, layer, head)
    choices = CausalChoices(granularity="node", components="head", set="weights")
    question = question.using("weights", choices=choices)

    def exact(number: float) -> Interval:
        return Interval(number, number, number, 1 + len(peers))

    p = random_set_p(sign * value, sign * peers)
    null = Null(float(peers.mean()), float(np.quantile(sign * peers, 0.95) * sign), p)
    rows = [
        question.finding(name, exact(value), null),
        question.finding(f"rank by {name}", exact(float(rank(sign * value, sign * peers)))),
    ]
    if weights.seen is not None:
        does = sign * weights.seen.behaviour[name].flatten().numpy()
        rank_of_head = float(rank(does[layer * weights.net.n_heads + head], does))
        rows.append(question.finding(f"rank by behaviour for {name}", exact(rank_of_head)))
        ignored = float(weights.seen.ignored[name][layer, head])
        rows.append(question.finding(f"variance that {name} ignores", exact(ignored)))
    return rows


def score_of_role(role: str, component: str) -> tuple[str, int] | None:
    """The score that a role's words claim, and 1 or -1 for high or low."""
    claim = claim_of(role, component)
    if claim is None or claim.kind != "head":
        return None
    if claim.role in OF_ROLE:
        return OF_ROLE[claim.role]
    return (OF_MASS[claim.mass], 1) if claim.mass in OF_MASS else None


def agreements(weights: WeightsOfHeads, question: Question) -> list[Finding]:
    """For each score that text can show, the rank correlation over all heads with what they do."""
    rows = []
    n, fewest = len(heads(weights.net)), question.thresholds.fewest
    for name in weights.seen.behaviour if weights.seen else ():
        statistic = f"rank agreement of weights with behaviour: {name}"
        rho, lo, hi = weights.agreement(name)
        if n < fewest or not np.isfinite(rho):
            why = f"{n} heads, at least {fewest} are needed" if n < fewest else "all heads have the same score"
            rows.append(question.refused(statistic, n, why))
        else:
            rows.append(question.finding(statistic, Interval(rho, lo, hi, n)))
    return rows
