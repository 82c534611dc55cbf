"""Which components matter on this corpus: ranking, layers, domains, embeddings and biases, dead components, cuts."""

from typing import Any

import polars as pl

from profiler.model.components import WORDS, units_in_words
from profiler.pages import method, numbers, tables
from profiler.pages.blocks import Block, Chart, Note, Report, Section
from profiler.pages.charts import overview
from profiler.pages.reader import Reader, Result

QUESTION = "Which heads and neurons matter on this corpus, and for what?"
NEEDS_COMPONENT = False
RANKED = 40
SCATTERED = 3000
RUNNER_UP = 2
"""Rank after the most important component of a domain."""


def build(read: Reader) -> Report:
    """The overview of a run."""
    run = method.run_row(read)
    return Report(
        title=f"What matters in {run['model']}",
        subtitle="Overview of a run",
        answer=(*_answer(read), *_incomplete(run)),
        sections=(
            _ranking(read),
            _layers(read),
            _domains(read),
            _embeddings_and_biases(read),
            _dead(read),
            _quality(read),
        ),
        method=method.method(read),
        run_facts=method.run_facts(read),
    )


def everything(read: Reader) -> Result:
    """Every head and neuron, most important first."""
    return read("component_overview", kind="", top=0)


def _answer(read: Reader) -> tuple[str, ...]:
    frame = everything(read).frame
    if frame.is_empty() or not frame["abs_dla"].sum():
        return ("No head or neuron wrote anything to the logits on this corpus.",)
    return (_concentration(frame), _first(frame), _kinds(frame), _by_domain_sentence(read))


def _incomplete(run: dict[str, Any]) -> tuple[str, ...]:
    lacking = method.incomplete_of(run)
    return (f"This run is of {lacking}.",) if lacking else ()


def _concentration(frame: pl.DataFrame) -> str:
    half = half_count(frame)
    return (
        f"Half of all |DLA| comes from {half:,} of {len(frame):,} {units_in_words(frame['kind'])} "
        f"({numbers.percent(half / len(frame))} of them)."
    )


def half_count(frame: pl.DataFrame) -> int:
    """How many components, most important first, hold half of all |DLA|."""
    return int((2 * frame["share_abs_dla"].cum_sum() < 1).sum()) + 1


def _first(frame: pl.DataFrame) -> str:
    row = frame.row(0, named=True)
    return (
        f"The most important is {row['component']} with {numbers.share_with_interval(row, 'share_abs_dla')} of all "
        "|DLA|; "
        f"{numbers.percent(row['top_class_share'])} of that falls on “{row['top_class']}” tokens, which "
        f"are {numbers.percent(row['top_class_base'])} of all positions."
    )


def _kinds(frame: pl.DataFrame) -> str:
    shares = frame.group_by("kind").agg(pl.col("share_abs_dla").sum(), pl.len()).sort("kind").to_dicts()
    parts = [f"{row['len']:,} {WORDS[row['kind']]}s hold {numbers.percent(row['share_abs_dla'])}" for row in shares]
    return f"{' and '.join(parts)} of it; the sums are of sizes and do not cancel."


def _by_domain_sentence(read: Reader) -> str:
    """First of each domain, and whether its interval lies above the second's: a first place may be chance."""
    frame = read("important_by_domain", top=10).frame
    firsts = frame.filter(pl.col("rank") == 1).sort("domain").to_dicts()
    second = dict(frame.filter(pl.col("rank") == RUNNER_UP).select("domain", "abs_dla_hi").iter_rows())
    if len(firsts) > 1 and len({row["component"] for row in firsts}) == 1:
        return f"{firsts[0]['component']} is the first in each of the {len(firsts)} domains."
    sure = [row["abs_dla_lo"] is not None and row["abs_dla_lo"] > (second.get(row["domain"]) or 0.0) for row in firsts]
    parts = [
        f"{row['component']} in {row['domain']}{'' if clear else ' (not clear of the second)'}"
        for row, clear in zip(firsts[:6], sure, strict=False)
    ]
    return f"First by domain: {', '.join(parts)}." if parts else ""


def _ranking(read: Reader) -> Section:
    result = everything(read)
    columns = (
        tables.words("component", "Component"),
        tables.share(
            "share_abs_dla", "of all |DLA|", "with the 95 % interval", full=result.frame["share_abs_dla"].max() or 1.0
        ),
        tables.value("dla", "Mean DLA, logits", signed=True),
        tables.value("activation", "Mean activation"),
        tables.words("top_class", "Most important class", "the token class with the largest part of its |DLA|"),
        tables.share("top_class_share", "of its |DLA|"),
        tables.share(
            "top_class_base", "of positions", "that class's share of all positions: what the text alone would give"
        ),
    )
    frame = result.frame.head(RANKED)
    shown = (
        f"the {SCATTERED:,} most important of {len(result.frame):,}"
        if len(result.frame) > SCATTERED
        else "every component"
    )
    points = result.frame.head(SCATTERED)
    return Section(
        "Ranking",
        (
            f"The card of one component: profiler report RUN component --component {result.frame['component'][0]}"
            if not result.frame.is_empty()
            else ""
        ),
        (
            Chart(
                "Important and narrow",
                f"Each dot is a component ({shown}): high ones matter, right ones work on one class of token. High "
                "and to the right are candidates for a story; high and left do many things.",
                overview.importance_scatter(points),
                result.source,
            ),
            Chart(
                "Important and active",
                "The same components by mean activation. Much |DLA| at a small mean activation is "
                "a rare but strong writer, or one of both signs.",
                overview.activation_scatter(points),
                result.source,
            ),
            tables.table(
                f"The first {len(frame)}",
                "Ordered by Σ|DLA|. Neighbours whose intervals overlap are not in a certain order.",
                result,
                columns,
                frame,
                "full",
            ),
        ),
    )


def _layers(read: Reader) -> Section:
    result = everything(read)
    chart = Chart(
        "By layer and kind",
        "Where the direct writing to the logits happens. Early layers may still work through later ones: "
        "DLA does not show it.",
        overview.layer_profile(result.frame),
        result.source,
        "full",
    )
    return Section(
        "Layers", "", (chart,) if not result.frame.is_empty() else (Note("By layer and kind", "No components."),)
    )


def _domains(read: Reader) -> Section:
    result = read("important_by_domain", top=10)
    columns = (
        tables.count("rank", "Rank"),
        tables.words("component", "Component"),
        tables.value("abs_dla", "Mean |DLA|, logits"),
    )
    blocks = tuple(
        tables.table(
            domain,
            "Mean |DLA| at this domain's positions, with its 95 % interval.",
            result,
            columns,
            result.frame.filter(pl.col("domain") == domain),
        )
        for domain in result.frame["domain"].unique(maintain_order=True)
    )
    return Section(
        "Domains",
        "What matters in one part of the corpus may not in another. Neighbours whose intervals overlap may have changed"
        " places by chance.",
        blocks,
    )


def _embeddings_and_biases(read: Reader) -> Section:
    result = read("attribution_by_kind")
    columns = (
        tables.words("kind", "Kind"),
        tables.count("n_components", "Components"),
        tables.value(
            "dla",
            "Mean of the summed DLA, logits",
            "adds up to the mean centred target logit over all kinds",
            signed=True,
        ),
        tables.value("abs_dla", "Sum of mean |DLA|, logits"),
    )
    caption = (
        "Heads and neurons beside the embeddings (of tokens, of positions) and biases. DLA adds up over all kinds to "
        "the mean centred "
        "logit of the next token; |DLA| does not cancel."
    )
    return Section(
        "Embeddings and biases", "", (tables.table("By kind of component", caption, result, columns, width="full"),)
    )


def _dead(read: Reader) -> Section:
    result = read("dead_components")
    columns = (
        tables.words("component", "Component"),
        tables.words("reason", "Reason"),
        tables.count("n_active", "Active positions"),
        tables.count("n", "of n"),
        tables.share("upper_bound", "Active share below", "95 % upper bound, positions taken as independent", full=0.0),
        tables.share("upper_bound_documents", "by documents", "the same bound with documents for n", full=0.0),
        tables.value("activation_max", "Largest activation"),
    )
    n = len(result.frame)
    shown = f" The first {RANKED} are shown." if n > RANKED else ""
    caption = (
        f"{n:,} components never or hardly ever active, or always in one bin.{shown} Never seen in n positions bounds "
        "the rate "
        "below 3/n and does not make it zero; the true bound lies between the two given."
    )
    empty = "Every component was active at least at one position in ten thousand."
    block = tables.table("Never or rarely active", caption, result, columns, result.frame.head(RANKED), "full", empty)
    return Section("Dead components", "", (block,))


def _quality(read: Reader) -> Section:
    return Section("What was checked and left out", "", (_corpus_table(read), _drops_table(read), _closure_table(read)))


def _corpus_table(read: Reader) -> Block:
    result = read("corpus")
    columns = (
        tables.words("domain", "Domain"),
        tables.count("n_documents", "Documents"),
        tables.count("n_tokens", "Tokens read"),
        tables.count("n_dropped", "Tokens cut"),
        tables.count("n", "Positions"),
        tables.count("groups", "Replicate groups"),
    )
    return tables.table(
        "What was read",
        "Positions counted are ordinary ones; special ones are left out.",
        result,
        columns,
        width="full",
    )


def _closure_table(read: Reader) -> Block:
    result = read("attribution_closure")
    columns = (
        tables.count("chunk", "Chunk"),
        tables.count("n", "n"),
        tables.value("residual", "Residual, logits"),
        tables.value("scale", "Largest target logit"),
        tables.value("relative", "Relative"),
    )
    worst = result.frame.sort("relative", "chunk", descending=[True, False], nulls_last=True).head(10)
    caption = "Largest |sum of all DLA − centred target logit| per chunk of windows; the worst ten chunks."
    return tables.table("Closure", caption, result, columns, worst)


def _drops_table(read: Reader) -> Block:
    result = read("drops")
    columns = (
        tables.words("reason", "Reason"),
        tables.count("n", "n"),
        tables.words("unit", "Of"),
        tables.words("note", "What it means"),
    )
    return tables.table(
        "Dropped, cut or excluded", "Nothing is thrown away in silence.", result, columns, empty="Nothing was dropped."
    )
