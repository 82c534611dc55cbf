"""Sentences that open the page of a circuit: members, what they recover, random circuits, gates, the model's ability.

Every number is one of a query's answer, or a count of its rows. Cost: none beyond the queries.
"""

from typing import Any

import polars as pl

from profiler.pages import numbers
from profiler.pages.reader import Reader

WHERE = {
    "discovery": "On the pairs it was found on",
    "test": "On fresh pairs",
    "held_out": "On held-out words and wordings",
}
GATES = {
    "sufficient and necessary": "sufficient and necessary",
    "OR-like": "OR-like (sufficient)",
    "AND-like": "AND-like (necessary)",
    "partial": "partial (both in part)",
    "none": "without a clear effect",
}
"""Gates of `profiler.patching.redundancy.gates` in words, in the order in which they are told."""


def sets(read: Reader) -> list[str]:
    """Sets of pairs that the circuit was judged on."""
    present = set(read("circuit_scores").frame["pair_set"])
    return [name for name in WHERE if name in present]


def scores(read: Reader, pair_set: str) -> dict[str, dict[str, Any]]:
    """Scores of one set of pairs by name."""
    frame = read("circuit_scores").frame.filter(pl.col("pair_set") == pair_set)
    return {row["metric"]: row for row in frame.to_dicts()}


def answer(read: Reader, row: dict[str, Any]) -> tuple[str, ...]:
    """The sentences; `row` is the experiment's."""
    listed = (
        read("circuit_members").frame.select("component", "positions").unique().sort("component", "positions").rows()
    )
    members = [label if at == "all" else f"{label} at {at}" for label, at in listed]
    nodes = int(scores(read, "discovery")["nodes"]["score"])
    first = f"{len(members)} of {nodes} nodes make up the circuit: {', '.join(members)}."
    sentences = (first, *(of_set(read, name, row) for name in sets(read)), gates(read), ability(row))
    return tuple(sentence for sentence in sentences if sentence)


def of_set(read: Reader, name: str, row: dict[str, Any]) -> str:
    """How good the circuit is on a set of pairs; `row` is the experiment's."""
    values, where = scores(read, name), WHERE[name]
    if "faithfulness" not in values:
        return (
            f"{where} the model shows no effect that a circuit could explain"
            f" ({row['metric_words']} {numbers.number(values['metric_model']['score'])})."
        )
    share = values["faithfulness"]
    over = ", which is over-recovery, not success" if values["over_recovery"]["score"] else ""
    bounds = f"{numbers.percent(share['low'])} to {numbers.percent(share['high'])}"
    return (
        f"{where} it recovers {numbers.percent(share['score'])} ({numbers.LEVEL} interval {bounds}) of the"
        f" effect ({row['metric_words']}){over}.{incomplete(values)}{random(read, name, values)}"
    )


def incomplete(values: dict[str, dict[str, Any]]) -> str:
    """How far circuit and model differ without the same members; empty of a circuit by edges, where it is not asked."""
    if "incompleteness_greedy" not in values:
        return ""
    return (
        " With the same members removed from both, circuit and model differ by up to"
        f" {numbers.percent(values['incompleteness_greedy']['score'])} of the effect."
    )


def random(read: Reader, name: str, values: dict[str, dict[str, Any]]) -> str:
    """How many random circuits are as good as the circuit; empty where none was drawn."""
    drawn = read("circuit_random").frame.filter(pl.col("pair_set") == name)["faithfulness"]
    if "random_p" not in values or drawn.is_empty():
        return ""
    p = values["random_p"]["score"]
    as_good = round(p * (1 + len(drawn))) - 1
    return (
        f" {numbers.count(as_good) if as_good else 'None'} of {numbers.plural(len(drawn), 'random circuit')} of the"
        f" same size {'are' if as_good > 1 else 'is'} as close to 100 % and as necessary (p = {numbers.number(p, 2)})."
    )


def gates(read: Reader) -> str:
    """How many heads have each gate; empty where no head was patched."""
    heads = read("gates").frame.filter(pl.col("component_kind") == "head", pl.col("positions") == "all")
    if heads.is_empty():
        return ""
    counts = dict(heads.group_by("gate").len().rows())
    told = [f"{counts[name]} {words}" for name, words in GATES.items() if name in counts]
    return f"Of {numbers.plural(len(heads), 'head')}, each patched alone: {', '.join(told)}."


def ability(row: dict[str, Any]) -> str:
    """How often the model does the task, and how far the corruption moves it."""
    return (
        f"The model prefers the answer in {numbers.percent(row['right'])} of the {row['n_pairs']} clean prompts. The"
        f" corruption takes the mean {row['metric_words']} from {numbers.number(row['metric_clean'])} to"
        f" {numbers.number(row['metric_corrupted'])}."
    )
