"""The sets of pairs of an experiment: what a circuit is found on and judged on, and what is put in outside of it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from profiler.circuits.circuit import Circuit
from profiler.errors import PairError
from profiler.model.load import Model
from profiler.model.steps.network import Network
from profiler.patching import setting, values
from profiler.patching.metrics import LOGIT_DIFF, Metric, is_flat
from profiler.patching.setting import Outside, PairRuns, PatchSettings
from profiler.prompts.pairs import Encoded, Pair
from profiler.prompts.tasks.prompt import Split

Report = Callable[[str], None]


def discovery(model: Model, net: Network, settings: PatchSettings, metric: Metric) -> PairRuns:
    """The pairs that a circuit is found on, with both runs."""
    pairs = setting.encoded(model, setting.draw(model, settings, settings.split, settings.seed))
    return setting.prepare("discovery", net, pairs, metric)


def selected_by(runs: PairRuns, report: Report) -> PairRuns:
    """The pairs under the metric that selects: their own, or the logit difference where its gradient is zero."""
    if not is_flat(runs.batch.options, runs.corrupted.logits):
        return runs
    report(
        f"selection: the gradient of {runs.metric.words} is zero almost everywhere, so the logit difference selects and"
        f" {runs.metric.words} judges"
    )
    return runs.judged_by(LOGIT_DIFF)


def other_settings(
    model: Model,
    net: Network,
    settings: PatchSettings,
    metric: Metric = LOGIT_DIFF,
    outside: Outside = "resample",
) -> list[PairRuns]:
    """Fresh pairs of the same wordings, and pairs of held-out wordings and words; of a user's file its other parts."""
    prepared = []
    for name, split in (("test", settings.split), ("held_out", "held_out")):
        try:
            made: Encoded = setting.encoded(model, _other_pairs(model, settings, name, split))
        except PairError:
            continue
        runs = setting.prepare(name, net, made, metric)
        references = partial(setting.references, model, settings, made, split)
        prepared.append(with_outside(runs, outside, partial(_means, runs, references)))
    return prepared


def outside_of(settings: PatchSettings, circuit: Circuit | None) -> Outside:
    """What everything outside the circuit writes: as asked for, else as its scope says, else resampled values."""
    return settings.outside or (circuit.scope.outside if circuit is not None else "resample")  # type: ignore[return-value]


def with_outside(runs: PairRuns, outside: Outside, means: Callable[[], values.ReferenceMeans]) -> PairRuns:
    """The setting with other values outside circuits than those of the corrupted run."""
    if outside == "resample":
        return runs
    if outside == "zero":
        return replace(runs, outside=values.zeros(runs.clean))
    drawn = means()
    return replace(runs, outside=drawn.trace, redrawn=drawn.redrawn)


def _means(runs: PairRuns, references: Callable[[], Encoded]) -> values.ReferenceMeans:
    """Means of references for some pairs."""
    return values.means(runs.net, runs.clean, runs.batch, references().pairs)


def _other_pairs(model: Model, settings: PatchSettings, name: str, split: Split) -> Sequence[Pair]:
    """Pairs that the circuit was not found on, for the set of a name; none where a user's file has no more."""
    if not settings.is_file:
        discovery_prompts = {pair.clean for pair in setting.draw(model, settings, settings.split, settings.seed)}
        drawn = setting.draw(model, settings, split, settings.seed + 1)
        return [pair for pair in drawn if pair.clean not in discovery_prompts]
    parts = setting.parts_of_file(settings)
    return parts.test if name == "test" else parts.held_out
