"""Write an export: choose the components, read their profiles, spell them, and move the finished folder to its name.

The folder holds export.json: what made it, of which run, in which format, and what it holds and leaves out. Cost: about
10 ms of a core per component; with `fill`, a forward pass for each window that its examples are of.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duckdb import DuckDBPyConnection as Connection

from profiler.database import query
from profiler.errors import ExportError
from profiler.export import circuit_tracer, neuronpedia, tables, texts
from profiler.export.counts import ExportCounts
from profiler.export.profiles import Profile, choose, profiles
from profiler.folders.own_folder import OwnFolder

Writer = Callable[[Path, Iterable[Profile], str], ExportCounts]
FORMATS: Mapping[str, tuple[Writer, str]] = {
    "neuronpedia": (neuronpedia.write, neuronpedia.UNKNOWN),
    "circuit-tracer": (circuit_tracer.write, circuit_tracer.UNKNOWN),
    "parquet": (tables.write_parquet, tables.UNKNOWN),
    "jsonl": (tables.write_jsonl, tables.UNKNOWN),
}
"""What writes each format, and how it writes an activation that the run does not hold."""
MARK = "export.json"
MADE_BY = "generality profiler export"


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, what is in it, and the same in sentences."""

    out: Path
    counts: ExportCounts
    sentences: tuple[str, ...]


def folder_of(out: str | Path) -> OwnFolder:
    """The folder of an export."""
    return OwnFolder(Path(out).absolute(), MARK, MADE_BY, "export", ExportError)


def refuse(out: str | Path, format: str) -> None:
    """Raise unless an export of this format can be written to `out`.

    Raises:
        ExportError: it cannot.
    """
    if format not in FORMATS:
        raise ExportError(f"format {format!r} is unknown: choose {', '.join(FORMATS)}")
    folder_of(out).refuse()


def export(
    connection: Connection,
    out: str | Path,
    format: str,
    components: Sequence[str] = (),
    per_stratum: int = 5,
    fill: Callable[[Profile], Profile] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Exported:
    """Write components of a run for other programs.

    Args:
        out: the folder; an earlier export is replaced, anything else refused.
        format: neuronpedia, circuit-tracer, parquet or jsonl.
        components: labels; all where none is given.
        per_stratum: most random samples of each stratum of activation.
        fill: gives a profile the activations that the run does not hold.
        progress: told after each component how many are read, of how many.

    Raises:
        ExportError: the format is unknown, `out` is something else or cannot be written, or a value cannot be spelled.
        ComponentError: the run lacks a component.
    """
    refuse(out, format)
    own = folder_of(out)
    labels = choose(connection, components)
    info = query.run(connection, "run_info").row(0, named=True)
    write, unknown = FORMATS[format]

    def read() -> Iterator[Profile]:
        for done, profile in enumerate(profiles(connection, labels, per_stratum), 1):
            yield profile if fill is None else fill(profile)
            progress(done, len(labels))

    with own.writing() as folder:
        counts = write(folder, read(), info["model"])
        said = counts.sentences(unknown)
        facts = {"made_by": MADE_BY, "format": format, "run_id": info["run_id"], "model": _name(info["model"])}
        text = texts.to_json(facts | {"said": said, "left_out": dict(counts.left_out)}, "the run")
        (folder / MARK).write_text(text + "\n", encoding="ascii")
    return Exported(own.out, counts, said)


def _name(model: str) -> str:
    """The model's name without the folder it lies in."""
    return model.rstrip("/\\").rsplit("/", 1)[-1]
