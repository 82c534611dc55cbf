"""The component card: what one head, neuron, embedding or bias does on the whole corpus, not only at its extremes.

Answer first: how much it matters, at which class of token, and whether its largest activations say the same as the
whole. Then the spectrum in its views, samples around the component's own quantiles, extremes, and breakdowns.
"""

import polars as pl

from profiler.behaviours.importance import SIZE
from profiler.model.components import REMAINDERS, ComponentId, unit_in_words
from profiler.pages import method, numbers, tables
from profiler.pages.blocks import Block, Chart, Note, Report, Section, Spectrum
from profiler.pages.charts import component as charts
from profiler.pages.charts import spectrum
from profiler.pages.component import answer, behaviours, breakdowns, effects, gates, repeats
from profiler.pages.reader import Reader, Result

QUESTION = "What does this component do on the whole corpus, not only at its extremes?"
NEEDS_COMPONENT = True
PER_QUANTILE, RANDOM = 5, 12
QUANTILES = (0.999, 0.99, 0.95, 0.9, 0.75, 0.5)
NO_SPECTRUM = "The run stores no distribution of this component, only sums by class, domain and position."


def build(read: Reader, component: ComponentId) -> Report:
    """The card of `component`."""
    label = component.label
    return Report(
        title=label,
        subtitle=f"{_kind_words(component)} · component card",
        answer=answer.component_answer(read, component),
        sections=tuple(section for section in _sections(read, component) if section.blocks),
        method=method.method(read) + _component_method(component),
        run_facts=method.run_facts(read),
    )


def _kind_words(component: ComponentId) -> str:
    if component.kind in REMAINDERS.values():
        return "What a dictionary leaves over"
    if component.unit is None:
        return "Embedding or bias"
    words = unit_in_words(component)
    return words[0].upper() + words[1:]


def _sections(read: Reader, component: ComponentId) -> list[Section]:
    label = component.label
    reach = tables.reach_of(_quantile_rows(read, label).frame, read("extremes", component=label).frame)
    return [
        behaviours.section(read, component),
        effects.section(read, component),
        _spectrum(read, label, reach),
        gates.section(read, component),
        _attention(read, component),
        _quantiles(read, label, reach),
        _extremes(read, label, reach),
        breakdowns.section(read, label),
        _effects(read, component),
        _random(read, label, reach),
    ]


def tokens(read: Reader, label: str) -> pl.DataFrame:
    """The query context_tokens for every position that the card shows."""
    asked = (
        read("spectrum_samples", component=label),
        _quantile_rows(read, label),
        read("extremes", component=label),
        read("random_samples", component=label, n=RANDOM),
    )
    frames = [spectrum.thinned(asked[0].frame, floor_of(read, label)), *(result.frame for result in asked[1:])]
    shown = sorted({position for frame in frames for position in frame["position_id"]})
    return read("context_tokens", component=label, positions=",".join(map(str, shown))).frame


def _quantile_rows(read: Reader, label: str) -> Result:
    return read("quantile_samples", component=label, per_quantile=PER_QUANTILE)


def floor_of(read: Reader, label: str) -> float:
    """The activation below which the card's spectra are drawn as one bin."""
    return spectrum.floor_of(read("spectrum_by_class", component=label).frame)


def _spectrum(read: Reader, label: str, reach: tables.Reach) -> Section:
    by_class, density = read("spectrum_by_class", component=label), read("density", component=label)
    title = "Spectrum"
    if by_class.frame.is_empty():
        return Section(title, "", (Note("Spectrum", NO_SPECTRUM, "full"),))
    if by_class.frame["bin"].n_unique() == 1:
        low, high = by_class.frame["lo"][0], by_class.frame["hi"][0]
        n = numbers.count(by_class.frame["n"].sum())
        text = f"Its activation lies in a single bin, {charts.bin_label(low, high)}, at all {n} positions."
        return Section(title, "", (Note("No spread", text, "full"),))
    n = numbers.count(density.frame["n"].sum())
    lead = f"All {n} positions (special tokens left out). Every view has the same bins, on a logarithmic axis."
    floor = floor_of(read, label)
    if folded := spectrum.folded_share(by_class.frame, floor):
        size, share = numbers.number(floor), numbers.percent(folded)
        lead += f" Activations below {size} in absolute value ({share} of positions) are drawn as one bin at 0."
    return Section(title, lead, (_density(read, label, density, reach), *breakdowns.class_views(by_class)))


def _density(read: Reader, label: str, density: Result, reach: tables.Reach) -> Block:
    drawn = read("spectrum_samples", component=label)
    samples = spectrum.thinned(drawn.frame, floor_of(read, label))
    rows = tables.with_tokens(samples, tokens(read, label)).to_dicts()
    caption = (
        "Probability density of the activation. Dashed: quantiles. A straight line on the right would be a power law;"
        " a bump there is a second population worth reading. Select a range, or type one, to see random examples from"
        " it."
    )
    return Spectrum(
        "Density",
        caption,
        charts.density(density.frame),
        tuple(tables.example(row, reach) for row in rows),
        density.source,
        drawn.source,
        (reach.activation, reach.dla),
    )


def _attention(read: Reader, component: ComponentId) -> Section:
    if component.kind != "head":
        return Section("Attention", "", ())
    result = answer.attention_result(read, component.label)
    by = SIZE[answer.chosen(read, component.label)]
    caption = (
        "Mean attention to the previous token, the window's first token, the token itself, tokens that follow an"
        " earlier copy of it (induction) and earlier copies (duplicate); last, the largest single weight. Blue:"
        f" positions weighted by the head's {by} there."
    )
    if result.frame["mean"].drop_nulls().is_empty():
        return Section(
            "Attention",
            "",
            (Note("Attention", "The run has no attention of this head: no position was recorded in full."),),
        )
    chart = Chart(
        "Where it attends",
        caption,
        charts.attention(
            read("head_attention", component=component.label, importance=answer.chosen(read, component.label)).frame, by
        ),
        result.source,
    )
    columns = (
        tables.words("measure", "Measure"),
        tables.value("mean", "Mean", "over a uniform sample of positions, with the 95 % interval"),
        tables.value("importance_weighted_mean", f"Weighted by {by}"),
        tables.words("unit", "Unit"),
        tables.count("n", "n", "positions of the sample"),
    )
    table = tables.table(
        "The numbers",
        "Measures overlap, so they do not add up to 1. dla_to_attended: the logit that the head adds to the token that"
        " it attends to most (above 0: it copies).",
        result,
        columns,
    )
    return Section("Attention", "", (chart, table))


def _quantiles(read: Reader, label: str, reach: tables.Reach) -> Section:
    result = _quantile_rows(read, label)
    frame = tables.with_tokens(result.frame, tokens(read, label))
    groups = [_quantile_group(levels, rows, reach) for levels, rows in quantile_groups(frame)]
    caption = (
        "Random positions from the bin of each quantile of the activation: neither chosen by hand nor extremes. The"
        " token is tinted by its activation; the next token is underlined by the DLA to it."
    )
    block = tables.examples("Around its quantiles", caption, result.source, groups, NO_SPECTRUM, reach)
    return Section("Samples", "", (block,))


def quantile_groups(frame: pl.DataFrame) -> list[tuple[list[float], pl.DataFrame]]:
    """The samples of each stratum, highest first, with the quantiles that lie in it."""
    wanted = frame.filter(pl.col("quantile").is_in(QUANTILES))
    strata = wanted["stratum_lo"].unique().sort(descending=True)
    rows = [wanted.filter(pl.col("stratum_lo") == stratum) for stratum in strata]
    return [
        (part["quantile"].unique().sort(descending=True).to_list(), part.unique("position_id", maintain_order=True))
        for part in rows
    ]


def _quantile_group(levels: list[float], rows: pl.DataFrame, reach: tables.Reach) -> tables.ExampleGroup:
    first = rows.row(0, named=True)
    note = (
        f"activation {charts.bin_label(first['stratum_lo'], first['stratum_hi'])}:"
        f" {numbers.percent(first['stratum_share'])} of all positions, each drawn with probability"
        f" {numbers.percent(first['inclusion_probability'])}"
    )
    heading = ", ".join(f"{100 * level:g}" for level in levels) + " %"
    return tables.group(heading, note, rows.sort("activation", descending=True), reach)


def _extremes(read: Reader, label: str, reach: tables.Reach, shown: int = 8) -> Section:
    result = read("extremes", component=label)
    frame = tables.with_tokens(result.frame, tokens(read, label))
    names = {
        ("activation", "top"): "Largest activation",
        ("activation", "bottom"): "Smallest activation",
        ("dla", "top"): "Raises the next token most",
        ("dla", "bottom"): "Lowers the next token most",
    }
    groups = [
        _extreme_group(heading, measure, _extreme(frame, measure, side), shown, reach)
        for (measure, side), heading in names.items()
    ]
    caption = (
        "The most extreme positions of the whole corpus on each side. They show what is possible, not what is usual."
    )
    block = tables.examples(
        "Extremes of both signs", caption, result.source, groups, "The run stores no extremes of this component.", reach
    )
    return Section("Extremes", "", (block,))


def _extreme_group(
    heading: str, measure: str, rows: pl.DataFrame, shown: int, reach: tables.Reach
) -> tables.ExampleGroup:
    """The first `shown` of different text, and how many before the last of them say nearly the same."""
    chosen = repeats.distinct(rows).head(shown)
    passed = 0 if chosen.is_empty() else int((rows["rank"] <= chosen["rank"].max()).sum()) - len(chosen)
    repeated = rows.height - passed - len(chosen) if len(chosen) < shown else 0
    note = "by DLA" if measure == "dla" else "by activation"
    if left_out := passed + repeated:
        note += f"; {left_out} of nearly the same text left out"
    return tables.group(heading, note, chosen, reach)


def _extreme(frame: pl.DataFrame, measure: str, side: str) -> pl.DataFrame:
    return frame.filter(pl.col("measure") == measure, pl.col("side") == side).sort("rank")


def _effects(read: Reader, component: ComponentId) -> Section:
    if component.kind not in ("neuron", "feature", "direction"):
        return Section("Tokens boosted and suppressed", "", ())
    result = read("logit_effects", component=component.label)
    columns = (tables.token("token", "Token"), tables.value("effect", "Effect", signed=True))
    sides = {"boosted": ("Boosted most", "raises"), "suppressed": ("Suppressed most", "lowers")}
    blocks = tuple(
        tables.table(
            title,
            f"Tokens whose logit an activation of 1 {verb} most: logits from the weights alone, at the mean scale of"
            " the norm.",
            result,
            columns,
            result.frame.filter(pl.col("side") == side).sort("rank"),
        )
        for side, (title, verb) in sides.items()
    )
    return Section("Tokens boosted and suppressed", "", blocks)


def _random(read: Reader, label: str, reach: tables.Reach) -> Section:
    result = read("random_samples", component=label, n=RANDOM)
    frame = tables.with_tokens(result.frame, tokens(read, label))
    groups = [tables.group("Any position", "uniform over the corpus", frame, reach)]
    caption = "A uniform sample of positions: what the component does most of the time."
    return Section(
        "Random",
        "",
        (
            tables.examples(
                "Random positions", caption, result.source, groups, "The run has no uniform sample of positions.", reach
            ),
        ),
    )


ACTIVATIONS = {
    "head": "The norm of the head's output, never negative. Its DLA has a sign.",
    "neuron": (
        "The value after the nonlinearity. The DLA is this value times what the output weights do to the logit of the"
        " next token."
    ),
    "feature": (
        "What the dictionary's encoder makes of the site that it reads, 0 where the feature is not active. The DLA is"
        " this value times what the feature's row of the decoder does to the logit of the next token: the direct effect"
        " of that part of what is written, with everything after it left as it is. It describes again what heads and"
        " neurons write, so it is no part of their sum."
    ),
    "direction": (
        "The projection on the direction (of a combination of neurons, the sum that was written). The DLA is that of"
        " the part of what stands there along the direction. It describes again what heads and neurons write."
    ),
    "subspace": (
        "The size of the projection on the subspace. The DLA is that of the projection. It describes again what heads"
        " and neurons write."
    ),
    "mixer": (
        "What the channel hands to the mixer's output matrix. The DLA is this value times what the output weights do to"
        " the logit of the next token."
    ),
    "per_layer": (
        "What the unit hands to the output matrix of the per-layer projection. The DLA is this value times what the"
        " output weights do to the logit of the next token."
    ),
}
"""What the activation is, by kind of unit."""


def _component_method(component: ComponentId) -> tuple[tuple[str, str], ...]:
    if component.unit is not None:
        return (("Activation", ACTIVATIONS[component.kind]),)
    if component.kind in REMAINDERS.values():
        text = (
            "A dictionary's reconstruction of a write is what its units add up to and its bias (what it has without any"
            " unit); its error is the rest of the write. The activation is the norm of each, as it is written."
        )
        return (("Error and bias of a dictionary", text),)
    text = (
        "Embeddings (of tokens, of positions) and biases. With them the DLA of all components adds up to the centred"
        " target logit. The activation is the norm of what is written."
    )
    return (("Embedding or bias", text),)
