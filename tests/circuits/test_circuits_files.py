"""Circuits as YAML: what is written is read, what is wrong is named."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from profiler.circuits import circuit, yaml_files
from profiler.circuits.circuit import Circuit, Edge, Member, Scope
from profiler.errors import CircuitError

FULL = Circuit(
    "ioi-abc",
    "bundled",
    (
        Member("L2H3", "name mover", "all", "OR-like", ("abc", "swapped")),
        Member("L0_mlp_out"),
        Member("L1N5", positions="end"),
    ),
    Scope("ioi", "48 pairs, train, seed 0", ("abc",), ("length",), ("order: ABBA 48",)),
    (Edge("L2H3", "logits"), Edge("embed", "L2H3.q")),
)

SIZES = SimpleNamespace(
    n_layers=4,
    n_heads=8,
    d_mlp=64,
    heads=lambda _: 8,
    neurons=lambda _: 64,
    has_mlp=lambda _: True,
    units=lambda _site, _layer: 0,
    n_experts=lambda _: 0,
)


def test_a_circuit_comes_back_as_it_was(tmp_path: Path) -> None:
    yaml_files.write(tmp_path / "c.yaml", FULL)
    assert yaml_files.read(tmp_path / "c.yaml") == FULL
    assert FULL.components == ("L2H3", "L0_mlp_out", "L1N5")
    assert FULL.targets()[2].positions == "end"


def test_labels_alone_are_a_circuit(tmp_path: Path) -> None:
    (tmp_path / "published.yaml").write_text("members: [L9H9, L10H0]\n")
    read = yaml_files.read(tmp_path / "published.yaml")
    assert read.name == "published"
    assert read.components == ("L9H9", "L10H0")
    assert read.scope.prompts == "not stated"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("members: [", "is no YAML"),
        ("- L0H0", "no mapping"),
        ("name: x", "needs members"),
        ("members: []", "needs members"),
        ("members: L0H0", "must be a list"),
        ("members: [L0H0, H9]", "component 'H9' cannot be read"),
        ("members: [L0H0, L0H0]", "L0H0 is listed twice"),
        ("members: [L0H0]\nnose: 1", "unknown nose"),
        ("members: [{component: L0H0, nose: 1}]", "unknown nose"),
        ("members: [{role: x}]", "component '' cannot be read"),
        ("members: [L0H0]\nedges: [{writer: L0H0}]", "writer and reader"),
        ("members: [L0H0]\nscope: {nose: 1}", "scope has unknown nose"),
        ("members: [3]", "no mapping"),
        ("members: [L0H0]\nedges: [x]", "no mapping"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CircuitError, match=message):
        yaml_files.read(tmp_path / "c.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match="cannot be read"):
        yaml_files.read(tmp_path / "gone.yaml")


@pytest.mark.parametrize("label", ["L4H0", "L0H8", "L0N64", "L9_mlp_out", "L0_attn_out", "L0H1.q"])
def test_unknown_components_are_named(label: str) -> None:
    with pytest.raises(CircuitError, match=label):
        circuit.check_circuit(Circuit("c", "m", (Member(label),), FULL.scope), SIZES)


def test_edges_end_in_members() -> None:
    circuit.check_circuit(FULL, SIZES)
    with pytest.raises(CircuitError, match="L3H3, which is no member"):
        circuit.check_circuit(Circuit("c", "m", FULL.members, FULL.scope, (Edge("L2H3", "L3H3.v"),)), SIZES)
