"""Circuits as YAML, so that they can be read, corrected, and published ones be checked.

    name: ioi-small
    model: gpt2
    members:
      - {component: L9H9, role: name mover}
    scope: {task: ioi, prompts: 100 of the paper's templates, schemes: [abc]}

Members may be bare labels: `members: [L9H9, L10H0]`. A member with `positions: S2` belongs to the circuit at that role
of the pairs alone, and may be listed again at another one; neurons (L3N17) and MLPs (L2_mlp_out) are members like
heads. `scope.outside` (resample, mean, zero) is what everything else writes, `scope.intact` what is never taken away:
without MLPs in it, every MLP that is not listed is. Cost: none; nothing of the file is executed.
"""

import reprlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from profiler.circuits.circuit import Circuit, Edge, Member, Scope
from profiler.errors import CircuitError, PatchError
from profiler.patching.sites import parse_target

SHORT = reprlib.Repr()
SHORT.maxlevel = SHORT.maxlist = SHORT.maxdict = SHORT.maxset = SHORT.maxtuple = 3
REQUIRED_SCOPE = {"task": "own", "prompts": "not stated", "schemes": []}


def write(path: str | Path, circuit: Circuit) -> None:
    """Write a circuit."""
    Path(path).write_text(text_of(circuit), encoding="utf-8")


def text_of(circuit: Circuit) -> str:
    """The YAML of a circuit."""
    members = [
        {k: v for k, v in _plain(asdict(member)).items() if v not in ("", [], "all")} for member in circuit.members
    ]
    value = {
        "name": circuit.name,
        "model": circuit.model,
        "members": members,
        "edges": [{"writer": e.writer, "reader": e.reader} for e in circuit.edges],
        "scope": _plain(asdict(circuit.scope)),
    }
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))


def read(path: str | Path) -> Circuit:
    """The circuit of a file.

    Raises:
        CircuitError: the file cannot be read, or is no circuit; the field or component is named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CircuitError(f"the circuit file {path} cannot be read ({error}): check the path") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> Circuit:
    """The circuit of a text, such as a run keeps; `where` names it in errors.

    Raises:
        CircuitError: it is no YAML, or no circuit.
    """
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date or number that there is not
        raise CircuitError(f"the circuit file {where} is no YAML ({' '.join(str(error).split())[:300]})") from None
    return circuit_of(value, where)


def circuit_of(value: Any, where: str) -> Circuit:
    """The circuit of a YAML value; `where` names it in errors.

    Raises:
        CircuitError: a field is missing, unknown, or of the wrong form, or a component label cannot be read.
    """
    value = _mapping(value, where)
    _only(value, [field.name for field in fields(Circuit)], where)
    if not value.get("members"):
        raise CircuitError(f"{where}: a circuit needs members: list labels such as L9H9 under `members`")
    members = tuple(_member(member, where) for member in _list(value["members"], f"{where}: members"))
    seen = [(member.component, member.positions) for member in members]
    twice = next(
        (label for label, at in seen if seen.count((label, at)) > 1 or (at != "all" and (label, "all") in seen)), None
    )
    if twice:
        raise CircuitError(f"{where}: component {twice} is listed twice: list it once, or at different positions")
    edges = tuple(_edge(edge, where) for edge in _list(value.get("edges") or [], f"{where}: edges"))
    name, model = _text(value.get("name", Path(where).stem), where), _text(value.get("model", ""), where)
    return Circuit(name, model, members, _scope(value.get("scope") or {}, where), edges)


def _member(value: Any, where: str) -> Member:
    value = {"component": value} if isinstance(value, str) else _mapping(value, f"{where}: member {_shown(value)}")
    _only(value, [field.name for field in fields(Member)], f"{where}: member {_shown(value.get('component'))}")
    label = _text(value.get("component", ""), where)
    try:
        parse_target(label)
    except (PatchError, ValueError):  # ValueError: more digits than Python reads
        raise CircuitError(
            f"{where}: component {_shown(label)} cannot be read: write L9H9, L3N17 or L2_mlp_out"
        ) from None
    schemes = tuple(_text(scheme, where) for scheme in _list(value.get("schemes") or [], where))
    role, positions, gate = (
        _text(value.get(n, d), where) for n, d in (("role", ""), ("positions", "all"), ("gate", ""))
    )
    return Member(label, role, positions, gate, schemes)


def _edge(value: Any, where: str) -> Edge:
    value = _mapping(value, f"{where}: edge {_shown(value)}")
    if set(value) != {"writer", "reader"}:
        raise CircuitError(f"{where}: edge {_shown(value)} must have writer and reader, such as L0H1 and L1H0.k")
    return Edge(_text(value["writer"], where), _text(value["reader"], where))


def _scope(value: Any, where: str) -> Scope:
    value = REQUIRED_SCOPE | _mapping(value, f"{where}: scope")
    _only(value, [field.name for field in fields(Scope)], f"{where}: scope")
    text: dict[str, Any] = {
        k: tuple(_text(entry, where) for entry in v) if isinstance(v, list) else _text(v, where)
        for k, v in value.items()
    }
    return Scope(**text)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise CircuitError(f"{where} is no mapping of names to values: see the form in the documentation of circuits")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise CircuitError(f"{where} must be a list, not {_shown(value)}")
    return value


def _text(value: Any, where: str) -> str:
    """A name or a number as text."""
    if isinstance(value, list | dict | set | tuple):
        raise CircuitError(f"{where}: {_shown(value)} must be text")
    return str(value)


def _shown(value: Any) -> str:
    """The beginning of a value, also of a list that contains itself."""
    return SHORT.repr(value)[:100]


def _only(value: dict[str, Any], known: list[str], where: str) -> None:
    unknown = [name for name in value if name not in known]
    if unknown:
        raise CircuitError(
            f"{where} has unknown {', '.join(name[:60] for name in unknown)}: it may have {', '.join(known)}"
        )


def _plain(value: Any) -> Any:
    """Tuples as lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
