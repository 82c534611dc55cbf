"""What the components do: coverage of every behaviour by every head, who does different things in different domains,
and whether neurons' activations agree with their weights. Answer first; every coverage beside its baselines.
"""

from typing import Any

import polars as pl

from profiler.pages import method, numbers, tables
from profiler.pages.blocks import Block, Chart, Note, Report, Section
from profiler.pages.component import behaviours
from profiler.pages.reader import Reader, Result

QUESTION = "Which head does what on the whole corpus, and is it the same in every domain?"
NEEDS_COMPONENT = False
TOP = 60
LISTED = 20
LEVEL = 0.05
"""False discovery rate that is accepted."""
ADJUSTED = "Benjamini-Hochberg adjusted p-value, over heads"
RATIO = "mean |DLA| where the behaviour holds over mean |DLA| elsewhere in that domain"


def build(read: Reader) -> Report:
    """The behaviours of a run's heads."""
    claims = read("behaviours", kind="head", family="attention", top=TOP)
    return Report(
        title=f"What the heads of {method.run_row(read)['model']} do",
        subtitle="Behaviours of a run",
        answer=_answer(claims, read("polysemantic")),
        sections=(_map(claims, *_by_total(read, claims)), _table(claims), _domains(read), _agreement(read)),
        method=(*method.method(read), *METHOD),
        run_facts=method.run_facts(read),
    )


METHOD = (
    (
        "Coverage",
        (
            "The share of a component's Σ|DLA| at positions where the behaviour holds (of its Σ|total effect| where"
            " that is said). An attention behaviour holds"
            " where at least half of the attention goes there."
        ),
    ),
    (
        "Scrambled",
        "Coverage of the claim permuted among the positions of each domain: what its base rate alone would give.",
    ),
    ("Other heads", "Coverage of the same claim by the other heads of the layer; the median."),
)


def best(frame: pl.DataFrame, behaviour: str) -> dict[str, Any] | None:
    """The head that a behaviour covers most, if its interval lies above the median of the other heads of its layer.

    Not above the scrambled claim: a head that does the same thing everywhere has a scrambled coverage of 1, too.
    """
    rows = frame.filter(pl.col("behaviour") == behaviour, pl.col("coverage_lo") > pl.col("random"))
    return rows.sort(["coverage", "component"], descending=[True, False]).row(0, named=True) if rows.height else None


def _answer(claims: Result, domains: Result) -> tuple[str, ...]:
    sentences = [
        f"“{name}” covers {row['component']} most: {numbers.share_with_interval(row, 'coverage')} of its |DLA|;"
        f" scrambled {numbers.percent(row['scrambled'])}, other heads of its layer {numbers.percent(row['random'])}."
        for name in ("induction", "previous_token", "duplicate")
        if (row := best(claims.frame, name))
    ]
    return (*sentences, _domain_sentence(domains.frame))


def _domain_sentence(frame: pl.DataFrame) -> str:
    """How many heads differ between domains; why none was compared."""
    mattering, attending = (frame.filter(pl.col(name).is_not_null()) for name in ("p", "attends_q"))
    if mattering.is_empty() and attending.is_empty():
        return "No head could be compared between domains: the run has a single domain, or too few documents in each."
    elsewhere = attending.filter(pl.col("attends_q") < LEVEL)
    return (
        f"{frame.filter('differs').height:,} of {mattering.height:,} testable heads matter for something else in"
        " another domain, beyond what the text explains (false discovery rate 5 %)."
        f" {elsewhere.height:,} of {attending.height:,} attend elsewhere in another domain, which head and text do"
        " together."
    )


def _by_total(read: Reader, claims: Result) -> tuple[Chart, ...]:
    """The same map by all that heads do; nothing where no total effects are known."""
    if claims.frame["total_coverage"].is_null().all():
        return ()
    result = read("behaviours", kind="head", family="attention", top=TOP, importance="total")
    caption = (
        "The same by |total effect|, an estimate: what a head does through later components counts too, and the head"
        " that does most so is on top."
    )
    return (Chart("Heat map by total effect", caption, behaviours.heat_map(result.frame), result.source, "full"),)


def _map(claims: Result, *others: Chart) -> Section:
    if claims.frame.is_empty():
        return Section("Heads and behaviours", "", (Note("Behaviours", "The run recorded no attention.", "full"),))
    caption = (
        "Coverage of each behaviour by each head, the most important head on top. A dark column: many heads do it. A"
        " dark cell in a pale column: a specialist."
    )
    return Section(
        "Heads and behaviours",
        "",
        (Chart("Heat map", caption, behaviours.heat_map(claims.frame), claims.source, "full"), *others),
    )


def _total_columns(frame: pl.DataFrame) -> tuple[tables.Column, ...]:
    """Coverage of all that heads do, beside that of what they write directly; nothing where no effects are known."""
    if frame["total_coverage"].is_null().all():
        return ()
    return (
        tables.share("total_coverage", "Of its |total effect|", "the same share of all that it does, an estimate"),
        tables.words("acts", "Acts"),
        tables.words("agrees", "Estimate", "whether total effects agree with ablations"),
    )


def _table(claims: Result) -> Section:
    frame = claims.frame.filter(pl.col("coverage_lo") > pl.col("random")).sort(
        ["coverage", "component", "behaviour"], descending=[True, False, False]
    )
    columns = (
        tables.words("component", "Head"),
        tables.words("behaviour", "Behaviour"),
        tables.share("coverage", "Coverage", "with its 95 % interval"),
        tables.share("base_rate", "Base rate", "share of positions where it holds"),
        tables.share("scrambled", "Scrambled"),
        tables.share("random", "Other heads", "median over the layer"),
        *_total_columns(claims.frame),
    )
    caption = (
        "Claims whose interval lies above the median of the other heads of the layer, largest coverage first. Where"
        " scrambled is as large, the head does it everywhere, whether it matters there or not."
    )
    return Section(
        "",
        "",
        (
            tables.table(
                "Claims that hold",
                caption,
                claims,
                columns,
                frame.head(TOP),
                "full",
                "No head does more of a behaviour than the other heads of its layer.",
            ),
        ),
    )


def _domains(read: Reader) -> Section:
    result = read("polysemantic")
    return Section("By domain", "", (_mattering(result), _attending(result)))


def _mattering(result: Result) -> Block:
    """Heads by the evidence that they matter for different things in two domains."""
    joined = [
        pl.concat_str([pl.col(n).list.get(i) for n in ("domains", "behaviours")], separator=": ")
        for i in range(result.frame["domains"].list.len().max() or 0)
    ]
    frame = result.frame.with_columns(doing=pl.concat_str(joined, separator=", ") if joined else pl.lit(""))
    columns = (
        tables.words("component", "Head"),
        tables.words("doing", "Farthest above scrambled, by domain"),
        tables.words("behaviour", "Differs most in"),
        tables.words("domain_a", "Domain"),
        tables.value("ratio_a", "Ratio", RATIO),
        tables.words("domain_b", "and"),
        tables.value("ratio_b", "Ratio there", RATIO),
        tables.value("times", "Times", "the first ratio over the second, with the 95 % interval"),
        tables.value("q", "q", ADJUSTED),
    )
    caption = (
        "Does a head matter for different things in two domains? Compared is the importance ratio, which does not"
        " change where a text merely has the behaviour more often. Strongest evidence first."
    )
    tested = frame.filter(pl.col("p").is_not_null()).head(LISTED)
    empty = "A single domain, or too few documents to compare."
    return tables.table("Different in different domains", caption, result, columns, tested, "full", empty)


def _attending(result: Result) -> Block:
    """Heads that attend elsewhere in another domain."""
    columns = (
        tables.words("component", "Head"),
        tables.words("attends", "Attends"),
        tables.words("attends_domain_a", "Domain"),
        tables.share("rate_a", "Of positions"),
        tables.words("attends_domain_b", "and"),
        tables.share("rate_b", "Of positions there"),
        tables.value("attends_q", "q", ADJUSTED),
    )
    caption = (
        "Where a head attends also depends on what the text offers: a difference here is due to head and text together,"
        " and does not say whether it matters there."
    )
    moved = result.frame.filter(pl.col("attends_q") < LEVEL).sort("attends_q", "component").head(LISTED)
    empty = "No head attends elsewhere beyond chance."
    return tables.table("Attending elsewhere in different domains", caption, result, columns, moved, "full", empty)


def _agreement(read: Reader) -> Section:
    return Section("Independent evidence", "", (agreement_table(read),))


def agreement_table(read: Reader) -> Block:
    """Neurons by how well activation and weights agree."""
    result = read("agreement", top=200)
    columns = (
        tables.words("component", "Neuron"),
        tables.words("boosted_class", "Weights boost"),
        tables.words("active_class", "Active before"),
        tables.value("kappa", "κ", "0 is chance, 1 is perfect agreement"),
    )
    caption = (
        "Among the 200 most important neurons, those whose activation best predicts the token class that their weights"
        " boost."
    )
    return tables.table("Activation against weights", caption, result, columns, result.frame.head(LISTED), "full")
