"""What the page of a circuit says first, in sentences: members, how much they keep, what random circuits do, gates,
ability.

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
    "partial": "partial (each in part)",
    "none": "without an effect",
}
"""Labels of `profiler.patching.redundancy.gates` in words, in the order they are told in."""


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
    first = f"{len(members)} of {nodes} nodes make the circuit: {', '.join(members)}."
    return (first, *(of_set(read, name) for name in sets(read)), gates(read), ability(row))


def of_set(read: Reader, name: str) -> str:
    """How good the circuit is on one set of pairs."""
    found = scores(read, name)
    where = WHERE[name]
    if "faithfulness" not in found:
        return (
            f"{where} the model shows no effect that a circuit could explain"
            f" ({numbers.number(found['metric_model']['score'])} logits)."
        )
    one = found["faithfulness"]
    text = (
        f"{where} it keeps {numbers.percent(one['score'])} (95 % interval {numbers.percent(one['low'])} to"
        f" {numbers.percent(one['high'])}) of the effect"
    )
    text += ", which is over-recovery and no success" if found["over_recovery"]["score"] else ""
    text += (
        "; the same members taken out of both, circuit and model differ by up to"
        f" {numbers.percent(found['incompleteness_greedy']['score'])} of it"
    )
    return f"{text}{random(read, name, found)}."


def random(read: Reader, name: str, found: dict[str, dict[str, Any]]) -> str:
    """How many random circuits come as close to all of the effect as the circuit; empty where none was drawn."""
    drawn = read("circuit_random").frame.filter(pl.col("pair_set") == name)["faithfulness"]
    if "random_p" not in found or drawn.is_empty():
        return ""
    close = int(((1 - drawn).abs() <= abs(1 - found["faithfulness"]["score"])).sum())
    some = f"{numbers.count(close) if close else 'none'} of {numbers.count(len(drawn))} random circuits of its size"
    return f"; {some} came as close to 100 % (p = {numbers.number(found['random_p']['score'], 2)})"


def gates(read: Reader) -> str:
    """How many heads have each label of the plane of both directions."""
    heads = read("gates").frame.filter(pl.col("component_kind") == "head", pl.col("positions") == "all")
    counts = dict(heads.group_by("gate").len().rows())
    told = [f"{counts[name]} {words}" for name, words in GATES.items() if name in counts]
    return f"Of {len(heads)} heads, patched alone: {', '.join(told)}."


def ability(row: dict[str, Any]) -> str:
    """Whether the model does the task, and what the corruption takes."""
    return (
        f"The model prefers the answer in {numbers.percent(row['right'])} of the {row['n_pairs']} clean prompts; the"
        f" corruption takes the logit difference from {numbers.number(row['metric_clean'])} to"
        f" {numbers.number(row['metric_corrupted'])}."
    )
