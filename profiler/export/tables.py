"""Profiles for a user's own programs: a line of JSON per component, or Parquet tables.

Nothing is left out: every extreme and every sample, each with its interval and its inclusion probability. A token whose
activation the run does not hold is null; so is a bound of a stratum that has none.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from profiler.export import texts
from profiler.export.counts import ExportCounts
from profiler.export.profiles import CHUNK, Profile, Stratum

UNKNOWN = "null"
"""How an activation that the run does not hold is written, in words."""
COMPONENT = ("component", "kind", "layer", "group", "unit", "n", "density")
MEANS = ("activation", "activation_min", "activation_max", "dla", "abs_dla")
EXAMPLE = ("group", "position_id", "domain", "source", "shown", "next_token", "activation", "dla")
_TEXT, _REAL, _WHOLE = pa.string(), pa.float64(), pa.int64()
SCHEMAS: Mapping[str, pa.Schema] = {
    "components": pa.schema(
        {"component": _TEXT, "kind": _TEXT, "layer": _WHOLE, "group": _TEXT, "unit": _WHOLE, "n": _WHOLE}
        | dict.fromkeys(("density", *MEANS), _REAL)
    ),
    "quantiles": pa.schema({"component": _TEXT, "quantile": _REAL, "activation": _REAL}),
    "spectrum": pa.schema({"component": _TEXT, "lo": _REAL, "hi": _REAL, "n": _WHOLE, "share": _REAL}),
    "logit_effects": pa.schema({"component": _TEXT, "side": _TEXT, "rank": _WHOLE, "token": _TEXT, "effect": _REAL}),
    "examples": pa.schema(
        {"component": _TEXT, "group": _TEXT, "position_id": _WHOLE, "domain": _TEXT, "source": _TEXT}
        | {"shown": _WHOLE, "next_token": _TEXT, "activation": _REAL, "dla": _REAL}
        | {"tokens": pa.list_(_TEXT), "activations": pa.list_(_REAL), "quantiles": pa.list_(_REAL)}
        | dict.fromkeys(("stratum_lo", "stratum_hi", "stratum_share", "inclusion_probability"), _REAL)
    ),
}
"""Columns of the Parquet tables."""


def write_jsonl(folder: Path, profiles: Iterable[Profile], _model: str) -> ExportCounts:
    """Write components.jsonl."""
    counts = ExportCounts()
    with (folder / "components.jsonl").open("w", encoding="ascii") as file:
        for profile in profiles:
            counts.add(profile.examples)
            file.write(texts.to_json(_bounded(asdict(profile)), profile.component) + "\n")
    return counts


def write_parquet(folder: Path, profiles: Iterable[Profile], _model: str) -> ExportCounts:
    """Write a Parquet table of components and one of each of their parts."""
    counts = ExportCounts()
    writers = {name: pq.ParquetWriter(folder / f"{name}.parquet", schema) for name, schema in SCHEMAS.items()}
    try:
        remaining = iter(profiles)
        while chunk := list(islice(remaining, CHUNK)):
            for profile in chunk:
                counts.add(profile.examples)
            for name, rows in _rows(chunk).items():
                writers[name].write_table(pa.Table.from_pylist(rows, SCHEMAS[name]))
    finally:
        for writer in writers.values():
            writer.close()
    return counts


def _rows(chunk: Iterable[Profile]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for profile in chunk:
        own = {"component": profile.component}
        rows["components"].append({name: getattr(profile, name) for name in (*COMPONENT, *MEANS)})
        rows["quantiles"] += [own | {"quantile": q, "activation": value} for q, value in profile.quantiles]
        rows["spectrum"] += [own | _bounded(asdict(stratum)) for stratum in profile.spectrum]
        for side in ("boosted", "suppressed"):
            rows["logit_effects"] += [
                own | {"side": side, "rank": rank, "token": token, "effect": effect}
                for rank, (token, effect) in enumerate(getattr(profile, side), 1)
            ]
        rows["examples"] += [own | row for row in _examples(profile)]
    return rows


def _examples(profile: Profile) -> Iterator[dict[str, Any]]:
    for example in profile.examples:
        stratum = _bounded(asdict(example.stratum)) if isinstance(example.stratum, Stratum) else {}
        yield {name: getattr(example, name) for name in EXAMPLE} | {
            "tokens": example.tokens,
            "activations": example.activations,
            "quantiles": example.quantiles,
            "stratum_lo": stratum.get("lo"),
            "stratum_hi": stratum.get("hi"),
            "stratum_share": stratum.get("share"),
            "inclusion_probability": example.inclusion_probability,
        }


def _bounded(value: Any) -> Any:
    """The value, with null for each infinite bound of a stratum, however deep it lies."""
    if isinstance(value, dict):
        return {
            name: None if name in ("lo", "hi") and math.isinf(inner) else _bounded(inner)
            for name, inner in value.items()
        }
    return [_bounded(inner) for inner in value] if isinstance(value, list | tuple) else value
