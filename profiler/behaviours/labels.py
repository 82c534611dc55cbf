"""Blind labelling: a person says of examples whether they fit a hypothesis, without seeing the activation.

Examples are random positions from the bands of the component's own activation (and from all positions), in an order
that says nothing about the band; a document gives at most one example to a band, so that examples of a band are
independent and Clopper and Pearson's exact interval (1934) holds. Each answer is one line of a file beside the run,
written when it is given, so that stopping loses nothing and going on asks only what is left. The run is not written to.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from profiler.database import query
from profiler.errors import RunError
from profiler.statistics import clopper_pearson

BANDS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.99)
DRAW = """SELECT band, position_id, context_before, context_token, context_after FROM (
    SELECT band, position_id, doc_id
        , row_number() OVER (PARTITION BY band ORDER BY md5(concat(band, doc_id, component))) AS ordinal
    FROM (
        SELECT *
            , row_number() OVER (PARTITION BY component, band, doc_id ORDER BY md5(position_id::VARCHAR)) AS in_document
        FROM component_facts WHERE component = getvariable('component')
    ) WHERE in_document = 1
) JOIN contexts USING (position_id) WHERE ordinal <= getvariable('per_band')::BIGINT
ORDER BY md5(concat('order', position_id))"""


@dataclass(frozen=True)
class Label:
    """One answer: whether the example at this position fits the hypothesis."""

    run_id: str
    component: str
    hypothesis: str
    position_id: int
    band: float
    fits: bool


@dataclass(frozen=True)
class Session:
    """What is left to ask, and the answers given before."""

    run_id: str
    left: pl.DataFrame
    given: tuple[Label, ...]


def labels_path(run: Path, component: str) -> Path:
    """The file of labels beside a run: <run stem>-labels-<component>.jsonl."""
    return run.with_name(f"{run.stem}-labels-{component}.jsonl")


def begin(run: Path, component: str, hypothesis: str, per_band: int = 10) -> Session:
    """The examples to ask about: `per_band` of each band of activation, but for those that have an answer.

    Raises:
        RunError: no finished run, or the file of labels cannot be read or belongs to another run.
        ComponentError: the run has no such component.
    """
    with query.open_run(run) as connection:
        examples = query.run(connection, DRAW, component=component, per_band=per_band)
        run_id = query.run(connection, "SELECT run_id FROM runs").item()
    given = tuple(label for label in read(labels_path(run, component), run_id) if label.hypothesis == hypothesis)
    done = {label.position_id for label in given}
    return Session(run_id or "", examples.filter(~pl.col("position_id").is_in(list(done))), given)


def read(path: Path, run_id: str | None) -> tuple[Label, ...]:
    """The answers in a file of labels; none where there is no file.

    Raises:
        RunError: the file cannot be read, or holds labels of another run.
    """
    if not path.exists():
        return ()
    try:
        labels = tuple(Label(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"the labels in {path} cannot be read ({error}): repair the line, or move the file away"
        ) from None
    if any(label.run_id != (run_id or "") for label in labels):
        raise RunError(f"{path} holds labels of another run: move it away, or give the run another name")
    return labels


def write(path: Path, label: Label) -> None:
    """Append one answer.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(label)) + "\n")
    except OSError as error:
        raise RunError(f"the labels cannot be written to {path}: {error.strerror}") from None


def score(labels: tuple[Label, ...]) -> pl.DataFrame:
    """Per band of activation: examples, how many fit, their share with Clopper and Pearson's 95 % interval.

    Columns: band (the quantile it begins at), n, fits, share, lo, hi; bands without an answer have no row.
    """
    rows = []
    for band in BANDS:
        answers = [label.fits for label in labels if label.band == band]
        if answers:
            low, high = clopper_pearson(sum(answers), len(answers))
            rows.append((band, len(answers), sum(answers), sum(answers) / len(answers), float(low), float(high)))
    schema = {
        "band": pl.Float64,
        "n": pl.Int64,
        "fits": pl.Int64,
        "share": pl.Float64,
        "lo": pl.Float64,
        "hi": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
