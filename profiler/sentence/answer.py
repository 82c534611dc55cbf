"""The answer about a text as frames and sentences: each value beside its percentile in the corpus, and before a change.

Cost: two queries of the run.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from duckdb import DuckDBPyConnection as Connection

from profiler.database import query
from profiler.model.components import ComponentId
from profiler.sentence.changes import Change
from profiler.sentence.percentiles import CorpusSpectrum, spectra
from profiler.sentence.reading import TextReading

TOKENS = """SELECT token_id, token, special FROM tokens JOIN classes USING (class_id)
WHERE list_contains(string_split(getvariable('ids'), ',')::BIGINT[], token_id)"""
LABELS = """SELECT component_id, component FROM components
WHERE list_contains(string_split(getvariable('ids'), ',')::BIGINT[], component_id)"""


@dataclass(frozen=True, eq=False)
class TextAnswer:
    """What a text did to the model, as frames.

    Attributes:
        tokens: a row per token: offset, token, next_token, p_next (of the next token; of the last token the target),
            p_next_before where something was changed; special: whether positions of this kind are left out of spectra.
        components: a row per token and shown component: offset, rank (1 the largest |DLA| there), component,
            activation, percentile (share of the corpus's positions below, 0..1; null at special tokens), dla (logits);
            for a named component activation_before and dla_before where something was changed.
        next_tokens: the likeliest tokens after the text: rank, token, p, and p_before where something was changed.
        attention: of a named head: offset, key_offset, weight; None for others.
        n_positions: ordinary positions of the corpus that percentiles are of, by component.
    """

    tokens: pl.DataFrame
    components: pl.DataFrame
    next_tokens: pl.DataFrame
    attention: pl.DataFrame | None
    n_positions: Mapping[str, int]


def answer(
    run: Connection, reading: TextReading, before: TextReading | None = None, *, likeliest: int = 5
) -> TextAnswer:
    """The frames of a reading.

    Args:
        before: the same text without the changes that `reading` was made with.
        likeliest: how many tokens after the text.
    """
    next_tokens = _next_tokens(reading, before, likeliest)
    ids = {*reading.token_ids.tolist(), *reading.targets.tolist(), *next_tokens["token_id"].to_list()}
    known_tokens = _rows(run, TOKENS, ids)
    texts = {number: text for number, text, _ in known_tokens}
    special = {number for number, _, is_special in known_tokens if is_special}
    labels = dict(_rows(run, LABELS, set(reading.components.flatten().tolist())))
    known = spectra(run, sorted(labels.values()))
    return TextAnswer(
        _tokens(reading, before, texts, special),
        _components(reading, before, labels, known, special),
        next_tokens.with_columns(pl.col("token_id").replace_strict(texts, return_dtype=pl.String).alias("token")),
        _attention(reading),
        {label: spectrum.n for label, spectrum in known.items()},
    )


def _rows(run: Connection, text: str, ids: set[int]) -> list[tuple[Any, ...]]:
    return query.run_text(run, text, {"ids": ",".join(map(str, sorted(ids)))}).rows()


def _tokens(
    reading: TextReading, before: TextReading | None, texts: Mapping[int, str], special: Collection[int]
) -> pl.DataFrame:
    columns = {
        "offset": range(len(reading.token_ids)),
        "token": [texts[i] for i in reading.token_ids.tolist()],
        "next_token": [texts[i] for i in reading.targets.tolist()],
        "p_next": reading.next_p.tolist(),
        "special": [i in special for i in reading.token_ids.tolist()],
    }
    if before is not None:
        chosen = before.log_p.gather(-1, reading.targets[:, None])[:, 0]
        columns["p_next_before"] = chosen.exp().tolist()
    return pl.DataFrame(columns)


def _components(
    reading: TextReading,
    before: TextReading | None,
    labels: Mapping[int, str],
    known: Mapping[str, CorpusSpectrum],
    special: Collection[int],
) -> pl.DataFrame:
    named = before is not None and before.components.shape[1] == 1
    rows = []
    for offset, shown in enumerate(reading.components.tolist()):
        for rank, number in enumerate(shown):
            activation, dla = float(reading.activation[offset, rank]), float(reading.dla[offset, rank])
            in_spectra = int(reading.token_ids[offset]) not in special
            spectrum = known.get(labels[number]) if in_spectra else None
            row = {
                "offset": offset,
                "rank": rank + 1,
                "component": labels[number],
                "activation": activation,
                "percentile": None if spectrum is None else spectrum.percentile(activation),
                "dla": dla,
            }
            if named and before is not None:
                row |= {
                    "activation_before": float(before.activation[offset, 0]),
                    "dla_before": float(before.dla[offset, 0]),
                }
            rows.append(row)
    schema = {"percentile": pl.Float64}
    return pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None).with_columns(
        pl.selectors.float().fill_nan(None)
    )


def _next_tokens(reading: TextReading, before: TextReading | None, n: int) -> pl.DataFrame:
    frame = reading.likeliest(n)
    if before is None:
        return frame
    ids = [*frame["token_id"], *(i for i in before.likeliest(n)["token_id"] if i not in set(frame["token_id"]))]
    p, p_before = reading.log_p[-1, ids].exp().tolist(), before.log_p[-1, ids].exp().tolist()
    ranks = [int((reading.log_p[-1] > reading.log_p[-1, i]).sum()) + 1 for i in ids]
    return pl.DataFrame({"rank": ranks, "token_id": ids, "p": p, "p_before": p_before})


def _attention(reading: TextReading) -> pl.DataFrame | None:
    if reading.attention is None:
        return None
    n = len(reading.token_ids)
    rows = [
        {"offset": query_at, "key_offset": key, "weight": float(reading.attention[query_at, key])}
        for query_at in range(n)
        for key in range(query_at + 1)
    ]
    return pl.DataFrame(rows)


def sentences(
    result: TextAnswer, component: ComponentId | None, changes: Sequence[Change], n_left_out: int
) -> tuple[str, ...]:
    """What the frames say, in sentences; what was left out of the text comes last."""
    said = [_of_changes(result, changes)] if changes else [_of_prediction(result)]
    if component is not None:
        said = [_of_component(result, component.label), *said]
    else:
        said.append("At each token the components of the largest |DLA| toward the token that comes next.")
    if n_left_out:
        said.append(f"The last {n_left_out:,} tokens do not fit into the model's window and were left out.")
    return tuple(said)


def _of_component(result: TextAnswer, label: str) -> str:
    special = result.tokens.filter("special")["offset"]
    rows = result.components.drop_nulls("activation").filter(~pl.col("offset").is_in(special.implode()))
    if rows.is_empty():
        return f"{label} has no value at any ordinary token of this text."
    top = rows.row(int(rows["activation"].abs().arg_max() or 0), named=True)
    token = result.tokens.row(top["offset"], named=True)
    n = result.n_positions.get(label)
    where = "" if n is None or top["percentile"] is None else f", {in_words(top['percentile'])} of {n:,} positions"
    said = f"{label} is strongest at {token['token']!r}: activation {top['activation']:.3g}{where}."
    most = rows.row(int(rows["dla"].abs().arg_max() or 0), named=True)
    after = result.tokens.row(most["offset"], named=True)
    return (
        f"{said} It writes most directly at {after['token']!r}: {most['dla']:+.3g} logits for {after['next_token']!r}."
    )


def in_words(percentile: float) -> str:
    """A percentile as it is said: "above 99.2 %"; at the ends "above all" and "below all"."""
    if percentile >= 1:
        return "above all"
    return "below all" if percentile <= 0 else f"above {100 * percentile:.3g} %"


def _of_prediction(result: TextAnswer) -> str:
    first = result.next_tokens.row(0, named=True)
    return f"After the text the model expects {first['token']!r} most: p {first['p']:.3g}."


def _of_changes(result: TextAnswer, changes: Sequence[Change]) -> str:
    made = ", ".join(change.described for change in changes)
    first = result.next_tokens.sort("p_before", descending=True).row(0, named=True)
    now = result.next_tokens.sort("p", descending=True).row(0, named=True)
    verdict = "still" if now["token_id"] == first["token_id"] else f"now {now['token']!r} (p {now['p']:.3g}), no longer"
    return (
        f"With {made}: the likeliest next token is {verdict} {first['token']!r}, whose p goes from"
        f" {first['p_before']:.3g} to {first['p']:.3g}."
    )
