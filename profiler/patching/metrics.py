"""The metric panel: many readings of one answer, because no single one can be trusted.

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

import torch
from jaxtyping import Float
from torch import Tensor

from profiler.model.steps.network import Logits
from profiler.patching.batch import Options

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


def logit_diff(logits: Logits, options: Options) -> Float[Tensor, " prompt"]:
    """Mean logit of the answers minus mean logit of the distractors, in the dtype of the logits."""
    answers = (logits.gather(-1, options.answers) * options.answer_weight.to(logits.dtype)).sum(-1)
    distractors = (logits.gather(-1, options.distractors) * options.distractor_weight.to(logits.dtype)).sum(-1)
    return answers - distractors


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
