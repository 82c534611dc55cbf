"""A circuit as a record: members, edges, and the scope that says what it was found on. No torch.

Why: a list of heads says nothing about where it holds. The scope is part of the circuit: prompts, corruption schemes
and under how many of them each member appears, what was controlled on purpose, and what was controlled by accident.
Cost: none, plain data.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from profiler.errors import CircuitError
from profiler.patching.sites import ModelSizes, Target, parse_target, units_of

INPUT, OUTPUT = "embed", "logits"
OUTSIDE = ("resample", "mean", "zero")
GRANULARITIES = ("node", "edge")


@dataclass(frozen=True)
class Member:
    """A head, neuron or whole MLP (`L2_mlp_out`) of a circuit.

    Attributes:
        component: label.
        role: what it is claimed to do, such as `previous token`; empty where nothing is claimed.
        positions: where it belongs to the circuit: `all`, or a role of the pairs.
        gate: its sufficiency and necessity label.
        schemes: the corruption schemes under which it appears.
    """

    component: str
    role: str = ""
    positions: str = "all"
    gate: str = ""
    schemes: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class Edge:
    """From what `writer` writes to what `reader` reads: L0H1 to L1H0.k, L0_mlp_out to logits, embed to L1H0.v."""

    writer: str
    reader: str


@dataclass(frozen=True)
class Scope:
    """What a circuit was found on, and what that leaves open.

    Attributes:
        task: family of the pairs.
        prompts: how many pairs, of which split, and their seed.
        schemes: every corruption scheme that was tried.
        controlled: what the pairs hold fixed on purpose.
        accidental: what they hold fixed without anybody having asked.
        outside: what is put in for everything outside the circuit: resample, mean or zero.
        intact: what is never taken away: the embedding, and MLPs where only heads were looked at.
        metric: what was measured.
        found_by: how it was chosen.
        granularity: node: members write to everybody. edge: only `edges` carry what their writers write.
    """

    task: str
    prompts: str
    schemes: tuple[str, ...]
    controlled: tuple[str, ...] = ()
    accidental: tuple[str, ...] = ()
    outside: str = "resample"
    intact: str = "embedding, biases, MLPs"
    metric: str = "logit_diff"
    found_by: str = "own"
    granularity: str = "node"


@dataclass(frozen=True)
class Circuit:
    """A circuit of a model. Its `edges` are what it is judged by where its scope's granularity is edge."""

    name: str
    model: str
    members: tuple[Member, ...]
    scope: Scope
    edges: tuple[Edge, ...] = ()

    @property
    def by_edges(self) -> bool:
        """Whether only its edges are live, rather than whatever its members write."""
        return self.scope.granularity == "edge"

    @property
    def components(self) -> tuple[str, ...]:
        """Labels of the members."""
        return tuple(member.component for member in self.members)

    def targets(self) -> tuple[Target, ...]:
        """The members as targets of a patch."""
        return tuple(parse_target(member.component, member.positions) for member in self.members)


def members_of(labels: Iterable[str], schemes: Iterable[str] = ()) -> tuple[Member, ...]:
    """Members without roles."""
    return tuple(Member(label, schemes=tuple(schemes)) for label in labels)


def check_circuit(circuit: Circuit, net: ModelSizes) -> None:
    """Whether a model has every member.

    Raises:
        CircuitError: naming the first member that it lacks, an edge between others than members, or values that
            cannot be put in outside of it.
    """
    if circuit.scope.outside not in OUTSIDE:
        raise CircuitError(
            f"circuit {circuit.name!r}: scope.outside is {circuit.scope.outside!r}: choose {', '.join(OUTSIDE)}"
        )
    if circuit.scope.granularity not in GRANULARITIES or (circuit.by_edges and not circuit.edges):
        raise CircuitError(
            f"circuit {circuit.name!r}: scope.granularity is {circuit.scope.granularity!r} with {len(circuit.edges)}"
            f" edges: choose {', '.join(GRANULARITIES)}, and list `edges` for edge"
        )
    for member in circuit.members:
        target = parse_target(member.component)
        if target.site not in ("head", "neuron", "mlp_out"):
            raise CircuitError(
                f"circuit {circuit.name!r}: {member.component} is no head, neuron or MLP: name one of these"
            )
        if target.layer >= net.n_layers or (target.unit or 0) >= units_of(net, target.site, target.layer):
            raise CircuitError(
                f"circuit {circuit.name!r}: component {member.component} is not in the model, which has"
                f" {net.n_layers} layers of {net.n_heads} heads and {net.d_mlp} neurons, all counted from 0: correct"
                " it, or give the model it is of"
            )
    known = {*circuit.components, INPUT, OUTPUT}
    for edge in circuit.edges:
        ends = (edge.writer, edge.reader.split(".")[0])
        lost = [end for end in ends if end not in known]
        if lost:
            raise CircuitError(
                f"circuit {circuit.name!r}: edge {edge.writer} to {edge.reader} ends in {lost[0]}, which is "
                "no member: add it to the members, or drop the edge"
            )
