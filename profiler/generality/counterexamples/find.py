"""The most important positions of a corpus where a claim about a component is wrong, and how often it is. No torch.

Two ways to be wrong. `silent`: the role says that the component should act here, and it does not. What was expected of
it is the mean |DLA| of the positions like this one (the claim's `expected_by`) where it did act; importance is that
times the part of the behaviour that is missing. `stray`: the component matters (a head) or fires (a neuron) where the
role says that it should not; importance is |DLA|. A role that acts everywhere cannot stray, and that is said.

Rates are weighted by how many positions of the corpus a row stands for, once plainly and once by importance, with a
delete-a-group jackknife over documents. A head matters where its |DLA| is among its largest 5 % (threshold
`matters_share`; McDougall et al. 2023, "Copy Suppression", section 4). A neuron fires from the activation on that as
many positions reach as the claim has triggers (so that silent and stray rates of a right claim are both 0), but at
least a tenth of its 99.9th percentile.

Rows: heads on the uniform sample, neurons on that and their strata; strays of heads also among the corpus-wide extremes
of DLA, for the examples only and never for a rate. Cost: one query a component, about 0.2 s for 4,000 kept positions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from duckdb import DuckDBPyConnection as Connection

from profiler.database import query
from profiler.generality.counterexamples.rates import rate
from profiler.generality.evidence.claims import MORE, Claim
from profiler.generality.evidence.finding import NO_NULL, Finding, Interval, Null, Question
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds

Kind = Literal["silent", "stray"]
PER_DOCUMENT = 2
STATISTICS = ("silent share", "silent share by importance", "stray share", "stray share by importance")
"""Share without the act of the positions with the trigger, and share without the trigger of the positions where the
component matters or fires; each plainly and by importance. Lower is better for the claim."""
MATCHED = 16
"""Neurons of the layer, besides its own, that a neuron's rates are compared with."""
ENOUGH_ACTING = 5
"""Positions of a kind where the component acts, from which on their mean |DLA| is what is expected of the kind."""


@dataclass(frozen=True)
class CounterExample:
    """A position where a claim is wrong.

    Attributes:
        component, role: the claim.
        kind: `silent` or `stray`.
        position_id: position in the run; None for a text that is in no run.
        document: the corpus's own id of the document.
        token, next_token: the token there, and the one to predict.
        context: the text around, the token there between « and »; as it stands in the corpus, not escaped.
        importance: logits; what was expected and is missing (silent), or |DLA| (stray).
        activation: of the component there.
        rank: 1 is the most important of its kind.
    """

    component: str
    role: str
    kind: Kind
    position_id: int | None
    document: str
    token: str
    next_token: str
    context: str
    importance: float
    activation: float
    rank: int


@dataclass(frozen=True)
class WrongPositions:
    """Counter-examples, most important first in each kind, and their rates."""

    examples: tuple[CounterExample, ...]
    findings: tuple[Finding, ...]


def find(
    source: str | Path | Connection, question: Question, claim: Claim, top: int = 20, per_document: int = PER_DOCUMENT
) -> WrongPositions:
    """Counter-examples to one claim about one component, and their rates beside other components of its kind and layer.

    Args:
        source: path of a finished run, or a connection to one.
        question: of the technique `counter-examples` about the component.
        top: how many examples of each kind.
        per_document: how many examples of a kind one document may give.

    Raises:
        RunError: no finished run.
        ComponentError: the run has no such component.
    """
    if claim.untestable:
        return WrongPositions((), tuple(question.refused(statistic, 0, claim.untestable) for statistic in STATISTICS))
    component = question.subject
    rows = facts(source, component, claim, question.thresholds)
    own = rows.filter(pl.col("component") == component)
    rest = [part for (_,), part in rows.filter(pl.col("component") != component).group_by("component")]
    beside = [_rates(part, claim) for part in rest]
    findings = tuple(
        _finding(question, statistic, measured, [rates[statistic] for rates in beside])
        for statistic, measured in _rates(own, claim).items()
    )
    chosen = pl.concat([_silent(own, top, per_document), _stray(source, own, component, claim, top, per_document)])
    return WrongPositions(_examples(source, chosen, component, claim), findings)


def facts(
    source: str | Path | Connection, component: str, claim: Claim, thresholds: Thresholds = DEFAULT
) -> pl.DataFrame:
    """One row per kept position of the component and of others of its kind and layer (all heads; 16 neurons).

    Columns: component, position_id, doc_id, domain, group_id, n_documents, weight, activation, dla, importance (|DLA|),
    should, acts, matters, strength, expected_by, expected (mean |DLA| where it acts at such positions).
    """
    rows = query.run(source, _sql(claim), component=component, fire_kind=claim.kind)
    deep = (pl.col("weight").cum_sum() - pl.col("weight") / 2) / pl.col("weight").sum()
    rows = rows.sort("component", "importance", "position_id", descending=[False, True, False])
    largest = deep.over("component") <= thresholds.matters_share
    return _with_expected(rows.with_columns(matters=pl.col("acts") if claim.kind == "neuron" else largest))


def _with_expected(rows: pl.DataFrame) -> pl.DataFrame:
    """Mean |DLA| where the component acts at such positions; of too few of them, at all where it acts (or should)."""
    acting = pl.col("should") & pl.col("acts")

    def mean(where: pl.Expr, *keys: str) -> pl.Expr:
        weight = pl.col("weight") * where.cast(pl.Float64)
        return ((weight * pl.col("importance")).sum() / weight.sum()).over(*keys)

    like_it, at_all, should = (
        mean(acting, "component", "expected_by"),
        mean(acting, "component"),
        mean(pl.col("should"), "component"),
    )
    enough = acting.cast(pl.Int64).sum().over("component", "expected_by") >= ENOUGH_ACTING
    some = acting.any().over("component")
    return rows.with_columns(expected=pl.when(enough).then(like_it).when(some).then(at_all).otherwise(should))


def _sql(claim: Claim) -> str:
    """The rows of `facts` from a run; conditions are the library's text, the component is a value."""
    more = _HEAD_MORE if claim.kind == "head" else _NEURON_MORE
    asked = ", ".join(
        f"{more[name]} AS {name}"
        for name in MORE
        if name in f"{claim.trigger} {claim.acts} {claim.strength} {claim.expected_by}"
    )
    firing = _FIRING.format(trigger=claim.trigger) if claim.kind == "neuron" else ""
    return f"""
    SET VARIABLE component = getvariable('component')::VARCHAR;
    SET VARIABLE pool = (SELECT list(peer.component) FROM (
        SELECT *, row_number() OVER (PARTITION BY kind, layer ORDER BY md5(component)) AS number FROM importance
        ) peer JOIN importance AS asked
            ON asked.component = getvariable('component') AND asked.kind = peer.kind AND asked.layer = peer.layer
        WHERE peer.kind = getvariable('fire_kind')::VARCHAR
            AND (peer.kind = 'head' OR peer.number <= {MATCHED} OR peer.component = asked.component));
    WITH raw AS (
        SELECT facts.*, replicate_groups.n_documents, windows.token_ids
            , list_slice(windows.token_ids, 1, facts."offset" + 1) AS before
            , position_rows.next_token_id, position_rows.token_id
        FROM {claim.kind}_facts AS facts JOIN position_rows ON position_rows.position_id = facts.position_id
        JOIN windows ON windows.window_id = position_rows.window_id
        JOIN replicate_groups ON replicate_groups.group_id = facts.group_id
        WHERE list_contains(getvariable('pool'), facts.component)
    ) {firing}
    , names AS (
        SELECT list(token_id) AS ids FROM token_property_lists WHERE list_contains(properties, 'name_like')
    )
    , rows AS (SELECT raw.*{", " if asked else ""}{asked} FROM {"firing raw" if firing else "raw"})
    SELECT component, position_id, doc_id, domain, group_id, n_documents, weight::DOUBLE AS weight
        , activation::DOUBLE AS activation, dla::DOUBLE AS dla, abs(dla)::DOUBLE AS importance
        , coalesce({claim.trigger}, false) AS should, coalesce({claim.acts}, false) AS acts
        , least(1, greatest(0, coalesce({claim.strength}, 0)))::DOUBLE AS strength
        , coalesce(({claim.expected_by})::VARCHAR, '') AS expected_by
    FROM rows ORDER BY component, position_id"""


_ATTENDED = 'token_ids[("offset" - top_offset + 1)::BIGINT]'
_HEAD_MORE = {
    "attended": f"(SELECT tokens.token FROM tokens WHERE tokens.token_id = {_ATTENDED})",
    "attended_properties": (
        f"(SELECT lists.properties FROM token_property_lists AS lists WHERE lists.token_id = {_ATTENDED})"
    ),
    "attended_repeated": f"len(list_filter(before, lambda token: token = {_ATTENDED})) >= 2",
    "attended_is_next": f"{_ATTENDED} = next_token_id",
    "next_seen": "list_contains(before, next_token_id)",
    "continues": 'coalesce(token_ids[("offset" - distance + 2)::BIGINT] = next_token_id, false)',
    "name_repeated": (
        """(SELECT count(*) > count(DISTINCT earlier.id) FROM unnest(before) AS earlier(id)
        JOIN token_property_lists AS lists ON lists.token_id = earlier.id
            AND list_contains(lists.properties, 'name_like'))"""
    ),
    "fires": "NULL::BOOLEAN",
    "strength_of_firing": "NULL::DOUBLE",
}
_NEURON_MORE = _HEAD_MORE | {
    **dict.fromkeys(("attended", "attended_properties", "attended_repeated", "attended_is_next"), "NULL"),
    "fires": "raw.activation >= threshold",
    "strength_of_firing": "raw.activation / nullif(top, 0)",
}
_FIRING = """
    , levels AS (
        SELECT component, sum(weight) FILTER ({trigger}) / sum(weight) AS base
            , coalesce(highest.top, 0) AS top
        FROM raw LEFT JOIN (
            SELECT components.component, max(value) FILTER (quantile = 0.999) AS top
            FROM quantiles JOIN components USING (component_id) GROUP BY components.component
        ) highest USING (component) GROUP BY component, highest.top
    )
    , ranked AS (
        SELECT *, (sum(weight) OVER (PARTITION BY component ORDER BY activation DESC, position_id) - weight / 2)
            / sum(weight) OVER (PARTITION BY component) AS depth FROM raw
    )
    , thresholds AS (
        SELECT component, any_value(top) AS top
            , greatest(coalesce(min(activation) FILTER (depth <= base), 'infinity'), 0.1 * any_value(top), 1e-9)
                AS threshold
        FROM ranked JOIN levels USING (component) GROUP BY component
    )
    , firing AS (SELECT raw.*, threshold, top FROM raw JOIN thresholds USING (component))"""


def _rates(rows: pl.DataFrame, claim: Claim) -> dict[str, Interval]:
    """The four rates of one component's rows."""
    should, acts, matters = pl.col("should"), pl.col("acts"), pl.col("matters")
    weight, importance = pl.col("weight"), pl.col("importance")
    strays = {
        "stray share": rate(rows, matters & ~should, matters, weight),
        "stray share by importance": rate(rows, ~should, pl.lit(value=True), weight * importance),
    }
    return {
        "silent share": rate(rows, should & ~acts, should, weight),
        "silent share by importance": rate(rows, should & ~acts, should, weight * pl.col("expected")),
    } | ({} if claim.everywhere else strays)


def _finding(question: Question, statistic: str, measured: Interval, beside: list[Interval]) -> Finding:
    """A rate as a finding; its null is the same rate of other components of its kind and layer."""
    fewest = question.thresholds.fewest
    if measured.n < fewest:
        why = f"only {measured.n} documents have such a position: {fewest} are needed; record more text"
        return question.refused(statistic, measured.n, why)
    rates = [other.value for other in beside if other.n >= fewest and other.value == other.value]
    if not rates:
        return question.finding(statistic, measured, NO_NULL)
    p = (1 + sum(rate <= measured.value for rate in rates)) / (1 + len(rates))
    high = float(pl.Series(rates).quantile(0.95, "linear"))  # type: ignore[arg-type]
    return question.finding(statistic, measured, Null(sum(rates) / len(rates), high, p))


def _silent(rows: pl.DataFrame, top: int, per_document: int) -> pl.DataFrame:
    wrong = rows.filter(pl.col("should") & ~pl.col("acts"))
    missing = pl.col("expected") * (1 - pl.col("strength"))
    return _top(wrong.with_columns(importance=missing), "silent", top, per_document)


def _stray(
    source: str | Path | Connection, rows: pl.DataFrame, component: str, claim: Claim, top: int, per_document: int
) -> pl.DataFrame:
    wrong = rows.filter(~pl.col("should") & pl.col("matters"))
    if claim.everywhere:
        wrong = wrong.clear()
    elif claim.kind == "head":
        wrong = pl.concat([wrong.select(_KEYS), _extremes(source, component, claim).select(_KEYS)]).unique(
            "position_id"
        )
    return _top(wrong, "stray", top, per_document)


_KEYS = ["position_id", "doc_id", "activation", "importance"]


def _extremes(source: str | Path | Connection, component: str, claim: Claim) -> pl.DataFrame:
    """The corpus-wide largest |DLA| of a head at which the trigger, which is about the text alone, is false."""
    asked = [name for name in MORE if name in claim.trigger]
    more = "".join(f", {_HEAD_MORE[name]} AS {name}" for name in asked)
    text = f"""WITH raw AS (
        SELECT facts.*, largest.activation::DOUBLE AS activation, abs(largest.dla)::DOUBLE AS importance
            , list_slice(windows.token_ids, 1, facts."offset" + 1) AS before, windows.token_ids
            , position_rows.next_token_id
        FROM position_facts AS facts JOIN position_rows ON position_rows.position_id = facts.position_id
        JOIN windows ON windows.window_id = position_rows.window_id
        JOIN (SELECT DISTINCT position_id, activation, dla FROM extremes
              WHERE component = getvariable('component') AND measure = 'dla'
        ) AS largest ON largest.position_id = facts.position_id
    )
    SELECT position_id, doc_id, activation, importance FROM (SELECT raw.*{more} FROM raw)
    WHERE NOT coalesce({claim.trigger}, false) ORDER BY position_id"""
    return query.run(source, text, component=component)


def _top(rows: pl.DataFrame, kind: Kind, top: int, per_document: int) -> pl.DataFrame:
    """The most important rows, at most `per_document` of a document."""
    ordered = rows.sort("importance", "position_id", descending=[True, False])
    largest = ordered.filter(pl.int_range(pl.len()).over("doc_id") < per_document).head(top)
    return largest.select(*_KEYS, kind=pl.lit(kind), rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))


def _examples(
    source: str | Path | Connection, chosen: pl.DataFrame, component: str, claim: Claim
) -> tuple[CounterExample, ...]:
    """The chosen positions with their texts."""
    if chosen.is_empty():
        return ()
    text = (
        "SELECT position_id, source, token, next_token, context FROM contexts WHERE"
        " list_contains(getvariable('ids')::BIGINT[], position_id)"
    )
    texts = query.run(source, text, ids=chosen["position_id"].to_list())
    rows = chosen.join(texts, on="position_id", maintain_order="left")
    return tuple(
        CounterExample(
            component,
            claim.label,
            r["kind"],
            r["position_id"],
            r["source"],
            r["token"],
            r["next_token"],
            r["context"],
            r["importance"],
            r["activation"],
            r["rank"],
        )
        for r in rows.iter_rows(named=True)
    )
