"""Profiles: what a run holds of a component, in the form that exports are made of.

Components are read many at a time, each table once for all of them, so that what an export costs grows with its rows
and not with its queries.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from duckdb import DuckDBPyConnection as Connection

from profiler.database import query
from profiler.errors import ExportError

CHUNK = 128
"""Components that are read together."""
BEFORE, AFTER = 24, 8
"""Tokens of a context before and after the shown token."""
KIND, GROUP = re.compile(r"[a-z][a-z_]{0,31}"), re.compile(r"([ES]\d{1,9}|\.\w{1,32}:)?", re.ASCII)
"""What the names of kinds, of groups of experts and of the places of dictionaries look like."""
CHOSEN = "component_id IN (SELECT unnest(getvariable('ids')::INTEGER[]))"

COMPONENTS = """SELECT component_id, component, kind, layer, block_group, unit
FROM components ORDER BY component_id"""
MOMENTS = f"""SELECT component_id, sum(power_sums.n)::BIGINT AS n
    , sum(power_sums.n * a_mean) / sum(power_sums.n) AS activation
    , min(a_min) AS activation_min, max(a_max) AS activation_max
    , sum(power_sums.n * d_mean) / sum(power_sums.n) AS dla, sum(d_abs) / sum(power_sums.n) AS abs_dla
FROM power_sums JOIN classes ON classes.class_id = power_sums.class_id AND NOT classes.special
WHERE {CHOSEN} GROUP BY component_id"""
DENSITY = f"""SELECT component_id, sum(n) FILTER (bins.lo > 0) / sum(n) AS density
FROM density_counts JOIN bins ON bins.resolution = 'density' AND bins.bin = density_counts.bin
WHERE {CHOSEN} GROUP BY component_id"""
QUANTILES = f"SELECT component_id, quantile, value, bin FROM quantiles WHERE {CHOSEN} ORDER BY component_id, quantile"
STRATA = f"""SELECT component_id, spectrum_counts.bin, bins.lo, bins.hi, sum(n)::BIGINT AS n
FROM spectrum_counts
JOIN classes ON classes.class_id = spectrum_counts.class_id AND NOT classes.special
JOIN bins ON bins.resolution = 'spectrum' AND bins.bin = spectrum_counts.bin
WHERE {CHOSEN} GROUP BY ALL ORDER BY component_id, spectrum_counts.bin"""
SAMPLES = f"""SELECT component_id, bin, position_id, activation, dla
    , count(*) OVER (PARTITION BY component_id, bin) AS sampled
FROM sample_rows WHERE {CHOSEN}
QUALIFY row_number() OVER (PARTITION BY component_id, bin ORDER BY md5(position_id::VARCHAR), position_id)
    <= getvariable('per_stratum')
ORDER BY component_id, bin, position_id"""
EXTREMES = f"""SELECT component_id, measure, side, "rank", position_id, activation, dla
FROM extreme_rows WHERE {CHOSEN} ORDER BY component_id, measure, side DESC, "rank\""""
EFFECTS = f"""SELECT component_id, side, "rank", tokens.token, effect
FROM logit_effects JOIN tokens USING (token_id)
WHERE {CHOSEN} ORDER BY component_id, side, "rank\""""
CONTEXTS = f"""WITH wanted AS (
    SELECT DISTINCT unnest(getvariable('positions')::BIGINT[]) AS position_id
)
SELECT position_rows.position_id, vocabulary.tokens[position_rows.next_token_id + 1] AS next_token
    , documents.domain, documents.source
    , least(position_rows."offset", {BEFORE})::INTEGER AS shown
    , list_transform(list_slice(windows.token_ids, greatest(1, position_rows."offset" + 1 - {BEFORE})
        , position_rows."offset" + 1 + {AFTER}), lambda id: vocabulary.tokens[id + 1]) AS tokens
FROM wanted JOIN position_rows USING (position_id)
JOIN documents USING (doc_id)
JOIN windows USING (window_id)
LEFT JOIN vocabulary ON true"""
STORED = f"""SELECT DISTINCT ON (component_id, position_id) component_id, position_id, activation, dla
FROM (
    SELECT component_id, position_id, activation, dla FROM sample_rows WHERE {CHOSEN}
    UNION ALL SELECT component_id, position_id, activation, dla FROM extreme_rows WHERE {CHOSEN}
    UNION ALL SELECT component_id, position_id, activation, dla FROM dense_rows WHERE {CHOSEN}
    UNION ALL SELECT component_id, position_id, activation, dla FROM recorded_rows WHERE {CHOSEN}
)"""


@dataclass(frozen=True)
class Stratum:
    """An interval of activations: its bounds, and the positions in it, of all and as a share."""

    lo: float
    hi: float
    n: int
    share: float


@dataclass(frozen=True)
class ProfileExample:
    """A position in its context.

    Attributes:
        group: top or bottom (extremes of activation), dla_top or dla_bottom (of DLA), or sample (random, of a stratum).
        position_id: of the run.
        domain, source: of its document.
        tokens: texts of the tokens around it, in order.
        shown: index of its own token among them.
        next_token: what came next.
        activations: at each token; None where the run does not hold it, which is not 0.
        activation, dla: at its own token; DLA in logits.
        stratum: the interval that its activation lies in; None where the run has no spectrum of the component.
        quantiles: of the component that lie in the stratum.
        inclusion_probability: of a sample; None of an extreme.
    """

    group: str
    position_id: int
    domain: str
    source: str
    tokens: tuple[str, ...]
    shown: int
    next_token: str
    activations: tuple[float | None, ...]
    activation: float
    dla: float
    stratum: Stratum | None
    quantiles: tuple[float, ...]
    inclusion_probability: float | None


@dataclass(frozen=True)
class Profile:
    """What the run holds of a component.

    Attributes:
        component: label. `group` is E3 or S0 of an expert's neuron, mlp_out where a layer's dictionaries share their
            labels, else empty.
        n: ordinary positions at which it is present.
        density: share of these whose activation is above 0 (2^-16); None where the run has no spectrum of it.
        activation, activation_min, activation_max: mean and bounds; None where the run does not hold them.
        dla, abs_dla: means, logits.
        quantiles: pairs of a quantile and its activation.
        spectrum: its strata, ascending.
        boosted, suppressed: tokens and logits per unit of activation, strongest first; from the weights.
        examples: extremes, then samples by descending stratum.
    """

    component: str
    kind: str
    layer: int | None
    group: str
    unit: int | None
    n: int
    density: float | None
    activation: float | None
    activation_min: float | None
    activation_max: float | None
    dla: float | None
    abs_dla: float | None
    quantiles: tuple[tuple[float, float], ...]
    spectrum: tuple[Stratum, ...]
    boosted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    examples: tuple[ProfileExample, ...]


def choose(connection: Connection, labels: Sequence[str]) -> list[str]:
    """The labels of the components to export, in the run's order: those given, or all.

    Raises:
        ComponentError: the run lacks a component.
        ExportError: the run holds none.
    """
    for label in labels:
        query.check_component(connection, label)
    known = query.run_text(connection, COMPONENTS, {})["component"].to_list()
    chosen = [label for label in known if not labels or label in set(labels)]
    if not chosen:
        raise ExportError("the run records no component: there is nothing to export")
    return chosen


def profiles(connection: Connection, labels: Sequence[str], per_stratum: int) -> Iterator[Profile]:
    """The profiles of components, in the order of `labels`.

    Args:
        per_stratum: most random samples of each stratum that holds a quantile.
    """
    known = {row["component"]: _checked(row) for row in query.run_text(connection, COMPONENTS, {}).to_dicts()}
    for start in range(0, len(labels), CHUNK):
        rows = [known[label] for label in labels[start : start + CHUNK]]
        tables = _Tables(connection, [row["component_id"] for row in rows], per_stratum)
        yield from (tables.profile(row) for row in rows)


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """A row of COMPONENTS, whose kind and group become names of folders.

    Raises:
        ExportError: they are none that the profiler writes.
    """
    numbers = all(row[name] is None or isinstance(row[name], int) for name in ("layer", "unit"))
    if not (numbers and KIND.fullmatch(row["kind"]) and GROUP.fullmatch(row["block_group"] or "")):
        raise ExportError(
            f"the run has a component {row['component']!r} of kind {row['kind']!r}, which no run of the profiler has:"
            " nothing is exported; get the file from whom you trust"
        )
    return row


class _Tables:
    """The answers for a chunk of components, by component."""

    def __init__(self, connection: Connection, ids: list[int], per_stratum: int) -> None:
        def ask(text: str, **values: object) -> pl.DataFrame:
            given = {"ids": ids} | values if "'ids'" in text else values
            return query.run_text(connection, text, given)

        self.moments = _single(ask(MOMENTS))
        self.density = _single(ask(DENSITY))
        self.quantiles = _many(ask(QUANTILES))
        self.strata = _many(ask(STRATA))
        self.effects = _many(ask(EFFECTS))
        extremes, samples = ask(EXTREMES), ask(SAMPLES, per_stratum=per_stratum)
        self.extremes = _many(extremes)
        self.samples = _many(samples)
        shown = pl.concat([extremes["position_id"], samples["position_id"]]).unique().to_list()
        self.contexts = {row["position_id"]: row for row in ask(CONTEXTS, positions=shown).to_dicts()} if shown else {}
        stored = ask(STORED)
        self.stored = dict(
            zip(stored.select("component_id", "position_id").iter_rows(), stored["activation"], strict=True)
        )

    def profile(self, row: Mapping[str, Any]) -> Profile:
        """The profile of a row of COMPONENTS."""
        own = row["component_id"]
        moments = self.moments.get(own, {})
        counts = self.strata.get(own, [])
        n = sum(stratum["n"] for stratum in counts)
        strata = {s["bin"]: Stratum(s["lo"], s["hi"], s["n"], s["n"] / n) for s in counts}
        effects = {
            side: tuple((e["token"], e["effect"]) for e in self.effects.get(own, []) if e["side"] == side)
            for side in ("boosted", "suppressed")
        }
        return Profile(
            component=row["component"],
            kind=row["kind"],
            layer=row["layer"],
            group=(row["block_group"] or "").strip(".:"),
            unit=row["unit"],
            n=moments.get("n") or 0,
            density=self.density.get(own, {}).get("density"),
            **{
                name: moments.get(name) for name in ("activation", "activation_min", "activation_max", "dla", "abs_dla")
            },
            quantiles=tuple((q["quantile"], q["value"]) for q in self.quantiles.get(own, [])),
            spectrum=tuple(strata.values()),
            boosted=effects["boosted"],
            suppressed=effects["suppressed"],
            examples=tuple(self._examples(own, strata)),
        )

    def _examples(self, own: int, strata: Mapping[int, Stratum]) -> Iterator[ProfileExample]:
        levels: dict[int, list[float]] = {}
        for row in self.quantiles.get(own, []):
            levels.setdefault(row["bin"], []).append(row["quantile"])
        for row in self.extremes.get(own, []):
            group = row["side"] if row["measure"] == "activation" else f"dla_{row['side']}"
            number = _stratum_of(row["activation"], strata)
            yield self._example(own, row, group, number, strata, levels, None)
        sampled = [row for row in self.samples.get(own, []) if row["bin"] in levels]
        for row in sorted(sampled, key=lambda row: (-row["bin"], -row["activation"], row["position_id"])):
            chance = row["sampled"] / strata[row["bin"]].n
            yield self._example(own, row, "sample", row["bin"], strata, levels, chance)

    def _example(
        self,
        own: int,
        row: Mapping[str, Any],
        group: str,
        number: int | None,
        strata: Mapping[int, Stratum],
        levels: Mapping[int, list[float]],
        chance: float | None,
    ) -> ProfileExample:
        at = row["position_id"]
        context = self.contexts[at]
        first = at - context["shown"]  # positions of a window are consecutive
        activations = tuple(self.stored.get((own, first + i)) for i in range(len(context["tokens"])))
        return ProfileExample(
            group=group,
            position_id=at,
            domain=context["domain"],
            source=context["source"],
            tokens=tuple(context["tokens"]),
            shown=context["shown"],
            next_token=context["next_token"],
            activations=activations,
            activation=row["activation"],
            dla=row["dla"],
            stratum=None if number is None else strata[number],
            quantiles=() if number is None else tuple(levels.get(number, ())),
            inclusion_probability=chance,
        )


def _stratum_of(value: float, strata: Mapping[int, Stratum]) -> int | None:
    """The stratum that holds a value: bins are closed at the edge that is nearer to 0, the middle bin at neither."""
    for number, stratum in strata.items():
        if stratum.lo < value < stratum.hi:
            return number
        if (value == stratum.lo and stratum.lo > 0) or (value == stratum.hi and stratum.hi < 0):
            return number
    return None


def _single(frame: pl.DataFrame) -> dict[int, dict[str, Any]]:
    return {row["component_id"]: row for row in frame.to_dicts()}


def _many(frame: pl.DataFrame) -> dict[int, list[dict[str, Any]]]:
    grouped: dict[int, list[dict[str, Any]]] = {}
    for row in frame.to_dicts():
        grouped.setdefault(row["component_id"], []).append(row)
    return grouped
