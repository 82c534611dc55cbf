"""Patch and check the models of known circuit, and set what comes out beside the truth (`profiler circuits truth`).

Each model is built, patched on its discovery pairs, and its circuit (or the one that is claimed) is checked on the
wider distributions; all in float64, so that rounding decides nothing. Cost: seconds a model of 8 heads, see
docs/truth.md.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from profiler import actions
from profiler.circuits.circuit import INPUT, Circuit, Member, Scope
from profiler.circuits.positions import position_role
from profiler.config import ModelSettings, RunConfig
from profiler.errors import CircuitError, ProfilerError
from profiler.model.load import Model, load_model
from profiler.results import CheckResult, PatchResult
from profiler.truth.circuit import DISCOVERY_PROMPTS, SIZES, ModelSize, TrueCircuit
from profiler.truth.directory import HandBuilt, build
from profiler.truth.models import hand_models
from profiler.truth.tables import REFUSED, SCORES, VERDICTS, TruthResult

Row = dict[str, Any]
FEWEST_PAIRS = 4
"""As few as `patch` takes."""


@dataclass(frozen=True)
class TruthSettings:
    """Which models of known circuit are asked, and how much is spent on each.

    Attributes:
        models: names; empty for all.
        sizes: names of sizes.
        seeds: how many seeds; each draws other weights, tokens and pairs.
        pairs: of each distribution.
        patch_draws, check_draws: random circuits of patch and of check.
        neurons, top, steps: as in PatchSettings; they decide no member and no word.
        tokens: tokens of the model's corpus that are recorded first; 0 for no corpus.
        given: check the true circuit instead of the one that patch finds, to tell faults of the one from the other's.
    """

    models: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ("small",)
    seeds: int = 1
    pairs: int = 48
    patch_draws: int = 19
    check_draws: int = 39
    neurons: int = 4
    top: int = 2
    steps: int = 2
    tokens: int = 0
    given: bool = False

    def chosen_sizes(self) -> list[ModelSize]:
        """The sizes by name.

        Raises:
            CircuitError: there is no such size, or a number is too small.
        """
        known = {size.name: size for size in SIZES}
        unknown = [name for name in self.sizes if name not in known]
        if unknown:
            raise CircuitError(f"there is no size {unknown[0]!r}: choose {', '.join(known)}")
        if self.seeds < 1 or self.pairs < FEWEST_PAIRS:
            raise CircuitError(f"seeds {self.seeds} and pairs {self.pairs}: give 1 or more, and {FEWEST_PAIRS} or more")
        return [known[name] for name in self.sizes]


def ask(
    settings: TruthSettings, out: Path | None = None, report: Callable[[Row], None] = lambda _: None
) -> TruthResult:
    """Patch and check every model at every size and seed.

    Args:
        out: a folder that keeps models, pairs and runs; None for none.
        report: told each row of the table of verdicts as it is known.

    Raises:
        CircuitError: there is no such model or size.
    """
    verdicts, scores = [], []
    with TemporaryDirectory() if out is None else nullcontext(str(out)) as folder:
        for built in _built(settings, Path(folder)):
            row, of_heads = _answer(built, settings)
            report(row)
            verdicts.append(row)
            scores += of_heads
    return TruthResult(pl.DataFrame(verdicts, VERDICTS), pl.DataFrame(scores, SCORES))


def _built(settings: TruthSettings, folder: Path) -> Iterator[HandBuilt]:
    """Each model on disk; everything is refused before the first is made."""
    models, sizes = hand_models(settings.models), settings.chosen_sizes()
    for size in sizes:
        for model in models:
            for seed in range(settings.seeds):
                yield build(model, folder / f"{model.name}-{size.name}-{seed}", size, seed, settings.pairs)


def _answer(built: HandBuilt, settings: TruthSettings) -> tuple[Row, list[Row]]:
    """The row of one model, and a row for each of its heads."""
    truth = built.truth
    named = {"model": truth.name, "size": built.size.name, "seed": built.seed}
    row = named | {"heads": built.heads, "members": list(truth.members), "true_word": truth.word}
    began = time.perf_counter()
    try:
        loaded, run = load_model(ModelSettings(model=str(built.folder), dtype="float64")), built.folder / "run.duckdb"
        run.unlink(missing_ok=True)
        _record(built, settings, loaded, run)
        patched = _patch(built, settings, loaded, run)
        patched_at = time.perf_counter()
        checked = _check(built, settings, loaded, run, patched)
    except ProfilerError as error:
        return row | {"chosen": None, "word": REFUSED, "sentence": str(error)}, []
    row |= {
        "chosen": None if truth.claimed or settings.given else list(patched.circuit.components),
        "roles": [f"{member.component}: {member.role}" for member in patched.circuit.members],
        "word": checked.word,
        "sentence": checked.verdict.sentence,
        "patch_seconds": patched_at - began,
        "check_seconds": time.perf_counter() - patched_at,
        **_roles(built, patched.circuit),
        **_edges(built, patched.circuit),
    }
    scores = [
        named | {"component": component, "score": score, "is_member": component in truth.members}
        for component, score in _scores(patched)
    ]
    return row, scores


def _record(built: HandBuilt, settings: TruthSettings, model: Model, run: Path) -> None:
    """The run of the model's corpus, where one is asked for."""
    if settings.tokens:
        config = RunConfig(
            model=str(built.folder), corpora=(str(built.corpus),), dtype="float64", tokens=settings.tokens
        )
        actions.record(config, run, model=model)


def _patch(built: HandBuilt, settings: TruthSettings, model: Model, run: Path) -> PatchResult:
    """The circuit that patching finds; one that is claimed or given is only judged."""
    truth, judged = built.truth, None
    stated = truth.claimed or (_with_roles(truth) if settings.given else ())
    if stated:
        scope = Scope(truth.name, "stated", ("own",), intact="embedding, biases, MLPs")
        members = tuple(Member(label, role) for label, role in stated)
        judged = Circuit("claimed" if truth.claimed else "true", model.spec.name, members, scope)
    return actions.patch(
        run,
        built.pairs_file(DISCOVERY_PROMPTS),
        circuit=judged,
        model=model,
        draws=settings.patch_draws,
        neurons=settings.neurons,
        top=settings.top,
        steps=settings.steps,
    )


def _with_roles(truth: TrueCircuit) -> tuple[tuple[str, str], ...]:
    """Members with their roles, where they have any."""
    roles = dict(truth.roles)
    return tuple((label, roles.get(label, "")) for label in truth.members)


def _check(built: HandBuilt, settings: TruthSettings, model: Model, run: Path, patched: PatchResult) -> CheckResult:
    """The check of that circuit on the wider distributions."""
    wider = [prompts.name for prompts in built.prompts if prompts.name != DISCOVERY_PROMPTS]
    return actions.check(
        run,
        patched.circuit.name,
        model=model,
        reread=True,
        tokens=settings.tokens or 1,
        distributions=[f"{name}={built.pairs_file(name)}" for name in wider],
        pairs=max(settings.pairs, actions.LEAST_OF_CHECK["pairs"]),
        draws=settings.check_draws,
    )


def _scores(patched: PatchResult) -> list[tuple[str, float]]:
    """Each head's score as `choose` ranks them: the larger of what it recovers and what its loss costs, in size."""
    gates = patched.frames["patch_gates"].filter(
        (pl.col("positions") == "all") & pl.col("component").str.contains(r"^L\d+H\d+$")
    )
    larger = pl.max_horizontal(pl.col("recovered_denoise").abs(), pl.col("lost_noise").abs())
    return gates.select("component", larger.alias("score")).rows()


def _roles(built: HandBuilt, circuit: Circuit) -> dict[str, int]:
    """Roles that name positions: how many were read off the pairs, and how many of these are true."""
    true = {component: position_role(role) for component, role in built.truth.roles}
    named = {member.component: position_role(member.role) for member in circuit.members}
    read = {component: role for component, role in named.items() if role is not None}
    right = sum(true.get(component) == role for component, role in read.items())
    return {"roles_right": right, "roles_read": len(read)}


def _edges(built: HandBuilt, circuit: Circuit) -> dict[str, int]:
    """Edges between heads and to the logits: how many are right, chosen and true."""
    among_heads = [edge for edge in circuit.edges if edge.writer != INPUT and "mlp" not in edge.writer + edge.reader]
    chosen, true = {(edge.writer, edge.reader) for edge in among_heads}, set(built.truth.edges)
    return {"edges_right": len(chosen & true), "edges_chosen": len(chosen), "edges_true": len(true)}
