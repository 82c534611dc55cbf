"""Shards of a corpus: which part of it a run has read, and what of it is missing. No torch, no datasets."""

import json
from dataclasses import dataclass

from profiler.errors import CorpusError


@dataclass(frozen=True)
class Share:
    """The blocks of documents one run reads: those whose number modulo `of` is in `members`."""

    members: frozenset[int] = frozenset({0})
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Share":
        """`1/4`, the first of four; `1+3/4`, the first and the third; None, everything.

        Raises:
            CorpusError: the text is no such share.
        """
        if text is None:
            return cls()
        numbers, _, of = text.partition("/")
        members = [int(n) if n.isdecimal() else 0 for n in numbers.split("+")]
        if not of.isdecimal() or not all(1 <= n <= int(of) for n in members) or len(set(members)) < len(members):
            raise CorpusError(f"shard {text!r} cannot be read: write 1/4 for the first of four, up to 4/4 for the last")
        return cls(frozenset(n - 1 for n in members), int(of))

    def owns(self, block: int) -> bool:
        """Whether a block of documents is read."""
        return block % self.of in self.members

    def missing(self, n_blocks: int | None = None) -> "Share | None":
        """The shards that are not in it; None where nothing is missing.

        Args:
            n_blocks: blocks that the corpus has, where that is known: shards beyond them are empty and not missing.
        """
        there = self.of if n_blocks is None else min(self.of, n_blocks)
        left = frozenset(range(there)) - self.members
        return Share(left, self.of) if left else None

    def __str__(self) -> str:
        return f"{'+'.join(str(n + 1) for n in sorted(self.members))}/{self.of}"


def incomplete(shard: str | None) -> str | None:
    """What a run lacks of its corpus, in words; None where it lacks nothing.

    Args:
        shard: the setting of the run, such as 1+3/4.
    """
    share = Share.parse(shard)
    missing = share.missing()
    return f"shard {share} of the corpus alone: {missing} is missing" if missing else None


def incomplete_run(config: str | None) -> str | None:
    """What a run lacks of its corpus, in words; None where it lacks nothing, or its settings do not say.

    Args:
        config: JSON of the run's settings, as in table `runs`.
    """
    try:
        given = json.loads(config or "{}")
    except ValueError:
        return None
    shard = given.get("shard") if isinstance(given, dict) else None
    return incomplete(shard) if isinstance(shard, str) else None
