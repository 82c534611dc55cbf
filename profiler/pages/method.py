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
    residual, scale = numbers.number(row["closure_residual"], 2), numbers.number(row["closure_scale"])
    return (
        ("Model", f"{row['model']} ({row['architecture']})"),
        ("Size", sizes_of(row)),
        ("Documents", numbers.count(row["n_documents"])),
        ("Tokens read", numbers.count(row["n_tokens"])),
        ("Corpus", incomplete_of(row) or "all that was asked for"),
        ("Positions counted", numbers.count(row["n_positions"])),
        ("Special positions left out", numbers.count(row["n_special"])),
        ("Closure residual", f"{residual} of {scale} logits"),
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
    shown = [name for name in LIBRARIES if name in versions]
    return ", ".join(f"{name} {versions[name]}" for name in shown) or numbers.MISSING


def method(read: Reader) -> Pairs:
    """Definitions and limits that hold for every report, as (term, explanation) pairs."""
    row = run_row(read)
    return (*DLA, ("Closure", _closure(row)), ("Positions", _positions(row)), *STATISTICS)


ALL_OF_IT = 1e-4  # rounding apart


def _closure(row: Mapping[str, Any]) -> str:
    """How well the parts of this run add up."""
    residual, scale = numbers.number(row["closure_residual"], 2), numbers.number(row["closure_scale"])
    text = (
        "The DLA of all components adds up to the centred target logit. The largest difference in this run is"
        f" {residual} logits; the largest target logit is {scale}."
    )
    carried, whole = row.get("recorded_logit_sum"), row.get("squared_logit_sum")
    if not whole or carried is None or abs(carried / whole - 1) < ALL_OF_IT:
        return text
    return f"{text} This run records some components, which carry {numbers.percent(carried / whole)} of that logit."


def _positions(row: Mapping[str, Any]) -> str:
    """What this run counts."""
    return (
        f"Counted: {numbers.count(row['n_positions'])} positions of {numbers.plural(row['n_documents'], 'document')}."
        f" Left out of numerators and denominators: {numbers.count(row['n_special'])} special positions (BOS, the first"
        " of a window, special tokens)."
    )


LIBRARIES = ("profiler", "torch", "transformer_lens", "transformer-lens", "transformers", "device")
"""What is named under Versions, where a run names it."""
DLA: Pairs = (
    (
        "DLA",
        (
            "Direct logit attribution: what the component writes to the final residual stream, projected onto the"
            " unembedding of the token that came next, with the scale of the final norm held fixed and logits centred"
            " over the vocabulary. |DLA| is called importance."
        ),
    ),
    (
        "What DLA does not show",
        (
            "Effects through later layers: a head that only feeds other heads has almost no DLA. Nor what would happen"
            " without the component. Small DLA does not prove that there is no effect."
        ),
    ),
)
STATISTICS: Pairs = (
    (
        "Intervals",
        (
            "95 %, from a delete-a-group jackknife: groups of whole documents are left out of their own domain in turn,"
            " so that tokens of one document are not counted as independent. Domains are fixed: an interval says what"
            " other documents of the same domains would have changed. With too few groups there is no interval."
            " Intervals of class shares per bin are Wilson intervals with the sample size reduced by the class's design"
            " effect."
        ),
    ),
    (
        "Bins",
        (
            "Two bins per octave for the spectrum, sixteen for the density and the quantiles: a quantile is off by at"
            " most 1/32 of its value."
        ),
    ),
    (
        "Samples",
        (
            "Drawn by a fixed hash of component and position, uniformly within each bin. Extremes are stored apart and"
            " never counted as samples."
        ),
    ),
)
