"""How long a check will take, said before it begins, and what is left out to keep to a budget.

What one distribution of prompts, one random circuit, a token of running text and one of a random circuit in it take is
measured on the check's own prompts and text, by the very functions of the stages; how many of each there will be is
counted. What the smaller parts take beside a token of a plain forward pass was measured with the bundled model
(SHARES). On a processor with one thread the measure is its own seconds, so that other work on it does not count.

Cost: one distribution of prompts with FEW and with MORE random circuits, two batches of text, one query: some 5 % of a
check.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from profiler.circuits.circuit import Member
from profiler.circuits.duration import clock_of, seconds_of
from profiler.circuits.nodes import parse_node
from profiler.errors import CircuitError
from profiler.generality.coverage import at_positions, everywhere
from profiler.generality.coverage.at_positions import does_task
from profiler.generality.distributions.subject import CheckSettings, CheckSubject, Distributions, PromptDistribution
from profiler.generality.edits import of_roles
from profiler.generality.evidence.distributions import DISCOVERY
from profiler.generality.faithfulness import means as ablated
from profiler.generality.faithfulness import prompts, running_text
from profiler.generality.faithfulness.means import MEAN_TOKENS
from profiler.generality.faithfulness.runs import Runner, pieces
from profiler.generality.replacement import explain, of_members
from profiler.generality.weights import heads
from profiler.model.steps.network import forward
from profiler.patching.sites import parse_target
from profiler.text.windows import Batch

SHARES = {"replaced": 3.9, "null heads": 0.5, "matching": 30.0, "edits": 0.8, "weights": 9.0, "other tasks": 20.0}
"""Cost of a token of the smaller parts over that of a forward pass: above 1 for several passes."""
FEW, MORE = 4, 24
"""Random circuits with which one distribution of prompts is timed."""
LEAST_NAMED = 0.05
"""Smallest share of the time of which a part is named."""
DESCRIBE = ("weights", "other tasks", "counter-examples")
"""Stages that describe a circuit and decide no word."""
LADDERS: tuple[tuple[str, tuple[int | str, ...]], ...] = (
    ("left_out", DESCRIBE),
    ("tokens", (150_000, 75_000, 40_000, 20_000)),
    ("draws", (59, 39)),
    ("pairs", (64, 48)),
    ("left_out", ("replacement by understanding", "edits and swaps")),
)
"""What is lowered to keep to a budget, first what decides least, each as far as its tests still decide: 39 random
circuits give p down to .025. Of stages each is left out by its name."""


@dataclass(frozen=True)
class CheckCosts:
    """Seconds of one of each.

    Attributes:
        token: of a plain forward pass with logits.
        prompt: a token of a distribution of prompts, in all that is asked of the circuit alone.
        random: a random circuit on one token of a prompt that the corruption changes.
        text: a token of running text, in model, circuit, empty circuit and means.
        random_text: a random circuit on one token of running text.
        at_roles: a token of a distribution of prompts, in what is asked of roles at their positions.
        queries: about the coverage of one member; of its counter-examples half of that.
    """

    token: float
    prompt: float = 0.0
    random: float = 0.0
    text: float = 0.0
    random_text: float = 0.0
    at_roles: float = 0.0
    queries: float = 0.0


@dataclass(frozen=True)
class CheckForecast:
    """Seconds of each part."""

    parts: dict[str, float]

    @property
    def seconds(self) -> float:
        """Of all parts together."""
        return sum(self.parts.values())

    @property
    def sentence(self) -> str:
        """The forecast in words."""
        total = self.seconds
        named = ", ".join(
            f"{name} {part / total:.0%}" for name, part in self.parts.items() if part >= LEAST_NAMED * total
        )
        minutes = total / 60
        about = f"{minutes:.0f} min" if minutes >= 1 else f"{max(1.0, total):.0f} s"
        return f"forecast: about {about} ({named})"


def unit_costs(subject: CheckSubject) -> CheckCosts:
    """Time a little of each kind of work."""
    clock = clock_of(subject.net.device)
    costs = CheckCosts(_forward(subject, clock))
    live = [one for one in subject.distributions.prompts if one.setting is not None]
    able = [one for one in live if does_task(one.setting)]  # type: ignore[arg-type]
    if live:
        costs = replace(costs, **_of_prompts(subject, (able or live)[-1], clock))
    if subject.text.batches and not subject.circuit.by_edges:
        costs = replace(costs, **_of_text(subject, clock))
    members = _members(subject)
    if members and subject.text.batches:
        question = everywhere.corpus_question(subject, members[0])
        everywhere.of_run(subject.run, question)  # what is prepared once
        costs = replace(costs, queries=seconds_of(clock, lambda: everywhere.of_run(subject.run, question)))
    return costs


def _forward(subject: CheckSubject, clock: Callable[[], float]) -> float:
    """Seconds a token of a plain forward pass over windows of text."""
    width = subject.model.spec.context_length
    ids = torch.zeros((max(1, 1024 // width), width), dtype=torch.long, device=subject.net.device)
    with torch.inference_mode():
        forward(subject.net, ids)
        return seconds_of(clock, lambda: forward(subject.net, ids)) / ids.numel()


def _of_prompts(subject: CheckSubject, one: PromptDistribution, clock: Callable[[], float]) -> dict[str, float]:
    """What a distribution of prompts costs a token, and a random circuit on it."""
    few, more = (replace(subject, settings=replace(subject.settings, draws=draws)) for draws in (FEW, MORE))
    repairable = prompts.repaired_members(subject)
    with_few = seconds_of(clock, lambda: prompts.of_distribution(few, one, repairable))
    with_more = seconds_of(clock, lambda: prompts.of_distribution(more, one, repairable))
    random = max(0.0, with_more - with_few) / (MORE - FEW)
    plain = max(0.0, with_few - FEW * random)
    alone = replace(subject, distributions=Distributions((one,)))
    at_roles = seconds_of(clock, lambda: at_positions.findings(alone))
    n = one.distribution.n_tokens
    return {"prompt": plain / n, "random": random / _changed(one), "at_roles": at_roles / n}


def _of_text(subject: CheckSubject, clock: Callable[[], float]) -> dict[str, float]:
    """What running text costs a token, and a random circuit on it; the first batch prepares what is made once."""
    batches = subject.text.batches
    first, second = (_part(subject, some) for some in (batches[:1], batches[-1:]))
    sites = {parse_node(node).site for node in subject.nodes}
    runner = Runner(subject.net, subject.nodes, ablated.means_of(subject.net, first.text.batches, sites))
    running_text.compare(first, runner)
    compared = seconds_of(clock, lambda: running_text.compare(second, runner))
    averaged = seconds_of(clock, lambda: ablated.means_of(subject.net, second.text.batches, sites))
    piece = next(iter(pieces(first.text, running_text.NULL_TOKENS_AT_ONCE)))
    drawn = np.concatenate([subject.keep[None], _drawn(subject)])
    random = seconds_of(clock, lambda: running_text.null_columns(runner, piece, drawn))
    n, n_means = second.text.n_tokens, min(1.0, MEAN_TOKENS / max(1, subject.text.n_tokens))
    return {
        "text": (compared + n_means * averaged) / n,
        "random_text": random / (len(drawn) * len(piece.indices)),
    }


def _drawn(subject: CheckSubject) -> np.ndarray:
    n = min(subject.settings.draws, running_text.MOST_DRAWS)
    return prompts.matched(subject.nodes, subject.keep, n, subject.settings.seed)


def _part(subject: CheckSubject, batches: tuple[Batch, ...]) -> CheckSubject:
    """The check of some batches of the text alone."""
    n = sum(int(batch.ordinary.sum()) for batch in batches)
    return replace(subject, text=replace(subject.text, batches=batches, n_tokens=n), report=lambda _: None)


def forecast(subject: CheckSubject, costs: CheckCosts, settings: CheckSettings | None = None) -> CheckForecast:
    """Counts times costs.

    Args:
        settings: of a check of the same subject with other settings; None takes its own.
    """
    settings = settings or subject.settings
    n = min(subject.text.n_tokens, settings.tokens or subject.text.n_tokens)
    parts = {
        "prompts": _prompts(subject, costs, settings),
        "running text": _text(subject, costs, settings, n),
        "roles at their positions": costs.at_roles * sum(_tokens(subject, settings)),
        "roles": costs.queries * len(_members(subject)) if subject.text.batches else 0.0,
        "counter-examples": costs.queries / 2 * _claimed(subject) if subject.text.batches else 0.0,
        "replacement by understanding": costs.token * _replacement(subject, n),
        "edits and swaps": costs.token * _edits(subject),
        "other tasks": costs.token * SHARES["other tasks"] * sum(_tokens(subject, settings, DISCOVERY)),
        "weights": costs.token * SHARES["weights"] * min(heads.FIT_TOKENS, n),
    }
    return CheckForecast({name: part for name, part in parts.items() if name not in settings.left_out})


def within(budget: float, subject: CheckSubject, costs: CheckCosts) -> tuple[CheckSettings, tuple[str, ...]]:
    """The settings with as little left out as the budget (seconds) asks for, and what was left out, in words.

    Raises:
        CircuitError: even the least of everything takes longer.
    """
    chosen = subject.settings
    for lowered in _rungs(chosen):
        if forecast(subject, costs, chosen).seconds <= budget:
            return chosen, left_out(subject.settings, chosen)
        chosen = lowered(chosen)
    least = forecast(subject, costs, chosen).seconds
    if least > budget:
        raise CircuitError(
            f"the budget is {budget / 60:.1f} min, and with {', '.join(left_out(subject.settings, chosen))} the check"
            f" still takes about {least / 60:.1f} min: give that much"
        )
    return chosen, left_out(subject.settings, chosen)


def _rungs(settings: CheckSettings) -> Iterator[Callable[[CheckSettings], CheckSettings]]:
    """What is lowered, one thing after another."""
    for name, values in LADDERS:
        for value in values:
            if isinstance(value, str):
                yield lambda chosen, value=value: replace(chosen, left_out=(*chosen.left_out, value))  # type: ignore[misc]
            elif (getattr(settings, name) or value + 1) > value:
                yield lambda chosen, name=name, value=value: replace(chosen, **{name: value})  # type: ignore[misc]


def left_out(before: CheckSettings, after: CheckSettings) -> tuple[str, ...]:
    """What was lowered, and which stages are not run."""
    names = dict.fromkeys(name for name, _ in LADDERS if name != "left_out")
    pairs = [(name, getattr(before, name), getattr(after, name)) for name in names]
    lowered = [f"{name} {'all' if was is None else was} -> {now}" for name, was, now in pairs if was != now]
    return (*lowered, *(f"stage {name}" for name in after.left_out if name not in before.left_out))


def _members(subject: CheckSubject) -> list[Member]:
    return [m for m in subject.general.members if parse_target(m.component).site in ("head", "neuron")]


def _tokens(subject: CheckSubject, settings: CheckSettings, only: str = "") -> list[float]:
    """Tokens of each distribution of prompts that is measured."""
    live = [one.distribution for one in subject.distributions.prompts if one.setting is not None]
    return [
        one.n_tokens * (1.0 if one.name == DISCOVERY else min(1.0, settings.pairs / one.n_prompts))
        for one in live
        if only in ("", one.name)
    ]


def _prompts(subject: CheckSubject, costs: CheckCosts, settings: CheckSettings) -> float:
    able = [one for one in subject.distributions.prompts if one.setting is not None and does_task(one.setting)]
    changed = sum(_changed(one) for one in able)
    return costs.prompt * sum(_tokens(subject, settings)) + costs.random * settings.draws * changed


def _changed(source: PromptDistribution) -> int:
    """Tokens of the prompts that random circuits are run on, from the first on at which the two prompts differ."""
    pairs = source.setting.batch.pairs[: prompts.NULL_PROMPTS]  # type: ignore[union-attr]
    return sum(len(pair.clean) - pair.first_difference for pair in pairs)


def _text(subject: CheckSubject, costs: CheckCosts, settings: CheckSettings, n: int) -> float:
    sampled: float = min(n, running_text.NULL_TOKENS)
    if any(corpus.questions for corpus in subject.distributions.corpus):
        sampled += min(n - sampled, running_text.TRIGGER_TOKENS) / 2
    draws = min(settings.draws, running_text.MOST_DRAWS) + 1
    return costs.text * n + costs.random_text * draws * sampled


def _replacement(subject: CheckSubject, n: int) -> float:
    claims = [claims for member in subject.general.members if (claims := of_members.claims_of(member))]
    if not claims:
        return 0.0
    n = min(n, of_members.TOKENS)
    sampled = min(n, explain.NULL_TOKENS)
    groups = {(claim[0].rule.name, claim[0].target if claim[0].target.site == "neuron" else None) for claim in claims}
    null = SHARES["null heads"] * 2 * explain.NULLS * sampled * len(groups)
    return SHARES["replaced"] * len(claims) * n + null + SHARES["matching"] * min(n, explain.MATCHING_TOKENS)


def _edits(subject: CheckSubject) -> float:
    return SHARES["edits"] * _claimed(subject) * 3 * of_roles.TEXTS * of_roles.LONGEST


def _claimed(subject: CheckSubject) -> int:
    """Members whose roles claim something of every position."""
    return sum(claim is not None for _, claim in of_roles.claims_of(subject))
