"""One experiment made ready: a model, its pairs, and the two runs that every patch starts from.

Cost: two forward passes over the pairs.
"""

import hashlib
import json
import random
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from profiler.errors import PairError
from profiler.model.load import Model
from profiler.model.steps.as_network import longest
from profiler.model.steps.network import Network
from profiler.patching import values
from profiler.patching.batch import PairBatch, Trace, batch_of, trace
from profiler.patching.metrics import LOGIT_DIFF, Metric
from profiler.prompts import pairs as pair_sets
from profiler.prompts.pairs import Encoded, Pair, TokenPair
from profiler.prompts.pairs.pair import Prompt
from profiler.prompts.tasks.prompt import Split
from profiler.text.token_classes import ordinary_ids

REFERENCE_SEED = 1_000
"""Added to the seed of the pairs, for the prompts that means are over."""
LEAST_HALF = 20
"""Pairs of a half of a user's file, at least: a check gives no number for fewer."""
REFERENCE_DRAWS = 4000
"""Prompts drawn to find references for a task of few templates."""
TEMPLATE_DRAWS, MOST_TEMPLATE_DRAWS = 200, 3_000
"""Prompts drawn of one template at a time, and at most: of its lengths in tokens some are rare."""
SCHEME_PAIRS = 24
"""Pairs of each other corruption scheme."""
Outside = Literal["resample", "mean", "zero"]


@dataclass(frozen=True)
class PatchSettings:
    """Everything that changes the numbers of an experiment.

    Attributes:
        task: name of a built-in task, or path of a .jsonl or .csv of pairs.
        scheme: corruption scheme; None takes the task's first.
        pairs: how many pairs are drawn for discovery, and again for each test.
        split: whose words and wordings discovery uses.
        seed: of every draw.
        neurons: how many neurons are patched exactly, half by attribution, half at random; and of units of each other
            kind (neurons of experts, channels of mixers) half as many, at random.
        top: how many components redundancy is looked at for.
        steps: midpoints of integrated gradients.
        draws: random circuits, and inflated circuits.
        mlps: whether circuits choose among MLPs too; otherwise these are always kept.
        by_role: whether heads are also patched at single roles.
        outside: what everything outside a circuit writes: resample, mean or zero; None takes what the circuit's own
            scope says, and resample for one that is found here.
        edges: whether the circuit is chosen and judged by edges (EAP-IG) rather than by nodes.
        metric: name of the metric (`profiler.patching.metrics`); of a user's function its file, name and hash.
    """

    task: str
    scheme: str | None = None
    pairs: int = 48
    split: Split = "train"
    seed: int = 0
    neurons: int = 64
    top: int = 6
    steps: int = 8
    draws: int = 199
    mlps: bool = False
    by_role: bool = True
    outside: Outside | None = None
    edges: bool = False
    metric: str = LOGIT_DIFF.name

    @property
    def is_file(self) -> bool:
        """Whether the task is a user's own file of pairs."""
        return self.task.endswith(pair_sets.FILES)

    @property
    def name(self) -> str:
        """The task's name: of the file, without its ending, where it is one."""
        return Path(self.task).stem if self.is_file else self.task

    def digest(self, weights_hash: str) -> str:
        """Hash of the settings and the model."""
        text = json.dumps(asdict(self), sort_keys=True) + weights_hash
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


@dataclass(frozen=True, eq=False)
class PairRuns:
    """A model and one set of pairs, with both runs.

    Attributes:
        name: of the set: discovery, test, held_out.
        encoded: the pairs, with what was dropped.
        outside: what everything outside a circuit writes; None for the corrupted run.
        redrawn: the same with the prompts that it is the mean of resampled; None where it is no mean.
    """

    name: str
    net: Network
    encoded: Encoded
    batch: PairBatch
    clean: Trace
    corrupted: Trace
    outside: Trace | None = None
    redrawn: values.Redrawn | None = None

    @cached_property
    def metric_clean(self) -> Float[np.ndarray, " pair"]:
        """The metric of the clean run."""
        return self.batch.options.values(self.clean.logits)

    @cached_property
    def metric_corrupted(self) -> Float[np.ndarray, " pair"]:
        """The metric of the corrupted run."""
        return self.batch.options.values(self.corrupted.logits)

    @property
    def metric(self) -> Metric:
        """What decides."""
        return self.batch.options.metric

    @cached_property
    def metric_of_nothing(self) -> float:
        """The mean metric of an output that knows nothing: equal logits."""
        return float(self.batch.options.values(torch.zeros_like(self.clean.logits)).mean())

    def judged_by(self, metric: Metric) -> "PairRuns":
        """The same runs under another metric."""
        if metric is self.metric:
            return self
        options = self.batch.options.asked_by(metric, self.clean.logits)
        return replace(self, batch=replace(self.batch, options=options))

    @property
    def whole(self) -> Float[np.ndarray, " pair"]:
        """Clean minus corrupted metric."""
        return np.asarray(self.metric_clean - self.metric_corrupted)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that some pair has."""
        return tuple(self.batch.roles)


def prepare(name: str, net: Network, encoded: Encoded, metric: Metric = LOGIT_DIFF) -> PairRuns:
    """Run the model on both sides of the pairs; `metric` decides how well a run answers."""
    batch = batch_of(encoded.pairs, net.device, net.dtype)
    clean, corrupted = (trace(net, tokens, batch.ends) for tokens in (batch.clean, batch.corrupted))
    return PairRuns(name, net, encoded, batch, clean, corrupted).judged_by(metric)


@dataclass(frozen=True)
class FileParts:
    """The pairs of a user's file, no pair in two parts.

    Attributes:
        discovery: what a circuit is found on.
        test: further pairs of the same split; empty where the file is too small to be divided.
        held_out: pairs that the file marks with another split.
    """

    discovery: tuple[Pair, ...]
    test: tuple[Pair, ...]
    held_out: tuple[Pair, ...]


def parts_of_file(settings: PatchSettings) -> FileParts:
    """Divide a user's file: by its own `split`, then at random by the seed, `settings.pairs` at most in each part.

    A file that marks nothing as held out is halved if each half is large enough to be checked; a smaller one is all for
    discovery, as far as `settings.pairs` goes.

    Raises:
        PairError: the file cannot be read, or has no pair of the split.
    """
    known = {(pair.clean, pair.corrupted): pair for pair in reversed(pair_sets.read(settings.task))}
    pairs = list(reversed(known.values()))
    own = [pair for pair in pairs if (pair.split == "train") == (settings.split == "train")]
    other = [pair for pair in pairs if pair not in own]
    if not own:
        raise PairError(f"{settings.task} has no pair of split {settings.split!r}: choose the other one, or mark pairs")
    room = len(own) if other or len(own) < 2 * LEAST_HALF else -(-len(own) // 2)
    n = min(settings.pairs, room)
    order = random.Random(f"{settings.name}/{settings.seed}").sample(range(len(own)), len(own))
    first, second = sorted(order[:n]), sorted(order[n:][: settings.pairs])
    return FileParts(tuple(own[i] for i in first), tuple(own[i] for i in second), tuple(other[: settings.pairs]))


def draw(model: Model, settings: PatchSettings, split: Split, seed: int, n: int | None = None) -> list[Pair]:
    """Pairs of the settings' task, or those of the user's file that a circuit is found on."""
    if settings.is_file:
        return list(parts_of_file(settings).discovery)
    return pair_sets.make(settings.task, settings.scheme, split, n or settings.pairs, seed, vocabulary(model))


def vocabulary(model: Model) -> tuple[int, ...]:
    """Ids of ordinary tokens."""
    return ordinary_ids(model.tokenizer)


def encoded(model: Model, drawn: Sequence[Pair]) -> Encoded:
    """Pairs in tokens; what cannot be encoded alike, or is longer than can be patched, is left out and counted."""
    return pair_sets.encode(drawn, model.tokenizer, model.bos_id, longest(model))


def references(model: Model, settings: PatchSettings, known: Encoded, split: Split | None = None) -> Encoded:
    """Reference prompts for means: of the templates of `known`, but none of its pairs; a user's file gives its own.

    Args:
        split: whose words and wordings `known` is of; by default the settings' own.
    """
    if settings.is_file:
        return known
    split, taken = split or settings.split, {pair.pair.clean for pair in known.pairs}
    wanted: dict[str, list[TokenPair]] = {}
    for pair in known.pairs:
        wanted.setdefault(pair.pair.template, []).append(pair)
    if not pair_sets.find_task(settings.task).has_templates:
        drawn = draw(model, settings, split, settings.seed + REFERENCE_SEED, REFERENCE_DRAWS)
        return encoded(model, [pair for pair in drawn if pair.template in wanted and pair.clean not in taken])
    made: list[TokenPair] = []
    for alike in wanted.values():
        made += _of_template(model, settings, split, alike, taken)
    return Encoded(tuple(made), ())


def _of_template(
    model: Model, settings: PatchSettings, split: Split, alike: Sequence[TokenPair], taken: Container[Prompt]
) -> list[TokenPair]:
    """Prompts of the template that some pairs share, `values.MOST` of each length where so many are found."""
    by_length: dict[int, dict[Prompt, TokenPair]] = {len(pair.clean): {} for pair in alike}
    template, strata = alike[0].pair.template, {pair.pair.strata for pair in alike}
    for begin in range(0, MOST_TEMPLATE_DRAWS, TEMPLATE_DRAWS):
        seed = settings.seed + REFERENCE_SEED + begin
        drawn = pair_sets.make(settings.task, settings.scheme, split, TEMPLATE_DRAWS, seed, template=template)
        try:
            some = [pair for pair in drawn if pair.strata in strata and pair.clean not in taken]
            made = encoded(model, some)
        except PairError:  # none of these can be asked
            continue
        for pair in made.pairs:
            own = by_length.get(len(pair.corrupted), {})
            if len(own) < values.MOST:
                own[pair.pair.corrupted] = pair
        if all(len(own) >= values.MOST for own in by_length.values()):
            break
    return [pair for own in by_length.values() for pair in own.values()]
