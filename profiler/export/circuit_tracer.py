"""circuit-tracer's features: a folder per kind, a file per component, named by the pair of layer and unit.

A file's name is Cantor's number of (layer, unit), which is what a node of a graph calls its feature. A token whose
activation the run does not hold is 0. `histogram` counts positions between `quantile_values`, the edges of the run's
strata within the values seen; `is_repeated_datapoint` marks an example whose tokens another of the component has.

Source: circuit-tracer's frontend (`feature_examples`): `examples_quantiles[{quantile_name, examples[{tokens,
tokens_acts_list, train_token_ind, is_repeated_datapoint}]}]`, `top_logits`, `bottom_logits`, `act_min`, `act_max`.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from profiler.export import texts
from profiler.export.counts import NO_EXAMPLE, ExportCounts, shown_examples
from profiler.export.profiles import Profile, ProfileExample

UNKNOWN = "0"
"""How an activation that the run does not hold is written, in words."""


def write(folder: Path, profiles: Iterable[Profile], _model: str) -> ExportCounts:
    """Write a file for each profile."""
    counts = ExportCounts()
    for profile in profiles:
        top, samples = shown_examples(profile, counts)
        if not (top or samples):
            counts.leave_out(NO_EXAMPLE)
            continue
        counts.add((*top, *samples))
        kind = folder / "-".join(part for part in (profile.kind, profile.group) if part)
        kind.mkdir(exist_ok=True)
        text = texts.to_json(feature(profile, top, samples), profile.component)
        (kind / f"{cantor(profile.layer or 0, profile.unit or 0)}.json").write_text(text + "\n", encoding="ascii")
    return counts


def cantor(layer: int, unit: int) -> int:
    """Cantor's number of a pair: (layer + unit)(layer + unit + 1) / 2 + unit."""
    return (layer + unit) * (layer + unit + 1) // 2 + unit


def feature(profile: Profile, top: Iterable[ProfileExample], samples: Iterable[ProfileExample]) -> dict[str, Any]:
    """A component as the object of its file."""
    seen: set[tuple[str, ...]] = set()
    groups = [("Top activations", list(top)), *_by_quantile(samples)]
    edges = _edges(profile)
    return {
        "index": profile.unit or 0,
        "examples_quantiles": [
            {"quantile_name": name, "examples": [_example(example, seen) for example in examples]}
            for name, examples in groups
            if examples
        ],
        "top_logits": [texts.hex_escaped(token) for token, _ in profile.boosted],
        "bottom_logits": [texts.hex_escaped(token) for token, _ in profile.suppressed],
        "act_min": profile.activation_min,
        "act_max": profile.activation_max,
        "quantile_values": edges,
        "histogram": [stratum.n for stratum in profile.spectrum],
        "activation_frequency": profile.density or 0.0,
    }


def _by_quantile(samples: Iterable[ProfileExample]) -> Iterator[tuple[str, list[ProfileExample]]]:
    for levels, examples in groupby(samples, key=lambda example: example.quantiles):
        yield "Around the quantiles " + ", ".join(f"{level:g}" for level in levels), list(examples)


def _example(example: ProfileExample, seen: set[tuple[str, ...]]) -> dict[str, Any]:
    is_repeated = example.tokens in seen
    seen.add(example.tokens)
    return {
        "tokens": [texts.hex_escaped(token) for token in example.tokens],
        "tokens_acts_list": [0.0 if value is None else value for value in example.activations],
        "train_token_ind": example.shown,
        "is_repeated_datapoint": is_repeated,
    }


def _edges(profile: Profile) -> list[float]:
    """The edges of the strata that hold a position, within the values seen: one more than there are strata."""
    if profile.activation_min is None or profile.activation_max is None or not profile.spectrum:
        return []
    inner = [stratum.lo for stratum in profile.spectrum[1:]]
    return [profile.activation_min, *inner, profile.activation_max]
