"""What becomes of a circuit off the prompts it was found on: the verdict of the check written last, and everything
behind it.

Answer first: the word, the two or three numbers that carry it, and what would change it. Then the distributions,
the plane of generality and completeness, roles and mixtures, replacement by understanding, counter-examples in context,
edits, weights, and the ledger: every number, what it was compared with, whether the claim was registered before the
test.
"""

from typing import Any

import polars as pl

from profiler.generality.evidence.thresholds import DEFAULT
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
        check.distributions(read, check.threshold(read, "margin")),
        check.plane(read),
        check.roles(read),
        check.replacement(read),
        check.counter_examples(read),
        check.edits(read),
        check.weights(read),
        check.ledger(read),
        check.thresholds(read),
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
    tests = row["speak_for"] + row["speak_against"] + row["undecided"] + row["refused"]
    return (
        f"Of {numbers.count(tests)} tests {numbers.count(row['speak_for'])} support the claims,"
        f" {numbers.count(row['speak_against'])} contradict them, {numbers.count(row['undecided'])} are undecided,"
        f" {numbers.count(row['refused'])} were not run, each with its reason."
        f" {numbers.count(row['findings'] - tests)} more numbers describe and decide nothing. With what tests share"
        f" counted once, {numbers.number(row['weight_for'])} independent tests support the claims and"
        f" {numbers.number(row['weight_against'])} contradict them. {numbers.count(row['registered'])} of the tested"
        f" numbers were predicted beforehand, {numbers.count(row['post_hoc'])} are post hoc."
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
            f" {numbers.percent(DEFAULT.margin)}, by two one-sided tests. Wherever the circuit was removed, the effect"
            f" dropped by more than {numbers.percent(DEFAULT.necessity)}, and by more than without random circuits on"
            " average. Every tested role holds."
        ),
    ),
    (
        "Narrows",
        (
            "On some distribution the faithfulness is lower than on the discovery prompts by more than"
            f" {numbers.percent(DEFAULT.margin)}, or some roles are refuted, but too few for “does something else”."
        ),
    ),
    (
        "Does something else",
        (
            f"At least {numbers.percent(DEFAULT.refuted_share)} of the tested roles are refuted: somewhere the role"
            f" holds on less than {numbers.percent(DEFAULT.role_share)} of the component's importance, or fills less"
            f" than {numbers.percent(DEFAULT.no_better)} of the room above its scrambling, or edits made from it"
            " succeed no more often than control edits. A role that names positions of prompts and holds there on the"
            " discovery prompts does not count: it is narrow, not wrong. The word also stands where the circuit keeps"
            f" less than {numbers.percent(DEFAULT.faithful)} of the effect on its own prompts."
        ),
    ),
    (
        "Over-recovers",
        (
            f"Somewhere the faithfulness is above {numbers.percent(1 + DEFAULT.over)}: what held the answer back was"
            " left out. That is a failure to generalise."
        ),
    ),
    ("Inconclusive", "None of these at this n; the page says what would settle it."),
    (
        "Thresholds",
        "The percentages here are the defaults; those of this check stand in the section of that name.",
    ),
    (
        "Many distributions",
        (
            "What contradicts a claim is corrected by Holm over the lines of its technique. What supports it is not:"
            " for a circuit to generalise all of it must hold."
        ),
    ),
    (
        "Faithfulness",
        (
            "The effect that is left with everything outside the circuit writing other values, over the model's own"
            " effect; ratio of the means. Necessity: the drop of the effect when the circuit alone is removed."
        ),
    ),
    ("Coverage", "Share of a component's importance (|DLA| to the token that came next) on which its role holds."),
    (
        "Roles at positions",
        (
            "A role such as “at end attends to S2” is tested at that position of every distribution of prompts: a"
            " prompt counts where the token that the head attends to most is in the position that is named, weighted"
            " by |DLA| to the answer. Where the model itself does not do the task nothing is tested. Its general form,"
            " such as S-inhibition, is tested at every position of the text, and decides nothing: the circuit does not"
            " claim it."
        ),
    ),
    (
        "The plane",
        (
            "Circuit: generality is the mean over wider distributions of 1 − |1 − faithfulness|, over that of the"
            " discovery prompts; completeness the mean necessity. Component: generality is its role's smallest coverage"
            " off the discovery prompts; completeness the effect explained when the component is replaced by the role,"
            " or its coverage on most examples where it was not replaced."
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
