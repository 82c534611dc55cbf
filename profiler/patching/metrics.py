"""What is asked of each prompt, the metric that decides, and the panel that stands beside it.

The metric drives scoring, selection and judging. It is larger where the model answers better, so that its clean value
is above its corrupted one:

| metric | meaning | unit |
|---|---|---|
| logit_diff | mean logit of the answers minus mean logit of the distractors | logits |
| prob_diff | probability of all answers minus that of all distractors (Hanna et al. 2023) | probability |
| kl | minus KL(clean run || run): 0 at the clean run | nats |
| accuracy | 1 where the best answer is above the best distractor, 1/2 where they are equal | share of pairs |

A user's own function is another (`profiler.patching.own_metric`). The gradient of accuracy is zero almost everywhere: a
metric of which that is so judges, and the logit difference selects.

The panel has many readings of one answer, because no single one can be trusted.

Why: log probability moves when the denominator moves; probability hides what lowers the answer; a difference to one
distractor hides what both have in common (circuits.md section 3.5; Zhang and Nanda 2024). All readings are taken at
the position where the answer is asked for, from float64 logits; divergences are sums over the vocabulary, in nats.

| metric | meaning |
|---|---|
| logit_diff | mean logit of the answers minus mean logit of the distractors |
| answer_logit, distractor_logit | the two, centred over the vocabulary |
| log_prob, prob | of all answers together |
| rank | tokens above the best answer |
| top1 | 1 where an answer is the first choice |
| entropy | of the answer distribution |
| kl_from_reference | KL(reference || patched) |
| kl_to_reference | KL(patched || reference) |
| js | Jensen-Shannon divergence to the reference |

Cost: a few passes over [row, vocab].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.model.steps.network import Logits

Reading = Callable[[Logits, "Options"], Float[Tensor, " prompt"]]
METRICS = (
    "logit_diff",
    "answer_logit",
    "distractor_logit",
    "log_prob",
    "prob",
    "rank",
    "top1",
    "entropy",
    "kl_from_reference",
    "kl_to_reference",
    "js",
)


def logit_diff(logits: Logits, options: "Options") -> Float[Tensor, " prompt"]:
    """Mean logit of the answers minus mean logit of the distractors, in the dtype of the logits."""
    answers = (logits.gather(-1, options.answers) * options.answer_weight.to(logits.dtype)).sum(-1)
    distractors = (logits.gather(-1, options.distractors) * options.distractor_weight.to(logits.dtype)).sum(-1)
    return answers - distractors


def prob_diff(logits: Logits, options: "Options") -> Float[Tensor, " prompt"]:
    """Probability of all answers minus probability of all distractors."""
    chances = logits.softmax(-1)
    answers = (chances.gather(-1, options.answers) * (options.answer_weight > 0)).sum(-1)
    distractors = (chances.gather(-1, options.distractors) * (options.distractor_weight > 0)).sum(-1)
    return answers - distractors


def minus_kl(logits: Logits, options: "Options") -> Float[Tensor, " prompt"]:
    """Minus KL(clean run || this run), nats."""
    if options.reference is None:
        raise ValueError("these options know no clean run")
    return -kl(options.reference.log_softmax(-1), logits.log_softmax(-1))


def accuracy(logits: Logits, options: "Options") -> Float[Tensor, " prompt"]:
    """1 where the best answer is above the best distractor, 1/2 where they are equal, else 0."""
    best = [
        logits.gather(-1, ids).masked_fill(weight == 0, -torch.inf).amax(-1)
        for ids, weight in (
            (options.answers, options.answer_weight),
            (options.distractors, options.distractor_weight),
        )
    ]
    return ((best[0] > best[1]).to(logits.dtype) + (best[0] >= best[1]).to(logits.dtype)) / 2


@dataclass(frozen=True)
class Metric:
    """What decides how well a run answers, larger for better.

    Attributes:
        name: as it is asked for, stored and shown.
        words: what it is.
        unit: of its values.
        of: its value per prompt, from logits at the answer's position and what is asked there.
        compares: whether `of` reads the clean run's logits (`Options.reference`).
        is_flat: whether its gradient is zero almost everywhere; None where that has to be tried.
    """

    name: str
    words: str
    unit: str
    of: Reading
    compares: bool = False
    is_flat: bool | None = False


LOGIT_DIFF = Metric("logit_diff", "logit difference", "logits", logit_diff)
BUILT_IN = {
    metric.name: metric
    for metric in (
        LOGIT_DIFF,
        Metric("prob_diff", "probability difference", "probability", prob_diff),
        Metric("kl", "minus KL to the clean run", "nats", minus_kl, compares=True),
        Metric("accuracy", "accuracy", "share of pairs", accuracy, is_flat=True),
    )
}


@dataclass(frozen=True, eq=False)
class Options:
    """What is asked of each prompt: its answers and distractors, and the metric that decides.

    Attributes:
        answers, distractors: token ids.
        answer_weight, distractor_weight: 0 for padding, else 1 over their number.
        metric: what decides.
        reference: logits of the clean run, for a metric that compares with it.
    """

    answers: Int[Tensor, "prompt option"]
    answer_weight: Float[Tensor, "prompt option"]
    distractors: Int[Tensor, "prompt distractor"]
    distractor_weight: Float[Tensor, "prompt distractor"]
    metric: Metric = LOGIT_DIFF
    reference: Float[Tensor, "prompt vocab"] | None = None

    def measure(self, logits: Logits) -> Float[Tensor, " prompt"]:
        """The metric of each prompt."""
        return self.metric.of(logits, self)

    def values(self, logits: Logits) -> Float[np.ndarray, " prompt"]:
        """The same as float64, without gradient."""
        return np.asarray(self.measure(logits).double().numpy(force=True))

    def asked_by(self, metric: Metric, clean: Logits) -> "Options":
        """The same options with a metric; `clean` are the clean run's logits."""
        return replace(self, metric=metric, reference=clean.clone() if metric.compares else None)

    def rows(self, times: int) -> "Options":
        """The same options `times` times over, for batches of interventions x prompts."""
        return self._each(lambda part: part.repeat(times, 1))

    def of(self, rows: Sequence[int] | np.ndarray) -> "Options":
        """Those of some prompts."""
        return self._each(lambda part: part[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Options":
        names = ("answers", "answer_weight", "distractors", "distractor_weight")
        parts: dict[str, Any] = {name: change(getattr(self, name)) for name in names}
        return replace(self, **parts, reference=None if self.reference is None else change(self.reference))


def is_flat(options: Options, logits: Logits) -> bool:
    """Whether the metric's gradient is zero everywhere at these logits (those of the corrupted run)."""
    if options.metric.is_flat is not None:
        return options.metric.is_flat
    leaf = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        total = options.measure(leaf).sum()
        slope = torch.autograd.grad(total, leaf)[0] if total.requires_grad else torch.zeros_like(leaf)
    return not bool(slope.any())


def panel(logits: Logits, options: Options, reference: Logits) -> Float[Tensor, "prompt metric"]:
    """All of METRICS, float64; `reference` are the logits that divergences are taken to (the clean run's)."""
    logits, reference = logits.double(), reference.double()
    centred = logits - logits.mean(-1, keepdim=True)
    answer = (centred.gather(-1, options.answers) * options.answer_weight).sum(-1)
    distractor = (centred.gather(-1, options.distractors) * options.distractor_weight).sum(-1)
    log_p, log_r = logits.log_softmax(-1), reference.log_softmax(-1)
    chosen = log_p.gather(-1, options.answers).masked_fill(options.answer_weight == 0, -torch.inf)
    log_prob = chosen.logsumexp(-1)
    best = logits.gather(-1, options.answers).masked_fill(options.answer_weight == 0, -torch.inf).amax(-1, keepdim=True)
    rank = (logits > best).sum(-1).double()
    entropy = -(log_p.exp() * log_p).sum(-1)
    columns = (
        answer - distractor,
        answer,
        distractor,
        log_prob,
        log_prob.exp(),
        rank,
        (rank == 0).double(),
        entropy,
        kl(log_r, log_p),
        kl(log_p, log_r),
        jensen_shannon(log_p, log_r),
    )
    return torch.stack(columns, -1)


def kl(log_p: Float[Tensor, "*shape vocab"], log_q: Float[Tensor, "*shape vocab"]) -> Float[Tensor, "*shape"]:
    """KL(p || q), summed over the vocabulary, nats."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def jensen_shannon(
    log_p: Float[Tensor, "*shape vocab"], log_q: Float[Tensor, "*shape vocab"]
) -> Float[Tensor, "*shape"]:
    """Jensen-Shannon divergence, nats, at most ln 2."""
    middle = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=log_p.dtype))
    return (kl(log_p, middle) + kl(log_q, middle)) / 2
