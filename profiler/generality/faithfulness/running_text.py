"""How much of what a model does in running text a circuit keeps when everything outside it is held at its mean.

With p, p_C, p_0 the next-token distributions of the model, of the circuit alone, and of the empty circuit:

* kept KL: 1 - sum KL(p || p_C) / sum KL(p || p_0); 1 is the model's own distribution.
* kept loss: (sum L_0 - sum L_C) / (sum L_0 - sum L), losses of the realised next tokens; above 1 the circuit predicts
  better.
* faithfulness: at triggers alone, of the logit difference between answer and distractors, normalised as on the prompts.

Whoever keeps a few heads keeps little of what a model does in running text: kept KL of all text is how complete the
circuit is, and is to be read beside the same number for random circuits with as many heads in each layer. At triggers
it says how much of what happens there is the circuit's.

Cost: two more forward passes over the text than the model's own (circuit, empty circuit); random circuits on a part of
  it.
On prompts: three forward passes of the distribution.

Shares with means are not shares with resampled values: where only a name differs, the corrupted prompt still says that
a name is due, and a mean of the corpus does not. A circuit found with resampled values can keep all of the one and none
of the other; so a number is to be held against the same number on the discovery prompts, `faithfulness with means`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits import node_sets
from profiler.circuits.nodes import parse_node
from profiler.generality.distributions.subject import CorpusDistribution, PromptDistribution, Subject, Text
from profiler.generality.evidence import finding
from profiler.generality.evidence.distributions import NATURAL, Distribution
from profiler.generality.evidence.finding import FEWEST, Finding, Technique
from profiler.generality.faithfulness import means as ablated
from profiler.generality.faithfulness.prompts import (
    Ratio,
    clusters_of,
    matched,
    nothing_to_explain,
    own_question,
    ratio,
    six,
    unit_of,
)
from profiler.generality.faithfulness.runs import Logits, Own, Piece, Runner, own_of, pieces, windows_of
from profiler.patching.metrics import kl, logit_diff
from profiler.statistics import ROUNDING, random_set_p

TECHNIQUE: Technique = "corpus faithfulness"
NULL_TOKENS, TRIGGER_TOKENS = 5_000, 2_000
"""Tokens of running text, and of windows with triggers, that random circuits are run on: circuits differ far more than windows."""
MOST_DRAWS = 39
LEAST_KL = 0.001
"""Mean divergence of the empty circuit, nats, below which there is nothing to keep a share of."""
NULL_TOKENS_AT_ONCE, SETS_AT_ONCE = 256, 14
"""Tokens of a piece of text that random circuits are run on, and circuits that are run together."""
COLUMNS = ("kl", "kl_empty", "loss", "loss_circuit", "loss_empty")
Compared = Float[np.ndarray, "position 5"]


def findings(subject: Subject) -> tuple[Finding, ...]:
    """Findings of every distribution of running text, and of the prompts with the same means."""
    if not subject.text.batches:
        return tuple(_no_text(subject, one.distribution) for one in subject.distributions.corpus)
    subject.report("means of the corpus")
    sites = {parse_node(node).site for node in subject.nodes}
    means = ablated.means_of(subject.net, ablated.some(subject.text), sites)
    runner = Runner(subject.net, subject.nodes, means)
    rows = [row for one in subject.distributions.prompts for row in on_prompts(subject, one, runner)]
    subject.report("the circuit in running text")
    compared, questions = compare(subject, runner)
    subject.report("random circuits in running text")
    null = null_sample(subject, runner)
    return (
        *rows,
        *(row for one in subject.distributions.corpus for row in of_corpus(subject, one, compared, questions, null)),
    )


def _no_text(subject: Subject, distribution: Distribution) -> Finding:
    return finding.refused(
        subject.circuit.name, "", TECHNIQUE, distribution.name, "kept KL", 0, "documents", distribution.refused
    )


# --- over the text ---


def compare(subject: Subject, runner: Runner) -> tuple[Compared, dict[int, tuple[float, float, float]]]:
    """COLUMNS at every position of the text; and at triggers the logit difference of model, circuit and empty
    circuit."""
    asked = {place: (a, d) for one in subject.distributions.corpus for place, a, d in one.questions}
    n = len(subject.text.position_ids)
    rows, differences, done = np.empty((n, len(COLUMNS))), {}, 0
    both = np.stack([np.ones_like(subject.keep), subject.keep])
    for piece in pieces(subject.text):
        if 50 * int(piece.places[0]) // n > done:
            done = 50 * int(piece.places[0]) // n
            subject.report(f"the circuit in running text: {done * 2} %")
        model, circuit = runner.logits(piece, both)
        empty, kind = runner.empty(piece)
        own = own_of(model, piece.targets)
        rows[piece.places] = _columns(own, circuit.log_softmax(-1), empty.log_softmax(-1)[kind])
        for row in np.nonzero(np.isin(piece.places, list(asked)))[0] if asked else ():
            place = int(piece.places[row])
            runs = (model[row], circuit[row], empty[kind[row]])
            differences[place] = _differences(runs, *asked[place])
    return rows, differences


def _columns(own: Own, circuit: Logits, empty: Logits) -> Compared:
    """COLUMNS from log probabilities."""
    divergence, lost = own.against(circuit)
    divergence_empty, lost_empty = own.against(empty)
    return np.stack([divergence, divergence_empty, own.loss, lost, lost_empty], -1)


def _differences(runs: Sequence[Tensor], answer: int, distractors: tuple[int, ...]) -> tuple[float, float, float]:
    """Logit difference of answer and distractors in each run at one position."""
    found = [float(run[answer] - run[list(distractors)].mean()) for run in runs]
    return found[0], found[1], found[2]


def of_corpus(
    subject: Subject,
    one: CorpusDistribution,
    compared: Compared,
    questions: dict[int, tuple[float, float, float]],
    null: "Null",
) -> list[Finding]:
    """Kept KL and loss of one distribution of running text; at triggers the logit difference too."""
    distribution, name = one.distribution, subject.circuit.name
    statistics = ("kept KL", "kept loss", *(("faithfulness",) if one.questions else ()))
    if distribution.refused:
        return [
            finding.refused(
                name, "", TECHNIQUE, distribution.name, s, distribution.n_tokens, "positions", distribution.refused
            )
            for s in statistics
        ]
    chosen, documents = compared[one.chosen], subject.text.documents[one.chosen]
    clusters = np.unique(documents, return_inverse=True)[1]
    rows = _kept(subject, distribution, chosen, clusters, null.of(one))
    if one.questions:
        places = [place for place, _, _ in one.questions]
        values = np.array([questions[place] for place in places])
        rows.append(
            _faithful(subject, distribution, values, np.unique(subject.text.documents[places], return_inverse=True)[1])
        )
    return rows


def _kept(
    subject: Subject,
    distribution: Distribution,
    compared: Compared,
    clusters: Int[np.ndarray, " position"],
    null: Callable[[str], tuple[np.ndarray, float] | None] | None = None,
) -> list[Finding]:
    """Both shares, with their intervals and the null's share where there is one."""
    named = dict(zip(COLUMNS, compared.T, strict=True))
    parts = {
        "kept KL": (named["kl_empty"] - named["kl"], named["kl_empty"], LEAST_KL),
        "kept loss": (named["loss_empty"] - named["loss_circuit"], named["loss_empty"] - named["loss"], LEAST_KL),
    }
    rows = []
    for statistic, (above, below, least) in parts.items():
        if below.mean() < least:
            why = (
                f"without the circuit and all else the model changes by {below.mean():.4f} nats only: nothing to keep a"
                " share of"
            )
            rows.append(
                finding.refused(
                    subject.circuit.name,
                    "",
                    TECHNIQUE,
                    distribution.name,
                    statistic,
                    distribution.n_tokens,
                    "positions",
                    why,
                )
            )
        else:
            one = _finding(subject, distribution, statistic, ratio(above, below, clusters))
            rows.append(_beside(one, null(statistic)) if null else one)
    return rows


def _finding(subject: Subject, distribution: Distribution, statistic: str, one: Ratio) -> Finding:
    return Finding(
        subject.circuit.name,
        "",
        TECHNIQUE,
        distribution.name,
        statistic,
        one.value,
        one.lo,
        one.hi,
        one.n,
        "documents" if distribution.kind == "corpus" else unit_of(distribution),
        setting=six(subject, TECHNIQUE, distribution.name, "mean"),
        shares=("data corpus",) if distribution.kind == "corpus" else (f"data {distribution.name}",),
    )


def _faithful(
    subject: Subject,
    distribution: Distribution,
    values: Float[np.ndarray, "question 3"],
    clusters: np.ndarray,
    name: str = "faithfulness",
) -> Finding:
    """Normalised faithfulness of the logit difference, from (model, circuit, empty)."""
    own, circuit, empty = values.T
    effect = ratio(own - empty, np.ones_like(own), clusters)
    if effect.lo <= 0:
        unit = "documents" if distribution.kind == "corpus" else unit_of(distribution)
        return finding.refused(
            subject.circuit.name, "", TECHNIQUE, distribution.name, name, effect.n, unit, nothing_to_explain(effect)
        )
    return _finding(subject, distribution, name, ratio(circuit - empty, own - empty, clusters))


# --- random circuits ---


@dataclass(frozen=True, eq=False)
class Null:
    """Random circuits on a part of the text: COLUMNS at some places for the circuit and each draw.

    Attributes:
        places: in the flat arrays.
        evenly: which of them are of windows that were taken without regard to what stands there; others are triggers.
    """

    places: Int[np.ndarray, " sampled"]
    evenly: Bool[np.ndarray, " sampled"]
    circuit: Float[np.ndarray, "sampled 5"]
    draws: tuple[Float[np.ndarray, "sampled 5"], ...]

    def of(self, one: CorpusDistribution) -> Callable[[str], tuple[np.ndarray, float] | None]:
        """The null's shares and the circuit's own on the sampled positions of a distribution; None where these are too
        few."""
        here = one.chosen[self.places] & (self.evenly | bool(one.questions))

        def shares(statistic: str) -> tuple[np.ndarray, float] | None:
            if here.sum() < FEWEST or not self.draws:
                return None
            found = np.array([_share(part[here], statistic) for part in (self.circuit, *self.draws)])
            return None if np.ptp(found[1:]) <= ROUNDING else (found[1:], float(found[0]))

        return shares


def _share(compared: Compared, statistic: str) -> float:
    kl_circuit, kl_empty, loss, loss_circuit, loss_empty = compared.sum(0)
    return 1 - kl_circuit / kl_empty if statistic == "kept KL" else (loss_empty - loss_circuit) / (loss_empty - loss)


def _beside(one: Finding, null: tuple[np.ndarray, float] | None) -> Finding:
    """p compares on the sampled positions, where the circuit was measured as the random ones were."""
    if null is None:
        return one
    drawn, own = null
    return replace(one, null=float(drawn.mean()), null_hi=float(np.quantile(drawn, 0.95)), p=random_set_p(own, drawn))


def null_sample(subject: Subject, runner: Runner) -> Null:
    """Random circuits on every k-th window of the text, about NULL_TOKENS tokens, and at triggers elsewhere."""
    evenly = _sampled(subject.text)
    triggers = _triggers(subject, evenly)
    n_draws = min(subject.settings.draws, MOST_DRAWS)
    drawn = matched(subject.nodes, subject.keep, n_draws, subject.settings.seed)
    places, rows = [], []
    for piece in pieces(subject.text, NULL_TOKENS_AT_ONCE, evenly | triggers):
        subject.report(f"random circuits in running text: {int(piece.places[0]) * 100 // len(evenly)} %")
        places.append(piece.places)
        rows.append(_null_columns(runner, piece, np.concatenate([subject.keep[None], drawn])))
    where, found = np.concatenate(places), np.concatenate(rows, 1)
    return Null(where, evenly[where], found[0], tuple(found[1:]))


def _null_columns(
    runner: Runner, piece: Piece, keep: Bool[np.ndarray, "set node"]
) -> Float[np.ndarray, "set position 5"]:
    """COLUMNS of each set at the positions of a piece."""
    (model,) = runner.logits(piece, np.ones_like(keep[:1]))
    empty, kind = runner.empty(piece)
    own, nothing = own_of(model, piece.targets), empty.log_softmax(-1)[kind]
    found = [
        own.against(logits.log_softmax(-1))
        for some in np.array_split(keep, -(-len(keep) // SETS_AT_ONCE))
        for logits in runner.logits(piece, some)
    ]
    (kl_empty, lost_empty), n = own.against(nothing), len(piece.places)
    return np.stack([np.stack([kl_, kl_empty, own.loss, lost, lost_empty], -1) for kl_, lost in found]).reshape(
        -1, n, 5
    )


def _sampled(text: Text) -> Bool[np.ndarray, " position"]:
    """Positions of every k-th window, about NULL_TOKENS tokens together."""
    step = max(1, text.n_tokens // NULL_TOKENS)
    return windows_of(text) % step == 0


def _triggers(subject: Subject, taken: Bool[np.ndarray, " position"]) -> Bool[np.ndarray, " position"]:
    """Triggers outside the windows that are taken, of so many windows as have TRIGGER_TOKENS tokens."""
    found = np.zeros_like(taken)
    for one in subject.distributions.corpus:
        found[[place for place, _, _ in one.questions]] = True
    found &= ~taken
    numbers = windows_of(subject.text)
    windows = np.random.default_rng(subject.settings.seed).permutation(np.unique(numbers[found]))
    sizes = np.bincount(numbers, minlength=len(subject.text.windows))[windows]
    return found & np.isin(numbers, windows[np.cumsum(sizes) <= TRIGGER_TOKENS])


# --- on prompts ---


def on_prompts(subject: Subject, one: PromptDistribution, runner: Runner) -> list[Finding]:
    """The same at the answer of each prompt: kept KL, and the logit difference with means in place of resampled values.

    On natural text that is trigger-restricted faithfulness in the corpus, and carries its name.
    """
    if one.setting is None:
        return []
    batch = one.setting.batch
    both = np.stack([subject.keep, np.zeros_like(subject.keep)])
    runs = [one.setting.clean.logits, *node_sets.logits(runner.asked(batch.clean, batch.ends), both)]
    clusters = clusters_of(one.setting)
    logs = [run.log_softmax(-1) for run in runs]
    divergences = torch.stack([kl(logs[0], logs[1]), kl(logs[0], logs[2])], -1).double().cpu().numpy()
    rows = []
    if divergences[:, 1].mean() >= LEAST_KL:
        found = ratio(divergences[:, 1] - divergences[:, 0], divergences[:, 1], clusters)
        rows.append(_finding(subject, one.distribution, "kept KL", found))
    if own_question(subject, one):
        values = torch.stack([logit_diff(run, batch.options) for run in runs], -1).double().cpu().numpy()
        name = "faithfulness" if one.distribution.name == NATURAL else "faithfulness with means"
        rows.append(_faithful(subject, one.distribution, values, clusters, name))
    return rows
