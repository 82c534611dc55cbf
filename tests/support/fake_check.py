"""Two checks in a small run, with every kind of row that a check can have: for tests of storage, queries and the
report.

Run as a script it writes a file to look at: `python tests/support/fake_check.py fake.duckdb`.
"""

import sys
from collections.abc import Sequence
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import fake_run
import numpy as np
import planted_claims as planted

from profiler.circuits.circuit import Circuit, Member, Scope
from profiler.generality import store
from profiler.generality.evidence.distributions import CrossTask, Distribution
from profiler.generality.evidence.finding import CausalChoices, Finding, Question
from profiler.generality.evidence.predictions import Prediction
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds
from profiler.generality.evidence.verdict import judge

NASTY = "</script><b>&\u202e «x» it's"
PLACED, UNDONE = "at end attends to S2 (90%)", "coverage where the model does not do the task"
PROMPTS = ("discovery", "names", "templates", "natural text")
DISTRIBUTIONS = (
    *(Distribution(name, i, "prompts", f"{name} & such", 48, 800) for i, name in enumerate(PROMPTS)),
    Distribution("repeats", 4, "repeats", "random tokens twice", 48, 2000),
    Distribution("domain: code", 5, "corpus", "all code", 0, 30_000, 60),
    Distribution("domain: prose", 6, "corpus", "all prose", 0, 20_000, 40),
    Distribution("corpus", 7, "corpus", "the whole corpus", 0, 50_000, 100),
    Distribution("lower case", 8, "prompts", "small letters", 3, 40, refused="3 prompts; 20 are needed"),
)


def row(name: str, **fields: Any) -> Any:
    """A detail row as the module that measures it would make it: a dataclass of this name and these fields."""
    return make_dataclass(name, fields, frozen=True)(**fields)


def circuit(name: str, members: Sequence[tuple[str, str]]) -> Circuit:
    """A circuit of some heads with their roles."""
    return Circuit(name, "m", tuple(Member(*one) for one in members), Scope("ioi", "48 pairs", ("abc",)))


def findings(case: planted.Planted, name: str, members: Sequence[tuple[str, str]], seed: int = 1) -> list[Finding]:
    """A planted case about members of a model of two layers and two heads, with what else a check has."""
    labels = dict(zip(("L0H1", "L1H0", "L1H4"), (label for label, _ in members), strict=False))
    roles = dict(members)
    made = []
    for one in case(np.random.default_rng(seed)):
        subject = labels.get(one.subject, name)
        choices = CausalChoices("node", "head", "resample", "all", "noise outside", one.distribution)
        made.append(replace(one, subject=subject, role=roles.get(subject, "") and one.role, choices=choices))
    refused = Question(name, "", "faithfulness", "lower case", "prompts")
    return [
        *made,
        *_of_circuit(name),
        *_of_member(*members[0]),
        refused.refused("faithfulness", 3, "3 prompts; 20 are needed"),
    ]


def _of_circuit(name: str) -> list[Finding]:
    """Findings about a whole circuit that no planted case has."""
    return [
        Finding(name, "", "necessity", "discovery", "necessity", 0.8, 0.7, 0.9, 48, "prompts", 0.1, 0.2, 0.01),
        Finding(name, "", "necessity", "names", "necessity", 0.7, 0.6, 0.8, 48, "prompts", 0.1, 0.2, 0.01),
        Finding(name, "", "trend", "distributions", "slope", -0.01, -0.04, 0.02, 192, "prompts"),
    ]


def _of_member(label: str, role: str) -> list[Finding]:
    """Findings about a member that no planted case has: its mixture, its role at a position, what is tried on it."""
    data = ("data corpus",)
    return [
        *(
            Finding(label, role, "mixture", "corpus", f"share: {part}", *estimate, 900, "positions")
            for part, *estimate in (
                ("induction", 0.7, 0.6, 0.8),
                ("previous_token", 0.1, 0.05, 0.15),
                ("unexplained", 0.2, 0.1, 0.3),
            )
        ),
        Finding(label, PLACED, "coverage", "templates", UNDONE, 0.2, 0.1, 0.3, 48, "prompts", 0.1),
        *(
            Finding(label, PLACED, "mixture", "templates", f"share: {part}", *estimate, 48, "prompts")
            for part, *estimate in (
                ("attends to S1", 0.7, 0.6, 0.8),
                ("attends to the first token", 0.05, 0.0, 0.1),
            )
        ),
        replace(
            Finding(label, "S-inhibition", "coverage", "corpus", "coverage", 0.3, 0.2, 0.4, 900, "positions", 0.1),
            general_form_of=PLACED,
        ),
        replace(
            Finding(
                label, role, "replacement", "corpus", "explained", 0.75, 0.65, 0.85, 100, "documents", 0.2, 0.4, 0.01
            ),
            shares=data,
        ),
        replace(
            Finding(label, role, "edits", "corpus", "success rate", 0.8, 0.7, 0.9, 60, "documents", 0.05, None, 0.001),
            shares=data,
        ),
        Finding(label, role, "weights", "weights", "matching", 0.9, None, None, 1, "components", 0.1, 0.3, 0.02),
    ]


def details(name: str, label: str, role: str, position: int) -> list[Any]:
    """One or two rows of each kind."""
    whose = {"component": label, "role": role}
    return [
        CrossTask(name, "ioi", "faithfulness", 0.9, 0.8, 1.0, 48),
        CrossTask(name, "docstring", "faithfulness", 0.1, 0.0, 0.2, 48),
        *_replacements(whose),
        row("WeightScore", component=label, score="matching", value=0.9, **NULL_OF_WEIGHTS),
        *_counter_examples(whose, position),
        *_edits(whose),
        *(store.UsedExample("discovery", f"p{i}") for i in range(4)),
        *(store.UsedExample("names", f"p{i}") for i in range(3, 7)),
    ]


NULL_OF_WEIGHTS = {"null_mean": 0.1, "null_sd": 0.2, "rank": 1, "ignored_share": 0.3}


def _replacements(whose: dict[str, str]) -> list[Any]:
    """A member replaced by its rule: at all positions, and where it is most active."""
    same = whose | {"rule": "induction", "percentile_hi": 100.0, "measure": "KL"}
    everywhere = {"d_replaced": 0.1, "d_ablated": 0.4, "explained": 0.75, "lo": 0.65, "hi": 0.85, "n": 5000}
    at_top = {"d_replaced": 0.4, "d_ablated": 4.0, "explained": 0.9, "lo": 0.8, "hi": 0.95, "n": 50}
    return [
        row("Replacement", **same, **everywhere, percentile_lo=0.0, null_explained=0.2),
        row("Replacement", **same, **at_top, percentile_lo=99.0, null_explained=0.3),
    ]


def _counter_examples(whose: dict[str, str], position: int) -> list[Any]:
    """A position where a member is silent, in a text that tries to escape, and one where it is active."""
    same = whose | {"token": "x", "next_token": " y", "rank": 1}
    escaping = {"document": f"d{NASTY}", "context": f"before {NASTY[:12]}«x»{NASTY} after"}
    plain = {"document": "d", "context": ""}
    return [
        row("CounterExample", **same, **escaping, kind="silent", position_id=None, importance=0.8, activation=1.2),
        row("CounterExample", **same, **plain, kind="stray", position_id=position, importance=0.5, activation=0.2),
    ]


def _edits(whose: dict[str, str]) -> list[Any]:
    """Two edits of texts and what they change."""
    same = whose | {"operation": "remove the copy", "distribution": "corpus"}
    return [
        row("Edit", **same, before=NASTY, after="«b»", position=7, shift=0.6, control_shift=0.01),
        row("Edit", **same, before="c", after="d", position=9, shift=0.4, control_shift=0.03),
    ]


MEMBERS = (("L0H1", "induction"), ("L1H0", "induction"))


def write(
    path: Path,
    name: str = "planted",
    case: planted.Planted = planted.generalises,
    members: Sequence[tuple[str, str]] = MEMBERS,
    seed: int = 1,
    thresholds: Thresholds = DEFAULT,
) -> list[Finding]:
    """Check a planted case and store it."""
    with duckdb.connect(str(path), read_only=True) as shell:
        position = shell.execute("SELECT min(position_id) FROM contexts").fetchall()[0][0]
    found = findings(case, name, members, seed)
    names = [distribution.name for distribution in DISTRIBUTIONS]
    verdict = judge(found, names, store.keys_for(path, name), thresholds)
    extra = details(name, *members[0], position)
    store.write(
        path,
        name,
        circuit=circuit(name, members),
        findings=found,
        distributions=DISTRIBUTIONS,
        verdict=verdict,
        details=extra,
        settings={"seed": seed},
        thresholds=thresholds,
        seconds=1.5,
    )
    return found


PREDICTIONS = (
    Prediction("it survives other names", "circuit", "faithfulness", ">", 0.7, "names"),
    Prediction("L0H1 does induction in code", "L0H1", "coverage", ">", 0.5, "domain: code", role="induction"),
    Prediction(f"it fails elsewhere {NASTY}", "planted", "faithfulness", "<", 0.3, "templates"),
    Prediction("nobody asks this", "L1H1", "coverage", ">", 0.9, "corpus"),
)


def build(path: Path) -> Path:
    """A run with two checks, three scored predictions and an open one."""
    fake_run.build(path)
    store.register(path, PREDICTIONS)
    write(path, "narrow", planted.narrow)
    write(path)
    store.resolve(path)
    return path


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "fake.duckdb")))


def rows(path: Path, text: str) -> list[tuple]:
    """What a statement gives on a run that may be written."""
    with duckdb.connect(str(path)) as shell:
        return shell.execute(text).fetchall()
