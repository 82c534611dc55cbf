"""Forecast of a check's time before it begins: tokens that every stage runs, at a measured rate.

Tokens are counted as those of a plain forward pass with logits. What a stage's token costs beside one of these was
measured with the bundled model (SHARES); stages that ask the run instead of the model are counted in seconds.
Cost: two forward passes of about a thousand tokens.
"""

import time
from dataclasses import dataclass

import torch

from profiler.generality.distributions.subject import CheckSubject, PromptDistribution
from profiler.generality.edits import of_roles
from profiler.generality.evidence.distributions import DISCOVERY
from profiler.generality.faithfulness import prompts, running_text
from profiler.generality.faithfulness.means import MEAN_TOKENS
from profiler.generality.replacement import explain, of_members
from profiler.generality.weights import heads
from profiler.model.steps.network import forward
from profiler.patching.sites import parse_target

SHARES = {
    "random circuits on prompts": 0.26,
    "prompts": 9.0,
    "other tasks": 20.0,
    "text": 1.6,
    "random circuits in text": 0.65,
    "means": 0.85,
    "replaced": 3.9,
    "null heads": 0.5,
    "matching": 30.0,
    "edits": 0.8,
    "weights": 9.0,
}
"""Cost of a token of each part over that of a forward pass: below 1 for shared layers, above 1 for several passes."""
LEAST_NAMED = 0.05
"""Smallest share of the tokens of which the part is named."""
SECONDS_A_MEMBER = 1.3
"""Queries about one member: its coverage, mixture and counter-examples."""


@dataclass(frozen=True)
class CheckForecast:
    """Tokens through the model by part, how many of them a second, and seconds of queries."""

    tokens: dict[str, float]
    rate: float
    queries: float

    @property
    def seconds(self) -> float:
        """Seconds of all parts together."""
        return sum(self.tokens.values()) / self.rate + self.queries

    @property
    def sentence(self) -> str:
        """The forecast in words."""
        total = sum(self.tokens.values())
        parts = ", ".join(f"{name} {n / total:.0%}" for name, n in self.tokens.items() if n >= LEAST_NAMED * total)
        minutes = max(1, round(self.seconds / 60))
        return f"forecast: about {minutes} min for {total / 1e6:.1f} M tokens at {self.rate:,.0f} a second ({parts})"


def forecast(subject: CheckSubject) -> CheckForecast:
    """The forecast of one check, once its distributions are built."""
    members = [m for m in subject.general.members if parse_target(m.component).site in ("head", "neuron")]
    tokens = {
        "prompts": _prompts(subject),
        "running text": _text(subject),
        "replacement": _replacement(subject),
        "edits and swaps": _edits(subject),
        "weights": SHARES["weights"] * min(heads.FIT_TOKENS, subject.text.n_tokens),
    }
    return CheckForecast(tokens, rate(subject), SECONDS_A_MEMBER * len(members))


def _prompts(subject: CheckSubject) -> float:
    live = [prompts for prompts in subject.distributions.prompts if prompts.setting is not None]
    plain = SHARES["prompts"] * sum(prompts.distribution.n_tokens for prompts in live)
    first = sum(prompts.distribution.n_tokens for prompts in live if prompts.distribution.name == DISCOVERY)
    random = 2 * subject.settings.draws * sum(_changed(prompts) for prompts in live)
    return plain + SHARES["random circuits on prompts"] * random + SHARES["other tasks"] * first


def _changed(source: PromptDistribution) -> int:
    """Tokens of the prompts that random circuits are run on, from the first on at which the two prompts differ."""
    pairs = source.setting.batch.pairs[: prompts.NULL_PROMPTS]  # type: ignore[union-attr]
    return sum(len(pair.clean) - pair.first_difference for pair in pairs)


def _text(subject: CheckSubject) -> float:
    n = subject.text.n_tokens
    sampled: float = min(n, running_text.NULL_TOKENS)
    if any(corpus.questions for corpus in subject.distributions.corpus):
        sampled += min(n - sampled, running_text.TRIGGER_TOKENS) / 2
    draws = min(subject.settings.draws, running_text.MOST_DRAWS) + 1
    means = SHARES["means"] * min(n, MEAN_TOKENS)
    return SHARES["text"] * n + SHARES["random circuits in text"] * draws * sampled + means


def _replacement(subject: CheckSubject) -> float:
    claims = [claims for member in subject.general.members if (claims := of_members.claims_of(member))]
    if not claims:
        return 0.0
    n = min(subject.text.n_tokens, of_members.TOKENS)
    sampled = min(n, explain.NULL_TOKENS)
    groups = {(claim[0].rule.name, claim[0].target if claim[0].target.site == "neuron" else None) for claim in claims}
    null = SHARES["null heads"] * 2 * explain.NULLS * sampled * len(groups)
    return SHARES["replaced"] * len(claims) * n + null + SHARES["matching"] * min(n, explain.MATCHING_TOKENS)


def _edits(subject: CheckSubject) -> float:
    claimed = sum(claim is not None for _, claim in of_roles.claims_of(subject))
    each = 3 * of_roles.TEXTS * of_roles.LONGEST
    return SHARES["edits"] * claimed * each


def rate(subject: CheckSubject) -> float:
    """Tokens a second of a plain forward pass over windows of text."""
    width = subject.model.spec.context_length
    ids = torch.zeros((max(1, 1024 // width), width), dtype=torch.long, device=subject.net.device)
    with torch.inference_mode():
        forward(subject.net, ids)
        began = time.perf_counter()
        forward(subject.net, ids)
    return ids.numel() / max(1e-9, time.perf_counter() - began)
