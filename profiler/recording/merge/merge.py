"""Runs over disjoint shards of one corpus become the run that one pass would have made.

Counts, samples, extremes and dense rows are the same to the bit, moments and sums per token up to the order of their
additions, sums by cell and bin up to the rounding to FLOAT that each run's file makes of them. What belongs
to one run is checked first: weights, tokenizer, settings, version, the digest of the corpus's documents in their order,
and that no document is in two. Of what was added to the runs after their pass, the merged run has the classes and
behaviours that all of them share; what it has not is named (profiler.recording.merge.additions).

Cost: reading each run once; memory of two runs' accumulators.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from profiler.behaviours.expressions import own_classes
from profiler.errors import RunError
from profiler.recording import identity, tables
from profiler.recording.merge.additions import Carried, carried
from profiler.recording.merge.read_back import Stored
from profiler.recording.totals import Totals
from profiler.recording.write import Store, refuse_bad_place
from profiler.text.documents import block_of
from profiler.text.shards import Share


@dataclass(frozen=True)
class Merged:
    """A merged run: its totals, and what it carries, or not, of what was added to the runs."""

    totals: Totals
    carried: Carried


def merge(paths: Sequence[Path], out: Path, *, overwrite: bool = False, incomplete: bool = False) -> Merged:
    """Write the run of all shards of `paths` to `out`.

    Args:
        incomplete: shards may be missing; the run says which, and can be merged with them later.

    Raises:
        RunError: fewer than two runs, one is no run, a shard is missing, or they do not belong together: the difference
            is named.
    """
    refuse_bad_place(out, overwrite=overwrite)
    if not len(paths) > 1 or len({path.resolve() for path in paths}) < len(paths):
        raise RunError("a merge needs two runs or more, each once: name the files of the shards")
    runs: list[Stored] = []
    try:
        runs = [Stored(path) for path in paths]
        _check(runs)
        _refuse_missing(runs, incomplete=incomplete)
        told = own_classes(runs[0].config.classes)
        added = carried(runs, [stored.name for stored in told])
        with Store(out, overwrite=overwrite) as store:
            totals = _added(runs, store)
            store.commit({}, totals.facts(), totals.arrays(), totals.referred())
            of_model = runs[0].of_model()
            of_model["logit_effects"] = tables.at_scale(of_model["logit_effects"], totals.spec, totals.effect_scales)
            totals.write(store, of_model, _versions(runs))
            store.finish((*told, *added.classes), added.behaviours)
    finally:
        for run in runs:
            run.close()
    return Merged(totals, added)


def _added(runs: list[Stored], store: Store) -> Totals:
    """The totals of all runs; their rows are held by `store`."""
    runs = sorted(runs, key=lambda run: min(Share.parse(run.config.shard).members))
    totals = runs[0].totals()
    for run in runs[1:]:
        totals.merge(run.totals())
        totals.created = min(totals.created, run.row["created"])
    for run in runs:
        for table, rows in run.committed().items():
            store.hold(table, rows)
    totals.config = runs[0].config.model_copy(update={"shard": str(_joined(runs)) if _missing(runs) else None})
    return totals


def _joined(runs: list[Stored]) -> Share:
    """The shards of the runs together."""
    shares = [Share.parse(run.config.shard) for run in runs]
    return Share(frozenset().union(*(share.members for share in shares)), shares[0].of)


def _missing(runs: list[Stored]) -> Share | None:
    """The shards that hold documents and are in none of the runs; None where nothing is missing."""
    n_blocks = block_of(runs[0].row["n_streamed"] - 1) + 1
    return _joined(runs).missing(n_blocks)


def _refuse_missing(runs: list[Stored], *, incomplete: bool) -> None:
    """Raises RunError where a shard is missing and that is not asked for."""
    missing = _missing(runs)
    if missing and not incomplete:
        raise RunError(
            f"shard {missing} of the corpus is missing: {_joined(runs)} is in the runs given; record it (--shard) and"
            " give its run too, or merge what there is with --incomplete"
        )


def _check(runs: list[Stored]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for earlier_run, other in ((first, run), *((earlier, run) for earlier in runs[1 : runs.index(run)])):
            _check_pair(earlier_run, other)


def _check_pair(first: Stored, other: Stored) -> None:
    """Refuse two runs that are no shards of one.

    Raises:
        RunError: naming what differs, or documents that are in both.
    """
    differing = identity.differences(identity.of_run(first.row), identity.of_run(other.row), ("shard",))
    shares = [Share.parse(run.config.shard) for run in (first, other)]
    if shares[0].of != shares[1].of:
        differing.append(f"shard {shares[0]} here, {shares[1]} there")
    if not differing and first.row["corpus_digest"] != other.row["corpus_digest"]:
        differing.append(
            f"the corpus: {first.row['n_streamed']:,} documents of digest {first.row['corpus_digest']} here, "
            f"{other.row['n_streamed']:,} of {other.row['corpus_digest']} there"
        )
    if differing:
        raise RunError(f"{first.path} and {other.path} are no shards of one run: {'; '.join(differing)}")
    mine, theirs = (run.rows("SELECT doc_id, source FROM documents") for run in (first, other))
    both = mine.join(theirs.select("doc_id"), on="doc_id")
    if both.height:
        raise RunError(
            f"{first.path} and {other.path} overlap: {both.height:,} documents are in both, such as"
            f" {both['source'][0]!r}; record other shards (--shard 1/2, --shard 2/2)"
        )


def _versions(runs: list[Stored]) -> dict[str, str]:
    """Versions of the libraries; where runs differ, all of them."""
    given = pl.DataFrame([json.loads(run.row["versions"]) for run in runs])
    return {name: " and ".join(given[name].drop_nulls().unique(maintain_order=True)) for name in given.columns}
