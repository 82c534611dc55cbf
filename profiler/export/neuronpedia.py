"""Neuronpedia's upload batches: a folder per source, a file per 128 features, as `POST /api/feature/upload-batch` takes
them.

A source is a layer and a kind, as `2-neuron`, `5-neuron-e3`, `all-embed`; an index is the unit. An example is of an
interval of activations (`quantileMin`, `quantileMax`) that holds `quantileFraction` of all positions: the run's strata,
within the values seen. A token whose activation the run does not hold is 0.

Source: hijohnnylin/neuronpedia, the yup schema of the route (modelId and source in small letters; 1 to 128 features of
unique index; at least one example; 1 to 1,024 tokens, none empty, and as many finite values). It has no field for top
and bottom logits and reads past those that are there.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from profiler.export import texts
from profiler.export.counts import NO_EXAMPLE, ExportCounts, shown_examples
from profiler.export.profiles import Profile, ProfileExample

LARGEST_BATCH = 128
MOST_LOGITS = 20
UNKNOWN = "0"
"""How an activation that the run does not hold is written, in words."""


def write(folder: Path, profiles: Iterable[Profile], model: str) -> ExportCounts:
    """Write the batches of profiles.

    Args:
        model: its name; in small letters without its folder it is the modelId.
    """
    counts, waiting, numbers = ExportCounts(), dict[str, list[dict[str, Any]]](), dict[str, int]()

    def flush(source: str) -> None:
        batch = {"modelId": model_id(model), "source": source, "features": waiting.pop(source)}
        number = numbers[source] = numbers.get(source, -1) + 1
        (folder / source).mkdir(exist_ok=True)
        text = texts.to_json(batch, f"components of {source}")
        (folder / source / f"batch-{number}.json").write_text(text + "\n", encoding="ascii")

    for profile in profiles:
        top, samples = shown_examples(profile, counts)
        if not (top or samples):
            counts.leave_out(NO_EXAMPLE)
            continue
        counts.add((*top, *samples))
        source = source_of(profile)
        waiting.setdefault(source, []).append(feature(profile, (*top, *samples)))
        if len(waiting[source]) == LARGEST_BATCH:
            flush(source)
    for source in sorted(waiting):
        flush(source)
    return counts


def model_id(model: str) -> str:
    """The last part of a model's name in small letters, of what an address may hold."""
    return re.sub(r"[^a-z0-9._-]+", "-", model.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].lower()) or "model"


def source_of(profile: Profile) -> str:
    """Where a component is counted: layer, kind, expert."""
    layer = "all" if profile.layer is None else str(profile.layer)
    return "-".join(part for part in (layer, profile.kind.replace("_", ""), profile.group.lower()) if part)


def feature(profile: Profile, examples: Iterable[ProfileExample]) -> dict[str, Any]:
    """A component as an object of `features`."""
    return {
        "index": profile.unit or 0,
        "density": profile.density or 0.0,
        "topLogits": _logits(profile.boosted),
        "bottomLogits": _logits(profile.suppressed),
        "activations": [_activation(profile, example) for example in examples],
    }


def _logits(tokens: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    named = [{"token": texts.storable(token), "value": value} for token, value in tokens]
    return named[:MOST_LOGITS]


def _activation(profile: Profile, example: ProfileExample) -> dict[str, Any]:
    told = {
        "tokens": [texts.storable(token) for token in example.tokens],
        "values": [0.0 if value is None else value for value in example.activations],
    }
    if example.stratum is None or profile.activation_min is None or profile.activation_max is None:
        return told
    return told | {
        "quantileMin": max(example.stratum.lo, profile.activation_min),
        "quantileMax": min(example.stratum.hi, profile.activation_max),
        "quantileFraction": example.stratum.share,
    }
