"""How much of what a model does in running text a circuit keeps when everything outside it is held at its mean.

With p, p_C, p_0 the next-token distributions of the model, of the circuit alone, and of the empty circuit:

* kept KL: 1 - sum KL(p || p_C) / sum KL(p || p_0); 1 is the model's own distribution.
* kept loss: (sum L_0 - sum L_C) / (sum L_0 - sum L), losses of the realised next tokens; above 1 the circuit predicts better.
* faithfulness: at triggers alone, of the logit difference between answer and distractors, normalised as on the prompts.

Whoever keeps a few heads keeps little of what a model does in running text: kept KL of all text is how complete the circuit
is, and is to be read beside the same number for random circuits with as many heads in each layer. At triggers it says how
much of what happens there is the circuit's.

Cost: two more forward passes over the text than the model's own (circuit, empty circuit); random circuits on a part of it.
On prompts: three forward passes of the rung.

Shares with means are not shares with resampled values: where only a name differs, the corrupted prompt still says that a name is
due, and a mean of the corpus does not. A circuit found with resampled values can keep all of the one and none of the other; so a
number is to be held against the same number on the discovery prompts, `faithfulness with means`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.generality import ablated, finding
from profiler.generality.ablated import Means
from profiler.generality.finding import FEWEST, Finding, Technique
from profiler.generality.measure import (
    ROUNDING,
    Ratio,
    clusters_of,
    matched,
    nothing_to_explain,
    own_question,
    ratio,
    six,
    unit_of,
)
from profiler.generality.rungs import NATURAL, Rung
from profiler.generality.subject import CorpusRung, PromptRung, Subject
from profiler.patching.metrics import kl, logit_diff
from profiler.patching.network import forward
from profiler.patching.statistics import random_set_p
from profiler.windows import Batch

TECHNIQUE: Technique = "corpus faithfulness"
NULL_TOKENS = 10_000
MOST_DRAWS = 39
LEAST_KL = 0.001
"""Mean divergence of the empty circuit, nats, below which there is nothing to keep a share of."""
COLUMNS = ("kl", "kl_empty", "loss", "loss_circuit", "loss_empty")
Compared = Float[np.ndarray, "position 5"]


def findings(subject: Subject) -> tuple[Finding, ...]:
    """Findings of every rung of running text, and of the prompts with the same means."""
    if not subject.text.batches:
        return tuple(_no_text(subject, one.rung) for one in subject.ladder.corpus)
    subject.report("means of the corpus")
    means = ablated.means_of(subject.net, ablated.some(subject.text))
    rows = [row for one in subject.ladder.prompts for row in on_prompts(subject, one, means)]
    subject.report("the circuit in running text")
    compared, questions = compare(subject, means)
    subject.report("random circuits in running text")
    null = null_sample(subject, means)
    return (
        *rows,
        *(row for one in subject.ladder.corpus for row in of_corpus(subject, one, compared, questions, null)),
    )


def _no_text(subject: Subject, rung: Rung) -> Finding:
    return finding.refused(subject.circuit.name, "", TECHNIQUE, rung.name, "kept KL", 0, "documents", rung.refused)


# --- over the text ---


def compare(subject: Subject, means: Means) -> tuple[Compared, dict[int, tuple[float, float, float]]]:
    """COLUMNS at every position of the text; and at triggers the logit difference of model, circuit and empty circuit."""
    asked = {place: (a, d) for one in subject.ladder.corpus for place, a, d in one.questions}
    rows, differences, done = [], {}, 0
    total = len(subject.text.batches)
    for number, (batch, part) in enumerate(subject.text.parts()):
        if number * 10 // total > done:
            done = number * 10 // total
            subject.report(f"the circuit in running text: {done * 10} %")
        runs = _three(subject, batch, subject.keep, means)
        rows.append(_columns(batch, *runs))
        for place in range(part.start, part.stop):
            if place in asked:
                differences[place] = _differences(batch, place - part.start, runs, *asked[place])
    return np.concatenate(rows), differences


def _three(
    subject: Subject, batch: Batch, keep: Bool[np.ndarray, " node"], means: Means
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of model, circuit and empty circuit at the ordinary positions of a batch, [position vocab]."""
    tokens = batch.tokens.to(subject.net.device)
    chosen = batch.ordinary.to(tokens.device)
    with torch.inference_mode():
        own = forward(subject.net, tokens)[chosen]
    some = (
        ablated.logits(subject.net, tokens, subject.nodes, which, means)[chosen]
        for which in (keep, np.zeros_like(keep))
    )
    return own, *some


def _columns(batch: Batch, own: Tensor, circuit: Tensor, empty: Tensor) -> Compared:
    targets = batch.targets[batch.ordinary].to(own.device)
    logs = [part.log_softmax(-1) for part in (own, circuit, empty)]
    losses = [-part.gather(-1, targets[:, None])[:, 0] for part in logs]
    return torch.stack([kl(logs[0], logs[1]), kl(logs[0], logs[2]), *losses], -1).double().cpu().numpy()


def _differences(
    batch: Batch, row: int, runs: Sequence[Tensor], answer: int, distractors: tuple[int, ...]
) -> tuple[float, float, float]:
    """Logit difference of answer and distractors in each run at one position."""
    found = [float(run[row, answer] - run[row, list(distractors)].mean()) for run in runs]
    return found[0], found[1], found[2]


def of_corpus(
    subject: Subject,
    one: CorpusRung,
    compared: Compared,
    questions: dict[int, tuple[float, float, float]],
    null: "Null",
) -> list[Finding]:
    """Kept KL and loss of one rung of running text; at triggers the logit difference too."""
    rung, name = one.rung, subject.circuit.name
    statistics = ("kept KL", "kept loss", *(("faithfulness",) if one.questions else ()))
    if rung.refused:
        return [
            finding.refused(name, "", TECHNIQUE, rung.name, s, rung.n_tokens, "positions", rung.refused)
            for s in statistics
        ]
    chosen, documents = compared[one.chosen], subject.text.documents[one.chosen]
    clusters = np.unique(documents, return_inverse=True)[1]
    rows = _kept(subject, rung, chosen, clusters, null.of(one.chosen))
    if one.questions:
        places = [place for place, _, _ in one.questions]
        values = np.array([questions[place] for place in places])
        rows.append(_faithful(subject, rung, values, np.unique(subject.text.documents[places], return_inverse=True)[1]))
    return rows


def _kept(
    subject: Subject, rung: Rung, compared: Compared, clusters: Int[np.ndarray, " position"], null: Callable[[str], tuple[np.ndarray, float] | None] | None = None
) -> list[Finding]:  # fmt: skip
    """Both shares, with their intervals and the null's share where there is one."""
    named = dict(zip(COLUMNS, compared.T, strict=True))
    parts = {
        "kept KL": (named["kl_empty"] - named["kl"], named["kl_empty"], LEAST_KL),
        "kept loss": (named["loss_empty"] - named["loss_circuit"], named["loss_empty"] - named["loss"], LEAST_KL),
    }
    rows = []
    for statistic, (above, below, least) in parts.items():
        if below.mean() < least:
            why = f"without the circuit and all else the model changes by {below.mean():.4f} nats only: nothing to keep a share of"
            rows.append(
                finding.refused(
                    subject.circuit.name, "", TECHNIQUE, rung.name, statistic, rung.n_tokens, "positions", why
                )
            )
        else:
            one = _finding(subject, rung, statistic, ratio(above, below, clusters))
            rows.append(_beside(one, null(statistic)) if null else one)
    return rows


def _finding(subject: Subject, rung: Rung, statistic: str, one: Ratio) -> Finding:
    return Finding(
        subject.circuit.name, "", TECHNIQUE, rung.name, statistic, one.value, one.lo, one.hi, one.n,
        "documents" if rung.kind == "corpus" else unit_of(rung), setting=six(subject, TECHNIQUE, rung.name, "mean"),
        shares=("data corpus",) if rung.kind == "corpus" else (f"data {rung.name}",),
    )  # fmt: skip


def _faithful(
    subject: Subject,
    rung: Rung,
    values: Float[np.ndarray, "question 3"],
    clusters: np.ndarray,
    name: str = "faithfulness",
) -> Finding:
    """Normalised faithfulness of the logit difference, from (model, circuit, empty)."""
    own, circuit, empty = values.T
    effect = ratio(own - empty, np.ones_like(own), clusters)
    if effect.lo <= 0:
        unit = "documents" if rung.kind == "corpus" else unit_of(rung)
        return finding.refused(
            subject.circuit.name, "", TECHNIQUE, rung.name, name, effect.n, unit, nothing_to_explain(effect)
        )
    return _finding(subject, rung, name, ratio(circuit - empty, own - empty, clusters))


# --- random circuits ---


@dataclass(frozen=True, eq=False)
class Null:
    """Random circuits on a part of the text: `places` in the flat arrays, and COLUMNS there for the circuit and each draw."""

    places: Int[np.ndarray, " sampled"]
    circuit: Float[np.ndarray, "sampled 5"]
    draws: tuple[Float[np.ndarray, "sampled 5"], ...]

    def of(self, chosen: Bool[np.ndarray, " position"]) -> Callable[[str], tuple[np.ndarray, float] | None]:
        """The null's shares and the circuit's own on the sampled positions of a rung; None where these are too few."""
        here = chosen[self.places]

        def shares(statistic: str) -> tuple[np.ndarray, float] | None:
            if here.sum() < FEWEST or not self.draws:
                return None
            found = np.array([_share(part[here], statistic) for part in (self.circuit, *self.draws)])
            return None if np.ptp(found[1:]) == 0 else (found[1:], float(found[0]))

        return shares


def _share(compared: Compared, statistic: str) -> float:
    kl_circuit, kl_empty, loss, loss_circuit, loss_empty = compared.sum(0)
    return 1 - kl_circuit / kl_empty if statistic == "kept KL" else (loss_empty - loss_circuit) / (loss_empty - loss)


def _beside(one: Finding, null: tuple[np.ndarray, float] | None) -> Finding:
    """p compares on the sampled positions, where the circuit was measured as the random ones were."""
    if null is None:
        return one
    drawn, own = null
    return replace(
        one, null=float(drawn.mean()), null_hi=float(np.quantile(drawn, 0.95)), p=random_set_p(own - ROUNDING, drawn)
    )


def null_sample(subject: Subject, means: Means) -> Null:
    """Random circuits on every k-th batch of the text, about NULL_TOKENS tokens, and on batches with triggers up to as many."""
    chosen, places = [], []
    asked = {place for one in subject.ladder.corpus for place, _, _ in one.questions}
    step, left = max(1, subject.text.n_tokens // NULL_TOKENS), NULL_TOKENS
    for number, (batch, part) in enumerate(subject.text.parts()):
        wanted = left > 0 and any(place in asked for place in range(part.start, part.stop))
        if number % step == 0 or wanted:
            left -= 0 if number % step == 0 else part.stop - part.start
            chosen.append(batch)
            places.append(np.arange(part.start, part.stop))
    n_draws = min(subject.settings.draws, MOST_DRAWS)
    drawn = matched(subject.nodes, subject.keep, n_draws, subject.settings.seed)
    runs: list[list[Compared]] = [[] for _ in range(1 + n_draws)]
    for batch in chosen:
        own, circuit, empty = _three(subject, batch, subject.keep, means)
        runs[0].append(_columns(batch, own, circuit, empty))
        for place, keep in enumerate(drawn, 1):
            other = ablated.logits(subject.net, batch.tokens.to(subject.net.device), subject.nodes, keep, means)
            runs[place].append(_columns(batch, own, other[batch.ordinary.to(other.device)], empty))
    joined = [np.concatenate(parts) for parts in runs]
    return Null(np.concatenate(places), joined[0], tuple(joined[1:]))


# --- on prompts ---


def on_prompts(subject: Subject, one: PromptRung, means: Means) -> list[Finding]:
    """The same at the answer of each prompt: kept KL, and the logit difference with means in place of resampled values.

    On natural text that is trigger-restricted faithfulness in the corpus, and carries its name.
    """
    if one.setting is None:
        return []
    net, batch = subject.net, one.setting.batch
    own = one.setting.clean.logits
    runs = [own] + [
        ablated.logits(net, batch.clean, subject.nodes, keep, means, batch.ends) for keep in (subject.keep, np.zeros_like(subject.keep))
    ]  # fmt: skip
    clusters = clusters_of(one.setting)
    logs = [run.log_softmax(-1) for run in runs]
    divergences = torch.stack([kl(logs[0], logs[1]), kl(logs[0], logs[2])], -1).double().cpu().numpy()
    rows = []
    if divergences[:, 1].mean() >= LEAST_KL:
        found = ratio(divergences[:, 1] - divergences[:, 0], divergences[:, 1], clusters)
        rows.append(_finding(subject, one.rung, "kept KL", found))
    if own_question(subject, one):
        values = torch.stack([logit_diff(run, batch.options) for run in runs], -1).double().cpu().numpy()
        name = "faithfulness" if one.rung.name == NATURAL else "faithfulness with means"
        rows.append(_faithful(subject, one.rung, values, clusters, name))
    return rows
