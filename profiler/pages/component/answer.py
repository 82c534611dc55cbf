"""Sentences that open a component card. Each number is a query's answer, looked up when the sentence is made.

What the component does, or that no label holds; how important it is and which token class it is important for beyond
that class's share of the text; whether its highest activations are of that class too
(precision and coverage, beside the class's share of the whole); which next tokens it raises and lowers; for a head,
where it attends.
"""

import re
from typing import Any

import polars as pl

from profiler.model.components import LABELLED, OUTSIDE, ComponentId
from profiler.pages import method, numbers
from profiler.pages.charts import component as charts
from profiler.pages.charts.spectrum import number_of
from profiler.pages.component import headline
from profiler.pages.reader import Reader, Result

HIGH = 0.01
"""Least share of positions that the highest bins together hold."""
MOST = 0.1
"""Share of positions above which the last of the highest bins is left out."""
FEWEST = 20
"""Positions of a token class that is named."""
_REMAINDER = re.compile(r"D(error|bias)$")
"""What the labels of a dictionary's error and bias end in."""
MASSES = charts.ATTENTION[:5]
"""Measures of attention to a kind of source; the last measure is the largest single weight."""


def component_answer(read: Reader, component: ComponentId) -> tuple[str, ...]:
    """The sentences about `component`, the most important first."""
    if component.unit is None:
        return _embedding_or_bias_answer(read, component.label)
    sentences = [_label_sentence(read, component)]
    sentences += [_importance_sentence(read, component.label), _presence_sentence(read, component.label)]
    sentences += [_class_sentence(read, component.label)]
    sentences += [_high_sentence(read, component.label), _direction_sentence(read, component.label)]
    sentences += [_attention_sentence(read, component)]
    return tuple(sentence for sentence in sentences if sentence)


def _label_sentence(read: Reader, component: ComponentId) -> str:
    """What a head or neuron does; empty for other kinds."""
    if component.kind not in LABELLED:
        return ""
    return headline.sentence(read("behaviours", component=component.label).frame, component.kind)


def _importance_sentence(read: Reader, label: str) -> str:
    row = read("component_rank", component=label).frame.row(0, named=True)
    if not row["n"]:
        return f"{label} is of an expert that was chosen at no position of this corpus."
    if not row["abs_dla"]:
        return f"{label} writes nothing on this corpus: its |DLA| is 0 at all {numbers.count(row['n'])} positions."
    share = numbers.share_with_interval(row, "share_abs_dla")
    if row["kind"] in OUTSIDE:
        return (
            f"{label} describes again {share} as much |DLA| as all heads and neurons write: rank {row['rank']:,} of"
            f" {row['n_components']:,} recorded units of dictionaries."
        )
    units = method.units_of(method.run_row(read))
    return f"{label} accounts for {share} of all |DLA|: rank {row['rank']:,} of {row['n_components']:,} {units}."


def _presence_sentence(read: Reader, label: str) -> str:
    """At how many positions an expert's neuron is present; empty for other components."""
    n, whole = (
        read("component_rank", component=label).frame.row(0, named=True)["n"],
        method.run_row(read)["n_positions"],
    )
    if n in (0, whole):
        return ""
    return (
        f"Its expert was chosen at {numbers.percent(n / whole)} of {numbers.count(whole)} positions; it is absent from"
        f" the others, and all counts, means and samples here are of the {numbers.count(n)}."
    )


def _class_sentence(read: Reader, label: str) -> str:
    """The token class that has most of its |DLA| beyond the class's share of positions."""
    frame = read("by_class", component=label).frame
    rows = frame.filter(pl.col("share_abs_dla") > 0).with_columns(base=pl.col("n") / frame["n"].sum())
    if rows.is_empty():
        return ""
    if rows["share_abs_dla_lo"].drop_nulls().is_empty():
        return "Which token classes it cares for cannot be said: there are too few groups of documents."
    clear = rows.filter(pl.col("share_abs_dla_lo") > pl.col("base"), pl.col("n") >= FEWEST)
    if clear.is_empty():
        return "No token class has clearly more of its |DLA| than of all positions."
    excess = pl.col("share_abs_dla_lo") - pl.col("base")
    top = clear.with_columns(excess=excess).sort(["excess", "value"], descending=[True, False]).row(0, named=True)
    return (
        f"Beyond its share of the text it matters most at {_class(top['value'])}:"
        f" {numbers.share_with_interval(top, 'share_abs_dla')} of its |DLA|, {numbers.percent(top['base'])} of all"
        f" positions ({numbers.number(top['share_abs_dla'] / top['base'], 2)} times)."
    )


def _class(name: str) -> str:
    return f"“{name}”"


def high_positions(frame: pl.DataFrame) -> pl.DataFrame:
    """Per class of spectrum_by_class: `high`, its n in the highest bins, and `n`, its n in all; largest `high` first.

    The highest bins are the fewest from the top down that hold at least 1 % of the positions, without the last of them
    if it brings the share above 10 %; the topmost bin always belongs to them.
    """
    bins = frame.group_by("lo").agg(pl.col("n").sum()).sort("lo", descending=True)
    reached = (bins["n"].cum_sum() / bins["n"].sum()).to_list()
    taken = next(i for i, share in enumerate(reached) if share >= HIGH)
    lowest = bins["lo"][taken - 1 if taken and reached[taken] > MOST else taken]
    high = pl.col("n").filter(pl.col("lo") >= lowest).sum()
    counts = frame.group_by("class").agg(high.alias("high"), pl.col("n").sum().alias("n"))
    return counts.sort(["high", "class"], descending=[True, False])


def _high_sentence(read: Reader, label: str) -> str:
    """Precision and coverage of the class that is most common among high activations, both always."""
    frame = read("spectrum_by_class", component=label).frame
    if frame["bin"].n_unique() <= 1:
        return "All its activations lie in a single bin of the spectrum." if len(frame) else ""
    counts = high_positions(frame)
    first, high, n = counts.row(0, named=True), int(counts["high"].sum()), int(counts["n"].sum())
    sizes = frame.with_columns(pl.col("expected_value").abs())
    of_class = number_of(sizes.filter(pl.col("class") == first["class"])["expected_value"].sum())
    part = of_class / (number_of(sizes["expected_value"].sum()) or 1)
    name = _class(first["class"])
    return (
        f"Where it is most active ({numbers.count(high)} positions, {numbers.percent(high / n)}), the"
        f" most common class is {name}: {numbers.percent(first['high'] / high)} of these positions, against"
        f" {numbers.percent(first['n'] / n)} of all. Of all {name} positions,"
        f" {numbers.percent(first['high'] / first['n'])} are that active; the class contributes"
        f" {numbers.percent(part)} of the mean |activation|."
    )


def _direction_sentence(read: Reader, label: str) -> str:
    frame = read("by_next_class", component=label).frame.filter(pl.col("n") > 0)
    if frame["dla_lo"].drop_nulls().is_empty():
        return "Which next tokens it raises or lowers cannot be said: there are too few groups of documents."
    clear = frame.filter((pl.col("dla_lo") > 0) | (pl.col("dla_hi") < 0))
    if clear.is_empty():
        return "For no class of the next token is its mean DLA clearly different from 0."
    parts = [
        f"{verb} the next token's logit most where that token is {_class(row['value'])} ({numbers.signed(row['dla'])}"
        f" logits, {numbers.LEVEL} interval {numbers.signed(row['dla_lo'])} to {numbers.signed(row['dla_hi'])})"
        for verb, row in _extreme_rows(clear)
    ]
    return f"On average it {' and '.join(parts)}."


def _extreme_rows(clear: pl.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """The class of next token that is raised most and the class that is lowered most, where there are such."""
    ordered = clear.sort(["dla", "value"])
    lowest, highest = ordered.row(0, named=True), ordered.row(-1, named=True)
    return [("raises", highest)] * (highest["dla"] > 0) + [("lowers", lowest)] * (lowest["dla"] < 0)


def _attention_sentence(read: Reader, component: ComponentId) -> str:
    if component.kind != "head":
        return ""
    frame = attention_result(read, component.label).frame
    rows = frame.filter(pl.col("measure").is_in(MASSES), pl.col("mean").is_not_null())
    if rows.is_empty():
        return ""
    top = rows.sort(["mean", "measure"], descending=[True, False]).row(0, named=True)
    weighted = top["importance_weighted_mean"]
    return (
        f"Of the measured sources it attends most to “{top['measure']}”: {numbers.share_with_interval(top, 'mean')} of"
        f" its attention{'' if weighted is None else f', {numbers.percent(weighted)} weighted by |DLA|'}."
    )


def attention_result(read: Reader, label: str) -> Result:
    """The query head_attention, its columns of errors named after their means."""
    result = read("head_attention", component=label)
    frame = result.frame.rename({"se": "mean_se", "importance_weighted_se": "importance_weighted_mean_se"})
    return Result(result.source, frame)


def _embedding_or_bias_answer(read: Reader, label: str) -> tuple[str, ...]:
    frame = read("by_class", component=label).frame
    n = int(frame["n"].sum())
    means = {name: number_of((frame[name] * frame["n"]).sum()) / max(1, n) for name in ("dla", "abs_dla")}
    what = "is what a dictionary's units leave over" if _REMAINDER.search(label) else "is an embedding or a bias"
    first = (
        f"{label} {what}: over {numbers.count(n)} positions its mean DLA is"
        f" {numbers.signed(means['dla'])} logits and its mean |DLA| {numbers.number(means['abs_dla'])}."
    )
    sentences = (first, _class_sentence(read, label), _direction_sentence(read, label))
    return tuple(sentence for sentence in sentences if sentence)
