"""Which components matter on this corpus: ranking, layers, domains, embeddings and biases, dead components, cuts."""

from typing import Any

import polars as pl

from profiler.model.components import OUTSIDE, WORDS, UnitKind, units_in_words
from profiler.pages import method, numbers, tables
from profiler.pages.blocks import Block, Chart, Note, Report, Section
from profiler.pages.charts import overview
from profiler.pages.component import answer, headline
from profiler.pages.reader import Reader, Result

QUESTION = "Which heads and neurons matter on this corpus, and for what?"
NEEDS_COMPONENT = False
RANKED = 40
SCATTERED = 3000
NAMED_DOMAINS = 6
"""Domains whose most important component is named in the answer."""
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
            _dictionaries(read),
            _dead(read),
            _quality(read),
        ),
        method=method.method(read),
        run_facts=method.run_facts(read),
    )


def everything(read: Reader) -> Result:
    """Every head and neuron, most important first."""
    return read("component_overview", kind="", top=0)


def _dictionaries(read: Reader) -> Section:
    """How well the run's dictionaries reconstruct what the model writes, and their most important units."""
    if method.run_row(read).get("dictionaries") in (None, "[]"):
        return Section("Dictionaries", "", ())
    result = read("dictionaries")
    columns = (
        tables.words("units", "Units", "what the labels of its units begin with"),
        tables.words("form", "Form"),
        tables.words("writes", "Site", "what it reconstructs"),
        tables.count("n_recorded", "Recorded", "units recorded"),
        tables.count("dead", "Dead", "recorded features that were never above 0"),
        tables.share("variance_explained", "Variance explained"),
        tables.value("active_units", "Active units", "mean number at a position"),
        tables.share("error_share", "Error", "its share of the |DLA| of units, bias and error"),
        tables.value("loss_added", "Loss added, nats", "by the reconstruction in the place of what is written"),
        tables.share("loss_recovered", "Loss recovered", "of what nothing in its place costs"),
    )
    caption = (
        "Units describe again what heads and neurons write: they are in no sum of this page. Losses are of a random"
        " sample of windows."
    )
    blocks = [tables.table("How well they reconstruct", caption, result, columns)]
    for kind in OUTSIDE:
        ranked = read("component_overview", kind=kind, top=RANKED)
        if len(ranked.frame):
            blocks.append(_units(kind, ranked))
    return Section("Dictionaries", "", tuple(blocks))


def _units(kind: UnitKind, ranked: Result) -> Block:
    """The most important units of a kind."""
    columns = (
        tables.words("component", "Component"),
        tables.share("share_abs_dla", "of |DLA|", "relative to all heads and neurons"),
        tables.value("dla", "Mean DLA, logits", signed=True),
        tables.value("activation", "Mean activation"),
        tables.words("top_class", "Most important class", "the token class with the largest part of its |DLA|"),
        tables.share("top_class_share", "of its |DLA|"),
        tables.share("top_class_base", "of positions", "that class's share of all positions"),
    )
    return tables.table(f"Most important {WORDS[kind]}s", f"At most {RANKED}.", ranked, columns)


def _answer(read: Reader) -> tuple[str, ...]:
    frame = everything(read).frame
    if frame.is_empty() or not frame["abs_dla"].sum():
        return ("No unit writes anything to the logits on this corpus.",)
    total = _total(frame)
    return (_concentration(frame), _first(frame), _kinds(frame), *total, _by_domain_sentence(read))


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


def _total(frame: pl.DataFrame) -> tuple[str, ...]:
    """Who matters most by all that it does, and how components act; nothing without total effects."""
    known = frame.drop_nulls("acts")
    if known.is_empty():
        return ()
    row = known.sort(["total_rank", "component"]).row(0, named=True)
    through = known.filter(pl.col("acts") == "through others").height
    return (
        f"By all that a component does, through later ones too, the most important is {row['component']}: mean |total"
        f" effect| {numbers.number(row['total_importance'])} logits, mean |DLA| at the same positions"
        f" {numbers.number(row['direct_importance'])}; {answer.reliability(row)}. {through:,} of {known.height:,} act"
        " through others and hardly write to the logits themselves.",
    )


def _kinds(frame: pl.DataFrame) -> str:
    shares = frame.group_by("kind").agg(pl.col("share_abs_dla").sum(), pl.len()).sort("kind").to_dicts()
    parts = [
        f"{numbers.percent(row['share_abs_dla'])} from {numbers.plural(row['len'], WORDS[row['kind']])}"
        for row in shares
    ]
    return f"By kind: {', '.join(parts)}. Absolute values are summed, so nothing cancels."


def _by_domain_sentence(read: Reader) -> str:
    """Most important component of each domain, and whether its interval lies above the second's: it may be chance."""
    frame = read("important_by_domain", top=10).frame
    firsts = frame.filter(pl.col("rank") == 1).sort("domain").to_dicts()
    second = dict(frame.filter(pl.col("rank") == RUNNER_UP).select("domain", "abs_dla_hi").iter_rows())
    clear = {
        row["domain"]: row["abs_dla_lo"] is not None and row["abs_dla_lo"] > (second.get(row["domain"]) or 0.0)
        for row in firsts
    }
    if len(firsts) > 1 and len({row["component"] for row in firsts}) == 1:
        unsure = [domain for domain, is_clear in clear.items() if not is_clear][:NAMED_DOMAINS]
        note = f" (in {', '.join(unsure)} not clearly above the second)" if unsure else ""
        return f"{firsts[0]['component']} has the largest mean |DLA| in each of the {len(firsts)} domains{note}."
    parts = [
        f"{row['component']} in {row['domain']}{'' if clear[row['domain']] else ' (not clearly above the second)'}"
        for row in firsts[:NAMED_DOMAINS]
    ]
    more = f", and so on for {len(firsts) - NAMED_DOMAINS} more" if len(firsts) > NAMED_DOMAINS else ""
    return f"Largest mean |DLA| by domain: {', '.join(parts)}{more}." if parts else ""


def _ranking(read: Reader) -> Section:
    result = everything(read)
    columns = (
        tables.words("component", "Component"),
        tables.words("label", "What it does", "the label that its card begins with; – where none holds"),
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
    columns += _total_columns(result.frame)
    frame = _labelled(read, result.frame.head(RANKED))
    shown = (
        f"the {SCATTERED:,} most important of {len(result.frame):,}"
        if len(result.frame) > SCATTERED
        else "every component"
    )
    points = result.frame.head(SCATTERED)
    return Section(
        "Ranking",
        (
            f"The card of a component: profiler report RUN component --component {result.frame['component'][0]}"
            if not result.frame.is_empty()
            else ""
        ),
        (
            Chart(
                "Important and narrow",
                f"Each dot is a component ({shown}). Higher: more important. Further right: concentrated on a single"
                " token class. Upper right are candidates for a simple account; upper left components do many things.",
                overview.importance_scatter(points),
                result.source,
            ),
            Chart(
                "Important and active",
                "The same components by mean activation. Much |DLA| at a small mean activation: the component writes"
                " rarely but strongly, or with both signs.",
                overview.activation_scatter(points),
                result.source,
            ),
            *_by_total(read, columns),
            tables.table(
                f"The {len(frame)} most important",
                "Ordered by Σ|DLA|. Where the intervals of neighbours overlap, their order is not certain.",
                result,
                columns,
                frame,
                "full",
            ),
        ),
    )


def _labelled(read: Reader, ranking: pl.DataFrame) -> pl.DataFrame:
    """The rows of a ranking, each with the label of its component."""
    return headline.with_labels(ranking, lambda kind, n: read("behaviours", kind=kind, top=n).frame)


def _total_columns(frame: pl.DataFrame) -> tuple[tables.Column, ...]:
    """Total effects beside direct ones; nothing where none are known."""
    if frame["acts"].is_null().all():
        return ()
    return (
        tables.value("total_importance", "Mean |total effect|", "through everything after it, logits; an estimate"),
        tables.count("total_rank", "Rank", "by mean |total effect|"),
        tables.words("acts", "Acts"),
        tables.words("agrees", "Estimate", "whether the estimate agrees with ablations of its kind and layer"),
    )


def _by_total(read: Reader, columns: tuple[tables.Column, ...]) -> tuple[Block, ...]:
    """The most important by total effect; nothing where none are known."""
    if everything(read).frame["acts"].is_null().all():
        return ()
    result = read("component_overview", kind="", top=RANKED, importance="total")
    frame = _labelled(read, result.frame)
    caption = (
        "Ordered by mean |total effect|: what a component does to the next tokens through everything after it, an"
        " estimate. What one does through another is counted for both."
    )
    return (
        tables.table(
            f"The {len(frame)} most important by all that they do",
            caption,
            result,
            columns,
            frame,
            "full",
        ),
    )


def _layers(read: Reader) -> Section:
    result = everything(read)
    chart = Chart(
        "By layer and kind",
        "Share of all |DLA| by layer. What early layers do through later ones is not part of DLA.",
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
        "What matters in one domain may not matter in another. Where the intervals of neighbours overlap, their order"
        " is not certain.",
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
            "over all kinds it adds up to the mean centred target logit",
            signed=True,
        ),
        tables.value("abs_dla", "Sum of mean |DLA|, logits"),
    )
    caption = (
        "Every kind of component, embeddings (of tokens, of positions) and biases included. Over all kinds DLA adds up"
        " to the mean centred logit of the next token; |DLA| is summed without cancelling."
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
        tables.share("upper_bound_documents", "by documents", "the same bound with n documents", full=0.0),
        tables.value("activation_max", "Largest activation"),
    )
    n = len(result.frame)
    shown = f" The first {RANKED} are shown." if n > RANKED else ""
    caption = (
        f"{numbers.plural(n, 'component')} never or rarely active, or always in a single bin.{shown} Not seen in n"
        " positions: the rate is below 3/n. The two bounds take positions and documents as independent; the true bound"
        " lies between them."
    )
    empty = "Every component was active at no less than one position in ten thousand."
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
        "Special positions are not counted.",
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
    caption = "Largest |sum of all DLA − centred target logit| per chunk of windows; the ten largest."
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
        "Dropped, cut or excluded",
        "Everything that was left out, with the reason.",
        result,
        columns,
        empty="Nothing was dropped.",
    )
