"""What becomes of a circuit off the prompts it was found on: the verdict of the check written last, and everything
behind it.

Answer first: the word, the two or three numbers that carry it, and what would change it. Then the distributions,
the plane of generality and completeness, roles and mixtures, replacement by understanding, counter-examples in context,
edits, weights, and the ledger: every number, what it was held against, whether the claim was registered before the
test.
"""

from typing import Any

import polars as pl

from profiler.generality.evidence.ledger import FAITHFUL, HALF, MARGIN, NO_BETTER, OVER
from profiler.pages import check, numbers
from profiler.pages.blocks import Report
from profiler.pages.reader import Reader

QUESTION = "Is that what the circuit does, or only what it does on the prompts it was found on?"
NEEDS_COMPONENT = False
NEEDS = ("checks",)


def build(read: Reader) -> Report:
    """The page of the check written last, or of the one asked for."""
    row = read("checks").frame.row(0, named=True)
    sections = (
        check.distributions(read, MARGIN),
        check.plane(read),
        check.roles(read),
        check.replacement(read),
        check.counter_examples(read),
        check.edits(read),
        check.weights(read),
        check.ledger(read),
        check.predictions(read),
    )
    return Report(
        title=f"{row['circuit']}: {row['word']}",
        subtitle=f"Does it generalise? · {row['model']}",
        answer=(row["sentence"], *row["change"], _evidence(row), _width(read, row)),
        sections=sections,
        method=METHOD,
        run_facts=_facts(row),
    )


def _evidence(row: dict[str, Any]) -> str:
    """How much stands behind the word."""
    rest = row["findings"] - sum(row[name] for name in ("speak_for", "speak_against", "undecided", "refused"))
    return (
        f"Of {numbers.count(row['findings'])} numbers {numbers.count(row['speak_for'])} speak for a claim,"
        f" {numbers.count(row['speak_against'])} against one, {numbers.count(row['undecided'])} are undecided,"
        f" {numbers.count(row['refused'])} could not be had, each with its reason, and {numbers.count(rest)} describe"
        f" and decide nothing; with what they share counted once, that is {numbers.number(row['weight_for'])}"
        f" independent pieces for and {numbers.number(row['weight_against'])} against."
        f" {numbers.count(row['registered'])} of the tested numbers were predicted beforehand,"
        f" {numbers.count(row['post_hoc'])} are post hoc."
    )


def _width(read: Reader, row: dict[str, Any]) -> str:
    """What was looked at."""
    distributions = read("distributions").frame
    measured = len(distributions.filter(pl.col("faithfulness").is_not_null()))
    words = (
        f"{len(distributions)} distributions were tried; on {measured} of them the circuit's faithfulness could be"
        " measured"
    )
    tokens = row["corpus_tokens"]
    return (
        f"{words}; the widest text has {numbers.count(tokens)} positions."
        if tokens
        else f"{words}; no running text was read."
    )


def _facts(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return (
        ("Check", row["check_id"]),
        ("Model", row["model"]),
        ("Findings", numbers.count(row["findings"])),
        ("Distributions", numbers.count(row["distributions"])),
        ("Settings", row["settings"]),
        ("Seconds", numbers.number(row["seconds"])),
        ("Made", row["created"]),
    )


METHOD = (
    (
        "Generalises",
        (
            "On every distribution but the first the faithfulness is as good as on the discovery prompts: within"
            f" {numbers.percent(MARGIN)}, by two one-sided tests; wherever it was taken out, more than half of the"
            " effect was lost, and more than without random circuits on average; every tested role holds."
        ),
    ),
    (
        "Narrows",
        (
            "On some distribution the faithfulness is lower than on the discovery prompts by more than"
            f" {numbers.percent(MARGIN)}, or roles are refuted, and not so that the circuit does something else."
        ),
    ),
    (
        "Does something else",
        (
            "At least half of the tested roles are refuted: somewhere the role holds on less than"
            f" {numbers.percent(HALF)} of the component's importance, or fills less than {numbers.percent(NO_BETTER)}"
            " of the room above its scrambling, or edits made from it work no better than control edits. A role that"
            " names places of prompts and holds there on the discovery prompts does not count: it is narrow, not"
            f" wrong. Also where the circuit keeps less than {numbers.percent(FAITHFUL)} of the effect on its own"
            " prompts."
        ),
    ),
    (
        "Over-recovers",
        (
            f"Somewhere the faithfulness is above {numbers.percent(1 + OVER)}: leaving others out removed what held the"
            " answer back. That is a failure to generalise."
        ),
    ),
    ("Inconclusive", "None of these at this n; what would settle it is told."),
    (
        "Many distributions",
        (
            "What speaks against a claim is corrected by Holm over the lines of its technique. What speaks for it is"
            " not: for a circuit to generalise all of it must hold."
        ),
    ),
    (
        "Faithfulness",
        (
            "The effect that is kept with everything outside the circuit writing other values, over the model's own"
            " effect; ratio of the means. Necessity: the effect lost when the circuit alone is taken away."
        ),
    ),
    ("Coverage", "Share of a component's importance (|DLA| to the token that came next) on which its role holds."),
    (
        "Roles at places",
        (
            "A role such as “at end attends to S2” is asked at that place of every distribution of prompts: a prompt"
            " counts where the token that the head attends to most is in the place that is named, weighted by |DLA| to"
            " the answer. Where the model itself does not do the task nothing is tested. Its general form, such as"
            " S-inhibition, is asked of every position of the text, and decides nothing: the circuit does not claim it."
        ),
    ),
    (
        "The plane",
        (
            "Circuit: generality is the mean over wider distributions of 1 − |1 − faithfulness|, over that of the"
            " discovery prompts; completeness the mean necessity. Component: generality is its role's smallest coverage"
            " off the discovery prompts; completeness the effect explained when the role is put in its place, or its"
            " coverage on most examples where nothing was."
        ),
    ),
    (
        "Weights",
        (
            "Two lines overlap by the Jaccard index of what they share: distribution, technique, data, gradients. A"
            " line weighs 1 / (1 + its overlaps with the claim's other lines)."
        ),
    ),
    (
        "Registered",
        "Predicted, with hash and time, before the number stood in this file. Everything else is post hoc, and weaker.",
    ),
    (
        "Limits",
        (
            "One model. A component that does something rare, such as on one position in ten thousand, can look as if"
            " it did one thing; the unexplained share and the counter-examples are where to look. Distributions that"
            " were not tried may overturn any word but over-recovers."
        ),
    ),
)
