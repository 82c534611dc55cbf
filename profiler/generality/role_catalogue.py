"""The role catalogue: measured roles of components, shown and predicted where the components turn up again. No torch.

Why: a head that moves names in one circuit should not be discovered again in the next; it should be predicted there,
and the prediction should be able to fail (Merullo et al. 2024 found 78 % of the heads of one circuit in another).
Whatever a check measured of a role is stored (table role_catalogue). Before a circuit is checked, `expect` looks its
members up. For each role that held it registers that the role holds on more than the threshold `role_share` of the
component's importance on the new circuit's own prompts, and for each that was refuted that it does not;
`store.resolve` scores it after the check.

Prompts differ from circuit to circuit, so the number is new although the component is known; the corpus is the same,
and what was measured on it is not predicted again. Cost: milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.circuits.circuit import Circuit
from profiler.circuits.positions import position_role
from profiler.database import query
from profiler.generality import store
from profiler.generality.evidence.claims import claim_of
from profiler.generality.evidence.predictions import Prediction
from profiler.generality.evidence.thresholds import DEFAULT, Thresholds

ORIGIN = "role catalogue"


@dataclass(frozen=True)
class CatalogueEntry:
    """A measured role of a component, from an earlier check.

    Attributes:
        component, role: of the catalogue.
        circuit: whose check measured it.
        distribution: widest distribution it was measured on.
        coverage, lo, hi: share of its importance there, with 95 % interval.
        n, unit: examples.
        speaks: for, against or undecided.
    """

    component: str
    role: str
    circuit: str
    distribution: str
    coverage: float
    lo: float | None
    hi: float | None
    n: int
    unit: str
    speaks: str

    def __str__(self) -> str:
        """In one line, for the terminal."""
        word = {"for": "held", "against": "did not hold"}.get(self.speaks, "was left undecided")
        return (
            f"{self.component} as “{self.role}” {word} in {self.circuit}: on {self.coverage:.0%} of its importance on"
            f" {self.distribution}"
        )


def known(path: Path, components: Sequence[str], circuit: str = "") -> tuple[CatalogueEntry, ...]:
    """Entries of some components from circuits other than `circuit`, one per component and role.

    Of several measurements the one on the most examples is taken.
    """
    with query.open_run(path) as run:
        if not store.has(run, "role_catalogue"):
            return ()
        text = """SELECT component, role, circuit, distribution, coverage, lo, hi, n, unit, speaks FROM role_catalogue
            WHERE list_contains($components, component) AND circuit <> $circuit
                AND speaks IN ('for', 'against', 'undecided')
            QUALIFY row_number() OVER (PARTITION BY component, role, circuit ORDER BY n DESC, distribution) = 1
            ORDER BY component, role, circuit"""
        rows = run.execute(text, {"components": list(components), "circuit": circuit}).fetchall()
    return tuple(CatalogueEntry(*row) for row in rows)


def expectations(
    entries: Sequence[CatalogueEntry], circuit: Circuit, distribution: str, thresholds: Thresholds = DEFAULT
) -> tuple[Prediction, ...]:
    """Predictions for members whose role was decided elsewhere and is claimed again.

    A role can only be tested where it is claimed: an entry whose role the new circuit does not claim of the component,
    in whatever words, is shown and not predicted.
    """
    claimed = {member.component: member.role for member in circuit.members}
    made: dict[tuple[str, str], Prediction] = {}
    for entry in entries:
        role = claimed.get(entry.component, "")
        if entry.speaks == "undecided" or not same(entry.role, role, entry.component):
            continue
        holds = entry.speaks == "for"
        said = (
            f"{entry.component} {'is' if holds else 'is not'} {role} on {distribution} of {circuit.name}, as in"
            f" {entry.circuit}"
        )
        made.setdefault(
            (entry.component, role),
            Prediction(
                said,
                entry.component,
                "coverage",
                ">" if holds else "<",
                thresholds.role_share,
                distribution,
                role,
                circuit.name,
                ORIGIN,
            ),
        )
    return tuple(made.values())


def same(first: str, second: str, component: str) -> bool:
    """Whether two roles' words make the same claim, or name the same positions of prompts."""
    if position_role(first) or position_role(second):
        return position_role(first) == position_role(second)
    mine, other = claim_of(first, component), claim_of(second, component)
    return bool(first and second) and (first == second or (mine is not None and mine == other))


@dataclass(frozen=True)
class CatalogueExpectation:
    """The catalogue's entries of a circuit's members, and how many predictions were registered from them."""

    known: tuple[CatalogueEntry, ...]
    registered: int


def expect(path: Path, circuit: Circuit, distribution: str, thresholds: Thresholds = DEFAULT) -> CatalogueExpectation:
    """Look a circuit's members up, and register what they are expected to do on its distribution of prompts.

    Predictions of which the same was registered before are not registered again.

    Raises:
        RunError: the run cannot be written.
        PredictionError: the log of predictions is no longer intact.
    """
    entries = known(path, circuit.components, circuit.name)
    wanted = expectations(entries, circuit, distribution, thresholds)
    fresh = [prediction for prediction in wanted if not store.is_registered(path, prediction)]
    if fresh:
        store.register(path, fresh)
    return CatalogueExpectation(entries, len(fresh))


def agreement(entries: Sequence[CatalogueEntry], circuit: Circuit) -> tuple[int, int]:
    """How many members have their catalogued role again, and how many have both a catalogued and a claimed role."""
    roles = {member.component: member.role for member in circuit.members if member.role}
    holding = {entry.component: entry.role for entry in entries if entry.speaks == "for" and entry.component in roles}
    return sum(same(role, roles[component], component) for component, role in holding.items()), len(holding)
