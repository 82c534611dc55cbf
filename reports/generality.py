"""Whether a circuit holds off the prompts it was found on: the verdict of the latest check, and the evidence for it.

Answer first: the verdict, the numbers it rests on, and what would change it. Then the distributions, the plane of
generality and completeness, roles and mixtures, replacement by understanding, counter-examples in context, edits,
weights, and the ledger: every number, what it was compared with, whether the claim was registered before the test.
"""

import json
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
    """The page of the check written last, or of the check that is asked for."""
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
        answer=(row["sentence"], *_measured(row), *row["change"], _evidence(row), _width(read, row)),
        sections=sections,
        method=METHOD,
        run_facts=_facts(row),
    )


def _measured(row: dict[str, Any]) -> tuple[str, ...]:
    """What the numbers on prompts are measured by, where that is not the logit difference."""
    metric = json.loads(row["settings"]).get("metric", "logit_diff")
    return () if metric == "logit_diff" else (f"Faithfulness and necessity on prompts are measured by {metric}.",)


def _evidence(row: dict[str, Any]) -> str:
    """How many tests the verdict rests on, and how independent they are."""
    tests = row["speak_for"] + row["speak_against"] + row["undecided"] + row["refused"]
    return (
        f"Of {numbers.plural(tests, 'test')}, {numbers.count(row['speak_for'])} support the claims,"
        f" {numbers.count(row['speak_against'])} contradict them, {numbers.count(row['undecided'])} are undecided and"
        f" {numbers.count(row['refused'])} were not run; each of these has a reason."
        f" {numbers.plural(row['findings'] - tests, 'further number')} only describe. Weighted for what tests share,"
        f" this is worth {numbers.number(row['weight_for'])} independent tests for the claims and"
        f" {numbers.number(row['weight_against'])} against. {numbers.count(row['registered'])} of the tested numbers"
        f" were predicted beforehand, {numbers.count(row['post_hoc'])} are post hoc."
    )


def _width(read: Reader, row: dict[str, Any]) -> str:
    """On how many distributions, and on how much text, the circuit was tested."""
    distributions = read("distributions").frame
    measured = len(distributions.filter(pl.col("faithfulness").is_not_null()))
    tokens = row["corpus_tokens"]
    text = f"The widest text has {numbers.count(tokens)} positions." if tokens else "No running text was read."
    return (
        f"{numbers.plural(len(distributions), 'distribution')} {'was' if len(distributions) == 1 else 'were'} tried;"
        f" faithfulness could be measured on {measured} of them. {text}"
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
            "On every other distribution the faithfulness is as good as on the discovery prompts: within"
            f" {numbers.percent(DEFAULT.margin)}, by two one-sided tests. Wherever the circuit was removed, the effect"
            f" dropped by more than {numbers.percent(DEFAULT.necessity)}, and by more than when random circuits were"
            " removed, on average. Every tested role holds."
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
            f"At least {numbers.percent(DEFAULT.refuted_share)} of the tested roles are refuted: on some distribution"
            f" the role holds on less than {numbers.percent(DEFAULT.role_share)} of the component's importance, or"
            f" covers less than {numbers.percent(DEFAULT.no_better)} of what its scrambled form leaves, or edits made"
            " from it succeed no more often than control edits. A role that names positions of prompts and holds there"
            " on the discovery prompts does not count: it is narrow, not wrong. The verdict is also given where the"
            f" circuit recovers less than {numbers.percent(DEFAULT.faithful)} of the effect on its own prompts."
        ),
    ),
    (
        "Over-recovers",
        (
            f"On some distribution the faithfulness is above {numbers.percent(1 + DEFAULT.over)}: the circuit leaves"
            " out what holds the answer back. That is a failure to generalise."
        ),
    ),
    ("Inconclusive", "None of these can be shown with this n; the page says what n would settle it."),
    (
        "Thresholds",
        "The percentages here are the defaults; the section “Thresholds” has those of this check.",
    ),
    (
        "Many distributions",
        (
            "Tests that contradict a claim are adjusted by Holm over the lines of their technique. Tests that support"
            " it are not: a circuit generalises only if all of them hold."
        ),
    ),
    (
        "Faithfulness",
        (
            "The effect that is left when everything outside the circuit writes other values, over the model's own"
            " effect; a ratio of means. Necessity: the drop of the effect when the circuit alone is removed."
        ),
    ),
    ("Coverage", "Share of a component's importance (|DLA| to the token that came next) on which its role holds."),
    (
        "Roles at positions",
        (
            "A role such as “at end attends to S2” is tested at that position of the prompts of every distribution. It"
            " holds on a prompt where the token that the head attends to most is at the named position; prompts are"
            " weighted by |DLA| to the answer. Where the model itself does not solve the task nothing is tested. Its"
            " general form, such as S-inhibition, is tested at every position of the text and decides nothing: the"
            " circuit does not claim it."
        ),
    ),
    (
        "The plane",
        (
            "Circuit: generality is the mean of 1 − |1 − faithfulness| over wider distributions, divided by its value"
            " on the discovery prompts; completeness is the mean necessity. Component: generality is the smallest"
            " coverage of its role off the discovery prompts; completeness is the effect explained when the component"
            " is replaced by the role or, where it was not replaced, the coverage on the distribution with most"
            " examples."
        ),
    ),
    (
        "Weights",
        (
            "The overlap of two lines is the Jaccard index of what they use: distribution, technique, data, gradients."
            " A line weighs 1 / (1 + its overlaps with the claim's other lines)."
        ),
    ),
    (
        "Registered",
        "Predicted, with hash and time, before the number was in this file. Everything else is post hoc, and weaker.",
    ),
    (
        "Limits",
        (
            "One model. What a component does rarely, such as at one position in ten thousand, may not be seen: look"
            " at the unexplained share and the counter-examples. Distributions that were not tried may overturn any"
            " verdict except over-recovers."
        ),
    ),
)
