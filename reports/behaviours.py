"""What the components do: coverage of every behaviour by every head, who does different things in different domains,
and whether neurons' activations agree with their weights. Answer first; every coverage beside its baselines.
"""

import polars as pl

from profiler.pages import method, numbers, tables
from profiler.pages.blocks import Block, Chart, Note, Report, Section
from profiler.pages.component import behaviours
from profiler.pages.reader import Reader, Result

QUESTION = "Which head does what on the whole corpus, and is it the same in every domain?"
NEEDS_COMPONENT = False
TOP = 60
LEVEL = 0.05
"""Share of false discoveries that is accepted."""
RATIO = "mean |DLA| where the behaviour holds over mean |DLA| elsewhere in that domain"


def build(read: Reader) -> Report:
    """The behaviours of a run's heads."""
    claims = read("behaviours", kind="head", family="attention", top=TOP)
    return Report(
        title=f"What the heads of {method.run_row(read)['model']} do",
        subtitle="Behaviours of a run",
        answer=_answer(claims, read("polysemantic")),
        sections=(_map(claims), _table(claims), _domains(read), _agreement(read)),
        method=(*method.method(read), *METHOD),
        run_facts=method.run_facts(read),
    )


METHOD = (
    (
        "Coverage",
        (
            "The share of a component's Σ|DLA| at positions where the behaviour holds. An attention behaviour holds"
            " where at least half of the attention goes there."
        ),
    ),
    ("Scrambled", "The same claim permuted among the positions of each domain: what its base rate alone would give."),
    ("Others", "The same claim asked of the other components of the same kind and layer."),
)


def best(frame: pl.DataFrame, behaviour: str) -> dict | None:
    """The head that a behaviour covers most, if its interval lies above the median of the others of its layer.

    Not above the scrambled claim: a head that does one thing everywhere has a scrambled coverage of 1, too.
    """
    rows = frame.filter(pl.col("behaviour") == behaviour, pl.col("coverage_lo") > pl.col("random"))
    return rows.sort(["coverage", "component"], descending=[True, False]).row(0, named=True) if rows.height else None


def _answer(claims: Result, domains: Result) -> tuple[str, ...]:
    found = [(name, best(claims.frame, name)) for name in ("induction", "previous_token", "duplicate")]
    sentences = [
        f"“{name}” explains {row['component']} best: {numbers.share_with_interval(row, 'coverage')} of its |DLA|,"
        f" scrambled {numbers.percent(row['scrambled'])}, other heads of its layer {numbers.percent(row['random'])}."
        for name, row in found
        if row
    ]
    differing = domains.frame.filter("differs")
    elsewhere = domains.frame.filter(pl.col("attends_q") < LEVEL)
    asked = domains.frame.filter(pl.col("p").is_not_null())
    last = (
        f"{differing.height:,} of {asked.height:,} heads that can be tested care for something else in another domain,"
        f" beyond what the text does (false discoveries held at 5 %); {elsewhere.height:,} of {domains.frame.height:,}"
        " attend elsewhere in another domain, which head and text do together."
    )
    return (*sentences, last)


def _map(claims: Result) -> Section:
    if claims.frame.is_empty():
        return Section("Heads and behaviours", "", (Note("Behaviours", "No dense position was recorded.", "full"),))
    caption = (
        "Coverage of each behaviour by each head, the most important head on top. A dark column is what many heads do;"
        " a dark cell in a pale column is a specialist."
    )
    return Section(
        "Heads and behaviours",
        "",
        (Chart("Heat map", caption, behaviours.heat_map(claims.frame), claims.source, "full"),),
    )


def _table(claims: Result) -> Section:
    frame = claims.frame.filter(pl.col("coverage_lo") > pl.col("random")).sort(
        ["coverage", "component", "behaviour"], descending=[True, False, False]
    )
    columns = (
        tables.words("component", "Head"),
        tables.words("behaviour", "Behaviour"),
        tables.share("coverage", "Coverage", "with its 95 % interval"),
        tables.share("base_rate", "Of positions"),
        tables.share("scrambled", "Scrambled"),
        tables.share("random", "Others"),
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
                "No head does more of it than the others of its layer.",
            ),
        ),
    )


def _domains(read: Reader) -> Section:
    result = read("polysemantic")
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
        tables.value("q", "q", "Benjamini and Hochberg over heads"),
    )
    caption = (
        "Does a head care for something else in another part of the corpus? What is compared is the importance ratio,"
        " so that a text in which the behaviour holds more often is no difference. Sorted by evidence; q holds false"
        " discoveries."
    )
    attending = (
        tables.words("component", "Head"),
        tables.words("attends", "Attends"),
        tables.words("attends_domain_a", "Domain"),
        tables.share("rate_a", "Of positions"),
        tables.words("attends_domain_b", "and"),
        tables.share("rate_b", "Of positions there"),
        tables.value("attends_q", "q", "Benjamini and Hochberg over heads"),
    )
    moved = frame.filter(pl.col("attends_q") < LEVEL).sort("attends_q", "component").head(20)
    beside = (
        "How often a head attends somewhere depends on what the text offers, too: a difference here is of head and text"
        " together, and says nothing of whether it matters there."
    )
    tested = frame.filter(pl.col("p").is_not_null()).head(20)
    return Section(
        "By domain",
        "",
        (
            tables.table(
                "Different in different domains",
                caption,
                result,
                columns,
                tested,
                "full",
                "One domain, or too few documents to compare.",
            ),
            tables.table(
                "Attending elsewhere in different domains",
                beside,
                result,
                attending,
                moved,
                "full",
                "No head attends elsewhere beyond chance.",
            ),
        ),
    )


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
        "Of the 200 most important neurons, those whose activation best predicts the class of token that their weights"
        " boost."
    )
    return tables.table("Activation against weights", caption, result, columns, result.frame.head(20), "full")
