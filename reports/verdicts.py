"""Every circuit that was checked: verdict, evidence and distributions from narrow to wide, one check beside the other.

The page of a single check is the report `generality`; in a site each check has such a page, linked from here.
"""

import polars as pl

from profiler.pages import build as report
from profiler.pages import check as page_check
from profiler.pages import method, numbers, tables
from profiler.pages.blocks import Block, Report, Section
from profiler.pages.charts import check as chart_check
from profiler.pages.reader import Reader

QUESTION = "Which circuits were checked off the prompts they were found on, and what became of each?"
NEEDS_COMPONENT = False
NEEDS = ("checks",)


def build(read: Reader) -> Report:
    """The page of all checks, the one written last first."""
    frame = read("checks").frame
    return Report(
        title=_title(frame),
        subtitle="Verdicts on circuits",
        answer=tuple(frame["sentence"]),
        sections=(
            Section("Checks", "", (_table(read),)),
            Section("Distributions", "", tuple(_distributions(read, name) for name in frame["check_id"])),
        ),
        method=report.load("generality").METHOD,
        run_facts=method.run_facts(read),
    )


def _title(frame: pl.DataFrame) -> str:
    """How many checks have which verdict."""
    counts = frame.group_by("word").len().sort(["len", "word"], descending=[True, False]).to_dicts()
    words = ", ".join(f"{row['word']} ({numbers.count(row['len'])})" for row in counts)
    return f"{numbers.plural(len(frame), 'check')} of circuits: {words}"


def _table(read: Reader) -> Block:
    result = read("checks")
    frame = result.frame.with_columns(pl.col("created").str.slice(0, 16).str.replace("T", " "))
    columns = (
        tables.words("check_id", "Check"),
        tables.words("word", "Verdict"),
        tables.count("distributions", "Distributions"),
        tables.count("speak_for", "Tests for"),
        tables.count("speak_against", "Against"),
        tables.count("undecided", "Undecided"),
        tables.count("refused", "Not run"),
        tables.count("registered", "Predicted", "numbers predicted before they were measured"),
        tables.words("created", "Made"),
    )
    caption = "Tests for and against the claims of each circuit. The page of a check weighs them by what they share."
    return tables.table("All checks", caption, result, columns, frame, "full")


def _distributions(read: Reader, check_id: str) -> Block:
    result = read("distributions", check_id=check_id)
    measured = result.frame.filter(page_check.has("faithfulness") | page_check.has("kl_recovered"))
    caption = (
        "Dots: faithfulness with its interval; rings: necessity; grey bars: random circuits; squares: KL recovered on"
        " running text."
    )
    return page_check.chart_or_note(
        check_id,
        caption,
        result,
        measured,
        lambda rows: chart_check.distributions(rows, page_check.threshold(read, "margin", check_id)),
        "No distribution has a number.",
    )
