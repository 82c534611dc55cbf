"""KL and loss recovered by a circuit in running text, with everything outside it held at its mean.

With p, p_C, p_0 the next-token distributions of the model, of the circuit alone, and of the empty circuit:

* KL recovered: 1 - sum KL(p || p_C) / sum KL(p || p_0); 1 is the model's own distribution.
* loss recovered: (sum L_0 - sum L_C) / (sum L_0 - sum L), losses of the realised next tokens; above 1 the circuit
  predicts better than the model.
* faithfulness: at triggers alone, of the logit difference between answer and distractors, normalised as on the prompts.

A few heads recover little of what a model does in running text: KL recovered over all text says how complete the
circuit is, and must be read beside the same number for random circuits with as many heads in each layer. At triggers it
says how much of what happens there is the circuit's.

Cost: two more forward passes over the text than the model's own (circuit, empty circuit); random circuits on a part of
it. On prompts: three forward passes of the distribution.

Shares with means are not shares with resampled values: where only a name differs, the corrupted prompt still says that
a name is due, and a mean of the corpus does not. A circuit found with resampled values can recover all of the one and
none of the other; so a number must be compared with the same number on the discovery prompts, `faithfulness with
means`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits import node_sets
from profiler.circuits.nodes import parse_node
from profiler.generality.distributions.subject import CheckSubject, CorpusDistribution, PromptDistribution, RunText
from profiler.generality.evidence.distributions import NATURAL, Distribution
from profiler.generality.evidence.finding import NO_NULL, Finding, Null, Question, StageResult
from profiler.generality.faithfulness import means as ablated
from profiler.generality.faithfulness.prompts import (
    choices,
    closeness_null,
    clusters_of,
    matched,
    nothing_to_explain,
    own_question,
    ratio,
)
from profiler.generality.faithfulness.runs import Logits, Own, Runner, WindowPiece, own_of, pieces, windows_of
from profiler.patching.metrics import kl

KL, LOSS = "KL recovered", "loss recovered"
NULL_TOKENS, TRIGGER_TOKENS = 5_000, 2_000
"""Tokens of running text, and of windows with triggers, that random circuits are run on.

Few, because circuits differ far more than windows do.
"""
MOST_DRAWS = 39
NULL_TOKENS_AT_ONCE, SETS_AT_ONCE = 256, 14
"""Tokens of a piece of text that random circuits are run on, and circuits that are run together."""
BY_EDGES = "a circuit by edges is measured on prompts alone, where a corrupted prompt says what the other edges carry"
COLUMNS = ("kl", "kl_empty", "loss", "loss_circuit", "loss_empty")
Compared = Float[np.ndarray, "position 5"]


def findings(subject: CheckSubject) -> StageResult:
    """Findings of every distribution of running text, and of the prompts with the same means."""
    if subject.circuit.by_edges or not subject.text.batches:
        corpora = (corpus.distribution for corpus in subject.distributions.corpus)
        why = BY_EDGES if subject.circuit.by_edges else ""
        return StageResult(
            tuple(_question(subject, corpus).refused(KL, 0, corpus.refused or why) for corpus in corpora)
        )
    subject.report("means of the corpus")
    sites = {parse_node(node).site for node in subject.nodes}
    means = ablated.means_of(subject.net, ablated.some(subject.text), sites)
    runner = Runner(subject.net, subject.nodes, means)
    rows = [row for prompts in subject.distributions.prompts for row in on_prompts(subject, prompts, runner)]
    subject.report("the circuit in running text")
    compared, differences = compare(subject, runner)
    subject.report("random circuits in running text")
    null = null_sample(subject, runner)
    for corpus in subject.distributions.corpus:
        rows += of_corpus(subject, corpus, compared, differences, null)
    return StageResult(tuple(rows))


def _question(subject: CheckSubject, distribution: Distribution) -> Question:
    """The question of one distribution, everything outside the circuit at its mean."""
    made = choices(subject, "corpus faithfulness", distribution.name, "mean")
    return subject.question("corpus faithfulness", distribution, choices=made)


# --- over the text ---


def compare(subject: CheckSubject, runner: Runner) -> tuple[Compared, dict[int, tuple[float, float, float]]]:
    """COLUMNS at every position of the text, and logit differences (model, circuit, empty circuit) at triggers."""
    asked = {position: (a, d) for corpus in subject.distributions.corpus for position, a, d in corpus.questions}
    n = len(subject.text.position_ids)
    rows, differences, done = np.empty((n, len(COLUMNS))), {}, 0
    both = np.stack([np.ones_like(subject.keep), subject.keep])
    for piece in pieces(subject.text):
        if 50 * int(piece.indices[0]) // n > done:
            done = 50 * int(piece.indices[0]) // n
            subject.report(f"the circuit in running text: {done * 2} %")
        model, circuit = runner.logits(piece, both)
        empty, kind = runner.empty(piece)
        own = own_of(model, piece.targets)
        rows[piece.indices] = _columns(own, circuit.log_softmax(-1), empty.log_softmax(-1)[kind])
        for row in np.nonzero(np.isin(piece.indices, list(asked)))[0] if asked else ():
            position = int(piece.indices[row])
            runs = (model[row], circuit[row], empty[kind[row]])
            differences[position] = _differences(runs, *asked[position])
    return rows, differences


def _columns(own: Own, circuit: Logits, empty: Logits) -> Compared:
    """COLUMNS from log probabilities."""
    divergence, lost = own.against(circuit)
    divergence_empty, lost_empty = own.against(empty)
    return np.stack([divergence, divergence_empty, own.loss, lost, lost_empty], -1)


def _differences(runs: Sequence[Tensor], answer: int, distractors: tuple[int, ...]) -> tuple[float, float, float]:
    """Logit difference of answer and distractors in each run at one position."""
    differences = [float(run[answer] - run[list(distractors)].mean()) for run in runs]
    return differences[0], differences[1], differences[2]


def of_corpus(
    subject: CheckSubject,
    corpus: CorpusDistribution,
    compared: Compared,
    differences: dict[int, tuple[float, float, float]],
    null: "NullSample",
) -> list[Finding]:
    """KL and loss recovered on one distribution of running text; at triggers the logit difference too."""
    question, n_tokens = _question(subject, corpus.distribution), corpus.distribution.n_tokens
    by_positions = question.using("corpus faithfulness", unit="positions")
    statistics = (KL, LOSS, *(("faithfulness",) if corpus.questions else ()))
    if corpus.distribution.refused:
        return [by_positions.refused(statistic, n_tokens, corpus.distribution.refused) for statistic in statistics]
    clusters = np.unique(subject.text.documents[corpus.chosen], return_inverse=True)[1]
    rows = []
    for statistic, (above, below) in _parts(compared[corpus.chosen]).items():
        if below.mean() < question.thresholds.least_kl:
            why = f"the empty circuit differs from the model by {below.mean():.4f} nats only: too little to divide by"
            rows.append(by_positions.refused(statistic, n_tokens, why))
        else:
            rows.append(
                question.finding(statistic, ratio(above, below, clusters), null.of(corpus, statistic, question))
            )
    if corpus.questions:
        indices = [index for index, _, _ in corpus.questions]
        values = np.array([differences[index] for index in indices])
        documents = np.unique(subject.text.documents[indices], return_inverse=True)[1]
        rows.append(_faithful(question, values, documents))
    return rows


def _parts(compared: Compared) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator of both shares at each position."""
    named = dict(zip(COLUMNS, compared.T, strict=True))
    return {
        KL: (named["kl_empty"] - named["kl"], named["kl_empty"]),
        LOSS: (named["loss_empty"] - named["loss_circuit"], named["loss_empty"] - named["loss"]),
    }


def _faithful(
    question: Question,
    values: Float[np.ndarray, "question 3"],
    clusters: np.ndarray,
    statistic: str = "faithfulness",
) -> Finding:
    """Normalised faithfulness of the logit difference, from (model, circuit, empty)."""
    own, circuit, empty = values.T
    effect = ratio(own - empty, np.ones_like(own), clusters)
    if effect.lo is None or effect.lo <= 0:
        return question.refused(statistic, effect.n, nothing_to_explain(effect))
    return question.finding(statistic, ratio(circuit - empty, own - empty, clusters))


# --- random circuits ---


@dataclass(frozen=True, eq=False)
class NullSample:
    """Random circuits on a part of the text: COLUMNS at some positions for the circuit and each draw.

    Attributes:
        indices: of the positions, in the flat arrays.
        evenly: which of them are of windows that were taken without regard to what stands there; the rest are triggers.
    """

    indices: Int[np.ndarray, " sampled"]
    evenly: Bool[np.ndarray, " sampled"]
    circuit: Float[np.ndarray, "sampled 5"]
    draws: tuple[Float[np.ndarray, "sampled 5"], ...]

    def of(self, corpus: CorpusDistribution, statistic: str, question: Question) -> Null:
        """The null on the sampled positions of a distribution; none where these are too few.

        p compares on the sampled positions, where the circuit was measured as the random ones were.
        """
        here = corpus.chosen[self.indices] & (self.evenly | bool(corpus.questions))
        if here.sum() < question.thresholds.fewest or not self.draws:
            return NO_NULL
        shares = np.array([_share(part[here], statistic) for part in (self.circuit, *self.draws)])
        return closeness_null(shares)


def _share(compared: Compared, statistic: str) -> float:
    kl_circuit, kl_empty, loss, loss_circuit, loss_empty = compared.sum(0)
    return float(1 - kl_circuit / kl_empty if statistic == KL else (loss_empty - loss_circuit) / (loss_empty - loss))


def null_sample(subject: CheckSubject, runner: Runner) -> NullSample:
    """Random circuits on every k-th window of the text, about NULL_TOKENS tokens, and at triggers elsewhere."""
    evenly = _sampled(subject.text)
    triggers = _triggers(subject, evenly)
    n_draws = min(subject.settings.draws, MOST_DRAWS)
    drawn = matched(subject.nodes, subject.keep, n_draws, subject.settings.seed)
    indices, rows = [], []
    for piece in pieces(subject.text, NULL_TOKENS_AT_ONCE, evenly | triggers):
        subject.report(f"random circuits in running text: {int(piece.indices[0]) * 100 // len(evenly)} %")
        indices.append(piece.indices)
        rows.append(null_columns(runner, piece, np.concatenate([subject.keep[None], drawn])))
    where, columns = np.concatenate(indices), np.concatenate(rows, 1)
    return NullSample(where, evenly[where], columns[0], tuple(columns[1:]))


def null_columns(
    runner: Runner, piece: WindowPiece, keep: Bool[np.ndarray, "set node"]
) -> Float[np.ndarray, "set position 5"]:
    """COLUMNS of each set of nodes at the positions of a piece."""
    (model,) = runner.logits(piece, np.ones_like(keep[:1]))
    empty, kind = runner.empty(piece)
    own, nothing = own_of(model, piece.targets), empty.log_softmax(-1)[kind]
    columns = [
        own.against(logits.log_softmax(-1))
        for some in np.array_split(keep, -(-len(keep) // SETS_AT_ONCE))
        for logits in runner.logits(piece, some)
    ]
    (kl_empty, lost_empty), n = own.against(nothing), len(piece.indices)
    return np.stack([np.stack([kl_, kl_empty, own.loss, lost, lost_empty], -1) for kl_, lost in columns]).reshape(
        -1, n, 5
    )


def _sampled(text: RunText) -> Bool[np.ndarray, " position"]:
    """Positions of every k-th window, about NULL_TOKENS tokens together."""
    step = max(1, text.n_tokens // NULL_TOKENS)
    return np.asarray(windows_of(text) % step == 0)


def _triggers(subject: CheckSubject, taken: Bool[np.ndarray, " position"]) -> Bool[np.ndarray, " position"]:
    """Triggers outside the windows that are taken, of so many windows as have TRIGGER_TOKENS tokens."""
    triggers = np.zeros_like(taken)
    for corpus in subject.distributions.corpus:
        triggers[[index for index, _, _ in corpus.questions]] = True
    triggers &= ~taken
    numbers = windows_of(subject.text)
    windows = np.random.default_rng(subject.settings.seed).permutation(np.unique(numbers[triggers]))
    sizes = np.bincount(numbers, minlength=len(subject.text.windows))[windows]
    return triggers & np.isin(numbers, windows[np.cumsum(sizes) <= TRIGGER_TOKENS])


# --- on prompts ---


def on_prompts(subject: CheckSubject, prompts: PromptDistribution, runner: Runner) -> list[Finding]:
    """KL recovered at the answer of each prompt, and the logit difference with means for resampled values.

    On natural text that is trigger-restricted faithfulness in the corpus, and carries its name.
    """
    if prompts.setting is None:
        return []
    question, batch = _question(subject, prompts.distribution), prompts.setting.batch
    both = np.stack([subject.keep, np.zeros_like(subject.keep)])
    runs = [prompts.setting.clean.logits, *node_sets.logits(runner.asked(batch.clean, batch.ends), both)]
    clusters = clusters_of(prompts.setting)
    logs = [run.log_softmax(-1) for run in runs]
    divergences = torch.stack([kl(logs[0], logs[1]), kl(logs[0], logs[2])], -1).double().cpu().numpy()
    rows = []
    if divergences[:, 1].mean() >= question.thresholds.least_kl:
        recovered = ratio(divergences[:, 1] - divergences[:, 0], divergences[:, 1], clusters)
        rows.append(question.finding(KL, recovered))
    if own_question(subject, prompts):
        values = np.stack([batch.options.values(run) for run in runs], -1)
        statistic = "faithfulness" if prompts.distribution.name == NATURAL else "faithfulness with means"
        rows.append(_faithful(question, values, clusters, statistic))
    return rows
