"""Published circuits that come with the package, and what was published about them. No torch.

Why: whoever has the weights can check a circuit that everybody cites, and see the published numbers beside the check's
own. The circuits are YAML in the form of profiler.circuits.yaml_files; the numbers stand in numbers.yaml with their
source, and with the name of the same quantity in a check where there is one. Expect differences: prompts, values put in
and positions are not those of the papers (Miller et al. 2024). Cost: none.
"""

from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path

import yaml

from profiler.circuits import yaml_files
from profiler.circuits.circuit import Circuit


@dataclass(frozen=True)
class PublishedNumber:
    """One published number.

    Attributes:
        circuit: name of the circuit.
        what: what it is, in words.
        value, unit: the number.
        source: where it was published.
        technique, statistic, distribution, subject: the same quantity in a check; empty where there is none.
    """

    circuit: str
    what: str
    value: float
    unit: str
    source: str
    technique: str = ""
    statistic: str = ""
    distribution: str = ""
    subject: str = ""


def _folder() -> Path:
    return Path(str(resources("profiler.generality"))) / "published"


def names() -> list[str]:
    """Names of the published circuits, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.yaml") if path.stem != "numbers")


def path_of(name: str) -> Path | None:
    """The file of a published circuit; None where there is none of this name."""
    return _folder() / f"{name}.yaml" if name in names() else None


def circuits() -> tuple[Circuit, ...]:
    """All published circuits."""
    return tuple(yaml_files.read(_folder() / f"{name}.yaml") for name in names())


def numbers(circuit: str) -> tuple[PublishedNumber, ...]:
    """Published numbers of a circuit; empty where nothing is known."""
    if circuit not in names():
        return ()
    rows = yaml.safe_load((_folder() / "numbers.yaml").read_text(encoding="utf-8"))
    return tuple(PublishedNumber(**row | {"value": float(row["value"])}) for row in rows if row["circuit"] == circuit)
