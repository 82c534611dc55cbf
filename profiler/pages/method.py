"""What every report says of the run and of the method: read from the run, the same words on each page."""

import json
from collections.abc import Mapping
from typing import Any

from profiler.model.components import blocks_from_facts, sizes_in_words, units_in_words
from profiler.pages import numbers
from profiler.pages.reader import Reader
from profiler.text.shards import incomplete_run

Pairs = tuple[tuple[str, str], ...]


def run_row(read: Reader) -> dict[str, Any]:
    """The one row of the query run_info."""
    return read("run_info").frame.row(0, named=True)


def sizes_of(row: Mapping[str, Any]) -> str:
    """The sizes of a run's model in words; of a file whose blocks cannot be read, its number of layers."""
    try:
        return sizes_in_words(row["n_layers"], blocks_from_facts(json.loads(row["blocks"])))
    except (TypeError, ValueError, KeyError):
        return f"{row['n_layers']} layers"


def units_of(row: Mapping[str, Any]) -> str:
    """The kinds of a run's units in words: "heads and neurons"; of a file whose blocks cannot be read, "components"."""
    try:
        return units_in_words(block.kind for block in blocks_from_facts(json.loads(row["blocks"])))
    except (TypeError, ValueError, KeyError):
        return "components"


def run_facts(read: Reader) -> Pairs:
    """Model, corpus size, speed and closure of the run, as (term, value) pairs."""
    row = run_row(read)
    return (
        ("Model", f"{row['model']} ({row['architecture']})"),
        ("Layers", sizes_of(row)),
        ("Documents", numbers.count(row["n_documents"])),
        ("Tokens read", numbers.count(row["n_tokens"])),
        ("Corpus", incomplete_of(row) or "all of it that was asked for"),
        ("Positions counted", numbers.count(row["n_positions"])),
        ("Special positions left out", numbers.count(row["n_special"])),
        (
            "Closure residual",
            f"{numbers.number(row['closure_residual'], 2)} of {numbers.number(row['closure_scale'])} logits",
        ),
        ("Speed", f"{numbers.number(row['tokens_per_second'])} tokens/s"),
        ("Recorded", str(row["created"])),
        ("Versions", _versions(row["versions"])),
        ("Run", str(row["run_id"])),
    )


def incomplete_of(row: Mapping[str, Any]) -> str | None:
    """What the run lacks of its corpus, in words; None where it lacks nothing."""
    return incomplete_run(row["config"])


def _versions(text: str | None) -> str:
    """The libraries that numbers depend on, from the JSON of the run."""
    try:
        versions = json.loads(text or "{}")
    except json.JSONDecodeError:
        return str(text)
    shown = [
        name
        for name in ("profiler", "torch", "transformer_lens", "transformer-lens", "transformers", "device")
        if name in versions
    ]
    return ", ".join(f"{name} {versions[name]}" for name in shown) or numbers.MISSING


def method(read: Reader) -> Pairs:
    """Definitions and limits that hold for every report."""
    row = run_row(read)
    scale = numbers.number(row["closure_scale"])
    residual = f"{numbers.number(row['closure_residual'], 2)} logits where the largest target logit is {scale}"
    return (
        (
            "DLA",
            (
                "Direct logit attribution: what the component writes to the final residual stream, dotted with the "
                "unembedding of the "
                "token that really came next, final norm scale frozen, logits centred over the vocabulary. |DLA| is "
                "called importance."
            ),
        ),
        (
            "What DLA does not show",
            (
                "Effects through later layers: a head that only feeds another head has almost no DLA. Nor does it "
                "show what would happen without the component. Small DLA is no proof of no effect."
            ),
        ),
        (
            "Closure",
            (
                "The DLA of all components add up to the centred target logit; the largest difference in this run is "
                f"{residual}."
            ),
        ),
        (
            "Positions",
            (
                f"{numbers.count(row['n_positions'])} positions of {numbers.count(row['n_documents'])} documents are"
                f" counted; {numbers.count(row['n_special'])} special ones (BOS, first of a window, special tokens) are"
                " in neither numerator nor denominator."
            ),
        ),
        (
            "Intervals",
            (
                "95 %, from a delete-a-group jackknife: groups of whole documents are left out of their own domain in"
                " turn, so that the tokens of one document are not counted as independent, and domains are taken as"
                " fixed: the intervals say what other documents of the same domains would have changed. Where there are"
                " too few groups none is shown. The intervals of class shares per bin are Wilson's with the sample size"
                " reduced by the class's design effect."
            ),
        ),
        (
            "Bins",
            (
                "Two bins an octave for the spectrum, sixteen for the density and the quantiles: a quantile is off by"
                " at most 1/32 of its value."
            ),
        ),
        (
            "Samples",
            (
                "Drawn by a fixed hash of component and position, uniformly within each bin; extremes are kept apart"
                " and never counted as samples."
            ),
        ),
    )
