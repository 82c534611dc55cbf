"""The pair linter: what a set of pairs controls, and what it controls by accident. Text and tokens only; no torch.

Why: patching says nothing beyond its pairs (the essay: keep track of what was controlled, and of what was controlled by
accident). Each check is a row: what was looked at, what was found, and whether that is worth a warning. Whether the
model does the task, and which other behaviour moved, is added by `profiler.patching.capability`.
Cost: one pass over the pairs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from profiler.prompts.pairs.encode import DROPS, Encoded, TokenPair

MANY = 0.25
FREQUENCY = "answer's token id"
Level = Literal["ok", "note", "warning"]


@dataclass(frozen=True)
class Check:
    """One finding: what was checked, the finding in words, its size where it has one, and how serious it is."""

    name: str
    finding: str
    value: float | None = None
    level: Level = "ok"


def check(encoded: Encoded) -> list[Check]:
    """Every check of the pairs, in a fixed order."""
    pairs = encoded.pairs
    return [
        _dropped(encoded),
        _differences(pairs),
        _where(pairs),
        _answers(pairs),
        _splits(pairs),
        *_strata(pairs),
        _lengths(pairs),
    ]


def _dropped(encoded: Encoded) -> Check:
    total = encoded.n_dropped + len(encoded.pairs)
    share = encoded.n_dropped / total
    reasons = "; ".join(f"{n}: {DROPS[reason]}" for reason, n in encoded.dropped) or "none"
    return Check("dropped", f"{encoded.n_dropped} of {total} pairs ({reasons})", share, _level(share))


def _differences(pairs: Sequence[TokenPair]) -> Check:
    counts = Counter(sum(a != b for a, b in zip(p.clean, p.corrupted, strict=True)) for p in pairs)
    words = ", ".join(f"{n} pairs in {size}" for size, n in sorted(counts.items()))
    return Check("tokens that differ", words, sum(k * n for k, n in counts.items()) / len(pairs))


def _where(pairs: Sequence[TokenPair]) -> Check:
    """Which roles the differences fall on; a difference outside every role changes what no table is broken down by."""
    counts: Counter[str] = Counter()
    for pair in pairs:
        for position, (a, b) in enumerate(zip(pair.clean, pair.corrupted, strict=True)):
            if a != b:
                counts[next((name for name, positions in pair.roles if position in positions), "no role")] += 1
    words = ", ".join(f"{name} {n}" for name, n in counts.most_common())
    share = counts["no role"] / max(1, counts.total())
    return Check("where they differ", words, share, "note" if share else "ok")


def _answers(pairs: Sequence[TokenPair]) -> Check:
    """How much one answer dominates: a model that always says it would seem to do the task."""
    counts = Counter(pair.answers for pair in pairs)
    share = counts.most_common(1)[0][1] / len(pairs)
    return Check("one answer's share", f"{len(counts)} answers in {len(pairs)} pairs", share, _level(share))


def _splits(pairs: Sequence[TokenPair]) -> Check:
    counts = Counter(f"{p.pair.split}, {p.pair.scheme}" for p in pairs)
    return Check(
        "split and scheme", "; ".join(f"{name}: {n}" for name, n in sorted(counts.items())), float(len(counts))
    )


def _strata(pairs: Sequence[TokenPair]) -> list[Check]:
    names = dict.fromkeys(name for pair in pairs for name, _ in pair.pair.strata)
    return [_stratum(pairs, name) for name in (*names, FREQUENCY)]


def _stratum(pairs: Sequence[TokenPair], name: str) -> Check:
    """How evenly the pairs spread over a stratum; a stratum with one value is a control nobody chose."""
    counts = Counter(stratum_of(pair, name, pairs) for pair in pairs)
    share = counts.most_common(1)[0][1] / len(pairs)
    words = ", ".join(f"{value} {n}" for value, n in sorted(counts.items(), key=lambda item: str(item[0])))
    level: Level = "note" if len(counts) == 1 else "ok"
    return Check(f"stratum: {name}", words, share, level)


def stratum_of(pair: TokenPair, name: str, pairs: Sequence[TokenPair]) -> str:
    """The stratum's value: from the pair, or by the middle of all pairs for the answer's token id.

    Token ids of a byte-pair vocabulary follow the order of merges, so low ids are the more frequent words.
    """
    if name != FREQUENCY:
        return pair.pair.stratum(name) or "none"
    ids = sorted(p.answers[0] for p in pairs)
    return "low (frequent)" if pair.answers[0] <= ids[len(ids) // 2] else "high (rare)"


def _lengths(pairs: Sequence[TokenPair]) -> Check:
    sizes = sorted(len(pair.clean) for pair in pairs)
    words = f"{sizes[0]} to {sizes[-1]} tokens, middle {sizes[len(sizes) // 2]}"
    return Check("length", words, float(sizes[len(sizes) // 2]), "note" if sizes[0] == sizes[-1] else "ok")


def _level(share: float) -> Level:
    return "warning" if share > MANY else "ok"
