"""The only writer of checks, the role catalogue and predictions into a run file. No torch.

Why: a verdict without its findings, or a prediction without its time, is worth nothing later. A check is written in one
transaction and replaces what the same check wrote before; the log of predictions is only ever added to, and each check
keeps the hash of the log's end as it was, so that neither an edited nor a deleted prediction goes unseen.
Cost: the size of the tables.
"""

import difflib
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from duckdb import DuckDBPyConnection as Connection

from profiler.circuits import yaml_files
from profiler.circuits.circuit import Circuit
from profiler.database import query
from profiler.database.assets import package_file
from profiler.database.comments import comment_statements
from profiler.database.transaction import writing
from profiler.errors import PredictionError
from profiler.generality.evidence import predictions, published
from profiler.generality.evidence.agreement import agreement
from profiler.generality.evidence.distributions import DOMAIN, NAMES, Distribution
from profiler.generality.evidence.finding import Finding
from profiler.generality.evidence.ledger import Key
from profiler.generality.evidence.predictions import CIRCUIT, Entry, Prediction
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.generality.evidence.verdict import Verdict

DETAILS = {
    "Distribution": "check_distributions",
    "CrossTask": "cross_tasks",
    "Replacement": "replacements",
    "WeightScore": "weight_scores",
    "CounterExample": "counter_examples",
    "Edit": "check_edits",
    "UsedExample": "check_examples",
    "PublishedNumber": "published_numbers",
    "ThresholdValue": "check_thresholds",
}
"""Detail rows by the name of their class, and their table."""
OF_CHECK = ("checks", "check_findings", "check_ledger", "check_agreement", "check_needs", *DETAILS.values())
TABLES = (*OF_CHECK, "first_measured", "role_catalogue", "prediction_log", "prediction_head")
LIBRARIES = ("torch", "transformers", "transformer-lens", "numpy", "scipy")


@dataclass(frozen=True)
class UsedExample:
    """One prompt or document that a distribution used; `key` is a hash of its text."""

    distribution: str
    key: str


def sql() -> str:
    """The statements that add tables and views where they are missing."""
    text = package_file("database/generality.sql").read_text(encoding="utf-8")
    return (
        text.replace("CREATE MACRO", "CREATE OR REPLACE MACRO")
        .replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")
        .replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
    )


def _install(run: Connection) -> None:
    """Create the tables and views that are missing."""
    run.execute(sql())
    for statement in comment_statements(package_file("database/generality.sql").read_text(encoding="utf-8")):
        run.execute(statement)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def write(
    path: Path,
    check: str,
    *,
    circuit: Circuit,
    findings: Sequence[Finding],
    distributions: Sequence[Distribution],
    verdict: Verdict,
    details: Iterable[Any] = (),
    settings: dict[str, Any] | None = None,
    thresholds: Thresholds = DEFAULT,
    seconds: float = 0.0,
) -> None:
    """Write a check whole, or leave the run as it was; the same check's earlier rows are replaced.

    Args:
        check: name of the check; the circuit's name by convention.
        findings: as they were judged; the verdict's ledger has a line for each, in their order.
        distributions: nearest first.
        details: rows of the classes in DETAILS.
        settings: everything else that changes the numbers.
        thresholds: what decided the verdict.
        seconds: wall time of the check.

    Raises:
        RunError: the file is no run, or open elsewhere.
        ValueError: the ledger is of other findings, or a detail row is of no known class.
    """
    if [line.finding for line in verdict.ledger] != list(findings):
        raise ValueError(f"check {check!r}: the verdict's ledger is of other findings than those to be written")
    at = _now()
    frames = {
        "check_findings": _finding_rows(findings, at),
        "check_ledger": _ledger_rows(verdict),
        "check_agreement": [asdict(agreed) for agreed in agreement(verdict.ledger)],
        "check_needs": [asdict(agreed) for agreed in verdict.needs],
    } | _detail_rows((*distributions, *details, *published.numbers(circuit.name), *thresholds.rows()))
    with writing(path) as run:
        _install(run)
        for table in OF_CHECK:
            run.execute(f"DELETE FROM {table} WHERE check_id = ?", [check])
        row = _check_row(run, circuit, verdict, at, settings or {}, seconds)
        for table, rows in (frames | {"checks": [row]}).items():
            _insert(run, table, [{"check_id": check} | agreed for agreed in rows])
        _remember(run, circuit, verdict, {distribution.name: distribution.kind for distribution in distributions}, at)


def _finding_rows(findings: Sequence[Finding], at: str) -> list[dict[str, Any]]:
    """Rows of check_findings: the six values under the names that the tables of patching have."""
    rows = []
    for i, finding in enumerate(findings):
        row = asdict(finding)
        choices = row.pop("choices")
        row |= {"component_kind": choices.pop("components"), "pair_set": choices.pop("set"), **choices}
        rows.append(row | {"finding": i, "null_mean": row.pop("null"), "shares": list(finding.shares), "created": at})
    return rows


def _ledger_rows(verdict: Verdict) -> list[dict[str, Any]]:
    names = ("speaks", "reason", "way", "p_for", "p_against", "weight", "registered")
    return [
        {"finding": i, "carries": line.finding in verdict.numbers} | {name: getattr(line, name) for name in names}
        for i, line in enumerate(verdict.ledger)
    ]


def _detail_rows(details: Iterable[Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows by table."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for detail in details:
        table = DETAILS.get(type(detail).__name__)
        if table is None:
            raise ValueError(f"rows of {type(detail).__name__} have no table: it must be one of {', '.join(DETAILS)}")
        rows.setdefault(table, []).append({field.name: getattr(detail, field.name) for field in fields(detail)})
    return rows


def _check_row(
    run: Connection, circuit: Circuit, verdict: Verdict, at: str, settings: dict[str, Any], seconds: float
) -> dict[str, Any]:
    model, model_hash = run.execute("SELECT model, model_hash FROM runs").fetchall()[0]
    entries, head = _head(run)
    versions = {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    return {
        "circuit": circuit.name,
        "created": at,
        "model": model,
        "model_hash": model_hash,
        "word": verdict.word,
        "sentence": verdict.sentence,
        "change": list(verdict.change),
        "yaml": yaml_files.text_of(circuit),
        "settings": json.dumps(settings, default=str),
        "seconds": seconds,
        "prediction_entries": entries,
        "prediction_head": head or None,
        "versions": json.dumps(versions),
    }


def _insert(run: Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        run.register("rows_to_write", pl.DataFrame(rows, infer_schema_length=None).to_arrow())
        run.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows_to_write")
        run.unregister("rows_to_write")


def _remember(run: Connection, circuit: Circuit, verdict: Verdict, kinds: dict[str, str], at: str) -> None:
    """Note the numbers that are measured for the first time, and the roles of components."""
    measured = [line.finding for line in verdict.ledger if line.finding.value is not None]
    keys = {(finding.subject, finding.role, finding.statistic, finding.distribution) for finding in measured}
    known = set(
        run.execute(
            "SELECT subject, role, statistic, distribution FROM first_measured WHERE circuit = ?", [circuit.name]
        ).fetchall()
    )
    names = ("subject", "role", "statistic", "distribution")
    new = [dict(zip(names, key, strict=True)) for key in sorted(keys - known)]
    _insert(
        run,
        "first_measured",
        [
            finding | {"circuit": circuit.name, "kind": kinds.get(finding["distribution"], ""), "written": at}
            for finding in new
        ],
    )
    model_hash = run.execute("SELECT model_hash FROM runs").fetchall()[0][0]
    run.execute("DELETE FROM role_catalogue WHERE circuit = ?", [circuit.name])
    roles = [
        {
            "component": f.subject,
            "role": f.role,
            "distribution": f.distribution,
            "coverage": f.value,
            "lo": f.lo,
            "hi": f.hi,
            "null_mean": f.null,
            "n": f.n,
            "unit": f.unit,
            "speaks": line.speaks,
            "circuit": circuit.name,
            "model_hash": model_hash,
            "created": at,
        }
        for line in verdict.ledger
        if (f := line.finding).technique == "coverage" and f.statistic == "coverage" and f.role and f.value is not None
    ]
    _insert(run, "role_catalogue", roles)


def _head(run: Connection) -> tuple[int, str]:
    """How many entries the log has, and the hash of its last."""
    return next(iter(run.execute("SELECT entries, hash FROM prediction_head").fetchall()), (0, ""))


def _append(run: Connection, kind: str, value: dict[str, Any]) -> Entry:
    entry = predictions.append(kind, value, _now(), *_head(run))
    _insert(run, "prediction_log", [asdict(entry)])
    run.execute("DELETE FROM prediction_head")
    _insert(run, "prediction_head", [{"entries": entry.entry, "hash": entry.hash}])
    return entry


def register(path: Path, wanted: Sequence[Prediction]) -> tuple[Entry, ...]:
    """Register predictions, in their order; each is marked where its number is in the file already.

    Raises:
        RunError: no finished run, or it cannot be written.
        PredictionError: one cannot be scored, names a component that the model lacks, or the log is no longer intact.
    """
    query.open_run(path).close()
    for prediction in wanted:
        predictions.check(prediction)
    with writing(path) as run:
        _install(run)
        _refuse_broken(run)
        return tuple(
            _append(run, "registered", predictions.registration(prediction, known_before=_known(run, prediction)))
            for prediction in wanted
        )


def distribution_of(path: Path, given: str) -> str:
    """The name of a distribution that a check will have: of its own, of a domain or an earlier check, or NAME=VALUE.

    Args:
        given: the name, or a distribution of the user's own as it will be given to `profiler check`.

    Raises:
        RunError: no finished run.
        PredictionError: no check has a distribution of that name.
    """
    name, own, _ = given.partition("=")
    with query.open_run(path) as run:
        rows = run.execute("SELECT domain FROM domains ORDER BY domain_id").fetchall()
        known = [*NAMES, *(f"{DOMAIN}{domain}" for (domain,) in rows)]
        if has(run, "check_distributions"):
            known += [name for (name,) in run.execute("SELECT DISTINCT name FROM check_distributions").fetchall()]
    if own or given in known or not given.strip():
        return name.strip() if own else given
    near = difflib.get_close_matches(given, known, n=1)
    raise PredictionError(
        f"--distribution {given!r} is none that a check has{f', did you mean {near[0]!r}?' if near else ''}: choose"
        f" {', '.join(dict.fromkeys(known))}, or give your own as `profiler check` will get it, NAME=FILE.jsonl"
    )


def _refuse_broken(run: Connection) -> None:
    """Refuse to append to a log that was edited: it would look whole from there on."""
    if run.execute("SELECT count(*) FROM predictions WHERE NOT intact").fetchall()[0][0]:
        raise PredictionError(
            "the log of predictions was changed after it was written, so that nothing more is added to it: see"
            " `profiler predict list`"
        )


def _known(run: Connection, prediction: Prediction) -> bool:
    """Whether the number that is predicted stands in the file already."""
    text = """SELECT count(*) FROM first_measured WHERE statistic = $statistic AND distribution = $distribution
        AND (subject = $subject OR ($subject = 'circuit' AND role = '')) AND ($role = '' OR role = $role)
        AND (kind <> 'prompts' OR $circuit IN ('', circuit))"""
    given = {name: getattr(prediction, name) for name in ("statistic", "distribution", "subject", "role", "circuit")}
    return bool(run.execute(text, given).fetchall()[0][0])


@dataclass(frozen=True)
class ScoredPrediction:
    """A prediction beside its number; `outcome` is `open` where nothing was stored after it was registered."""

    statement: str
    outcome: str
    value: float | None
    lo: float | None
    hi: float | None
    overlap: float | None


def resolve(path: Path, origin: str = "") -> tuple[ScoredPrediction, ...]:
    """Score open predictions against the first finding stored after they were registered.

    Args:
        origin: only those of the user, or of the role catalogue; all where it is empty.

    Raises:
        RunError: no finished run, or it cannot be written.
        PredictionError: the log is no longer intact.
    """
    query.open_run(path).close()
    with writing(path) as run:
        _install(run)
        _refuse_broken(run)
        text = "SELECT * FROM predictions WHERE outcome IS NULL AND $origin IN ('', origin) ORDER BY entry"
        rows = run.sql(text, params={"origin": origin}).pl().to_dicts()
        return tuple(_score(run, row) for row in rows)


def _score(run: Connection, row: dict[str, Any]) -> ScoredPrediction:
    finding_row = _finding_after(run, row)
    if finding_row is None:
        return ScoredPrediction(row["statement"], "open", None, None, None, None)
    names = ("subject", "role", "technique", "distribution", "statistic", "value", "lo", "hi", "n", "unit")
    finding = Finding(**{name: finding_row[name] for name in names})
    said = predictions.outcome(row["direction"], row["threshold"], finding)
    shared = _overlap(run, finding_row["check_id"], row["distribution"])
    value = {
        "hash": row["hash"],
        "outcome": said,
        "check_id": finding_row["check_id"],
        "created": finding_row["created"],
        "overlap": shared,
    }
    _append(
        run, "resolved", value | {name: finding_row[name] for name in ("value", "lo", "hi", "n", "unit", "technique")}
    )
    return ScoredPrediction(row["statement"], said, finding.value, finding.lo, finding.hi, shared)


def _finding_after(run: Connection, row: dict[str, Any]) -> dict[str, Any] | None:
    """The first finding of the prediction's number that was stored after it."""
    text = """SELECT found.* FROM check_findings AS found JOIN checks USING (check_id)
        WHERE found.created > $registered_at AND found.value IS NOT NULL
            AND found.statistic = $statistic AND found.distribution = $distribution
        AND (found.subject = $subject OR ($subject = 'circuit' AND found.subject = checks.circuit))
        AND ($role = '' OR found.role = $role) AND ($circuit = '' OR checks.circuit = $circuit)
        ORDER BY found.created, found.check_id, found.finding LIMIT 1"""
    given = {name: row[name] for name in ("registered_at", "statistic", "distribution", "subject", "role", "circuit")}
    return next(iter(run.sql(text, params=given).pl().to_dicts()), None)


def _overlap(run: Connection, check: str, distribution: str) -> float | None:
    """Share of the distribution's examples that are discovery examples too; 1 for the discovery distribution itself."""
    names = run.execute("SELECT name FROM check_distributions WHERE check_id = ? AND ordinal = 0", [check]).fetchall()
    if (distribution,) in names:
        return 1.0
    text = "SELECT key FROM check_examples WHERE check_id = ? AND distribution = ?"
    tested = [key for (key,) in run.execute(text, [check, distribution]).fetchall()]
    base = [key for name in names for (key,) in run.execute(text, [check, name[0]]).fetchall()]
    return predictions.overlap(base, tested)


def registered(path: Path) -> frozenset[Key]:
    """(subject, statistic, distribution) of predictions that were registered before their number was known.

    A subject `circuit` stands for any circuit's name: see `keys_for`.
    """
    with query.open_run(path) as run:
        if not has(run, "prediction_log"):
            return frozenset()
        text = "SELECT subject, statistic, distribution FROM predictions WHERE intact AND NOT known_before"
        return frozenset(run.execute(text).fetchall())


def keys_for(path: Path, circuit: str) -> frozenset[Key]:
    """`registered`, with the circuit's own name where a prediction says `circuit`."""
    return frozenset((circuit if key[0] == CIRCUIT else key[0], *key[1:]) for key in registered(path))


def is_registered(path: Path, prediction: Prediction) -> bool:
    """Whether the log holds this very prediction."""
    with query.open_run(path) as run:
        if not has(run, "prediction_log"):
            return False
        text = """SELECT count(*) FROM predictions
            WHERE subject = $subject AND statistic = $statistic AND direction = $direction
                AND threshold = $threshold AND distribution = $distribution AND role = $role AND circuit = $circuit"""
        names = ("subject", "statistic", "direction", "threshold", "distribution", "role", "circuit")
        return bool(run.execute(text, {name: getattr(prediction, name) for name in names}).fetchall()[0][0])


def has(run: Connection, table: str) -> bool:
    """Whether the run has a table."""
    text = "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?"
    return bool(run.execute(text, [table]).fetchall()[0][0])
