"""Patch and check the models of known circuit, and set what comes out beside the truth (`profiler circuits truth`).

Each model is built, patched on its discovery pairs, and its circuit (or the one that is claimed) is checked on the
wider distributions; all in float64, so that rounding decides nothing. By default only what decides members and word is
computed (decide.py); `whole` runs the commands as a user would, into a run file. Answers can be kept in a file, and
what stands in it is not asked again. Cost: a second or two a model of 8 heads, see docs/truth.md.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from profiler import actions
from profiler.circuits.circuit import INPUT, Circuit, Member, Scope
from profiler.circuits.positions import position_role
from profiler.config import ModelSettings, RunConfig
from profiler.errors import CircuitError, ProfilerError
from profiler.generality.distributions.subject import CheckSettings
from profiler.generality.evidence.verdict import Verdict
from profiler.model.load import Model, load_model
from profiler.model.steps.as_network import network_of_direct_heads
from profiler.results import CheckResult, PatchResult
from profiler.truth import answer_file, decide
from profiler.truth.answer_file import Answer, Row
from profiler.truth.circuit import DISCOVERY_PROMPTS, SIZES, ModelSize, TrueCircuit
from profiler.truth.directory import HandBuilt, build
from profiler.truth.models import hand_models
from profiler.truth.tables import REFUSED, TruthResult

RUN_FILE = "run.duckdb"
FEWEST_PAIRS = 4
"""As few as `patch` takes."""


@dataclass(frozen=True)
class TruthSettings:
    """Which models of known circuit are asked, and how much is spent on each.

    Attributes:
        models: names; empty for all.
        sizes: names of sizes.
        seeds: how many seeds; each draws other weights, tokens and pairs.
        pairs: of the discovery file, half of which finds the circuit; of each wider distribution half as many.
        patch_draws, check_draws: random circuits of patch and of check.
        neurons, top, steps: as in PatchSettings; they decide no member and no word.
        tokens: tokens of the model's corpus that are recorded first; 0 for no corpus.
        given: check the true circuit instead of the one that patch finds, to tell faults of the one from the other's.
        whole: run patch and check as a user would, with all that they say besides members and word.
    """

    models: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ("small",)
    seeds: int = 1
    pairs: int = 40
    patch_draws: int = 19
    check_draws: int = 20
    neurons: int = 4
    top: int = 2
    steps: int = 2
    tokens: int = 0
    given: bool = False
    whole: bool = False

    @property
    def by_commands(self) -> bool:
        """Whether the commands are run as a whole: asked for, or needed for a corpus."""
        return self.whole or self.tokens > 0

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
    settings: TruthSettings,
    out: Path | None = None,
    report: Callable[[Row], None] = lambda _: None,
    answers: Path | None = None,
    processes: int = 1,
) -> TruthResult:
    """Patch and check every model at every size and seed.

    Args:
        out: a folder that keeps models, pairs and runs; None for none.
        report: told each row of the table of verdicts as it is known.
        answers: a .jsonl file of what was answered before; it is gone on with, and all that stands in it is counted.
        processes: that share the models.

    Raises:
        CircuitError: there is no such model or size, or the file of answers is none.
    """
    known = answer_file.read(answers) if answers is not None else {}
    jobs = [job for job in _jobs(settings, out) if job.key not in known]
    for answer in _answers(jobs, processes):
        known[answer.key] = answer
        report(answer.row)
        if answers is not None:
            answer_file.append(answers, answer)
    return answer_file.result(known.values())


@dataclass(frozen=True)
class _Job:
    """One model at one size and seed; `folder` keeps it, None for none."""

    name: str
    size: ModelSize
    seed: int
    settings: TruthSettings
    folder: Path | None

    @property
    def key(self) -> answer_file.Key:
        """What the answer is filed under."""
        return self.name, self.size.name, self.seed


def _jobs(settings: TruthSettings, out: Path | None) -> list[_Job]:
    """Every model at every size and seed; everything is refused before the first is made."""
    names, sizes = [model.name for model in hand_models(settings.models)], settings.chosen_sizes()
    return [
        _Job(name, size, seed, settings, None if out is None else out / f"{name}-{size.name}-{seed}")
        for size in sizes
        for seed in range(settings.seeds)
        for name in names
    ]


def _answers(jobs: Sequence[_Job], processes: int) -> Iterator[Answer]:
    """The answers as they come."""
    if processes == 1:
        yield from map(_answer_job, jobs)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from pool.map(_answer_job, jobs)


def _answer_job(job: _Job) -> Answer:
    """Build a model and ask it."""
    with TemporaryDirectory() if job.folder is None else nullcontext(str(job.folder)) as folder:
        (model,) = hand_models([job.name])
        return _answer(build(model, Path(folder), job.size, job.seed, job.settings.pairs), job.settings)


@dataclass(frozen=True)
class _Decided:
    """What came out: the circuit, the score of each head, the verdict, and seconds until the circuit and after it."""

    circuit: Circuit
    scores: Sequence[tuple[str, float]]
    verdict: Verdict
    seconds: tuple[float, float]


def _answer(built: HandBuilt, settings: TruthSettings) -> Answer:
    """The row of one model, and the scores of its heads."""
    truth = built.truth
    row = {"model": truth.name, "size": built.size.name, "seed": built.seed}
    row |= {"heads": built.heads, "members": list(truth.members), "true_word": truth.word}
    try:
        loaded = load_model(ModelSettings(model=str(built.folder), dtype="float64"))
        decided = (_by_commands if settings.by_commands else _by_stages)(built, settings, loaded)
    except ProfilerError as error:
        return Answer(row | {"chosen": None, "word": REFUSED, "sentence": str(error)}, ())
    circuit = decided.circuit
    row |= {
        "chosen": None if truth.claimed or settings.given else list(circuit.components),
        "roles": [f"{member.component}: {member.role}" for member in circuit.members],
        "word": decided.verdict.word,
        "sentence": decided.verdict.sentence,
        "patch_seconds": decided.seconds[0],
        "check_seconds": decided.seconds[1],
        **_roles(built, circuit),
        **(_edges(built, circuit) if settings.by_commands else {}),
    }
    scores = tuple((component, score, component in truth.members) for component, score in decided.scores)
    return Answer(row, scores)


def _by_stages(built: HandBuilt, settings: TruthSettings, model: Model) -> _Decided:
    """Only what decides members and word."""
    began = time.perf_counter()
    task = actions.patch_settings(str(built.pairs_file(DISCOVERY_PROMPTS)))
    net = network_of_direct_heads(model)
    decided = decide.decide_circuit(model, net, task, _judged(built, settings, model))
    chosen_at = time.perf_counter()
    wider = CheckSettings(pairs=_check_pairs(settings), draws=settings.check_draws, distributions=tuple(_wider(built)))
    said = decide.decide_word(model, net, decided.circuit, task, wider, built.folder / RUN_FILE)
    return _Decided(decided.circuit, decided.scores, said, (chosen_at - began, time.perf_counter() - chosen_at))


def _by_commands(built: HandBuilt, settings: TruthSettings, model: Model) -> _Decided:
    """The commands as a user would give them, into a run file beside the model."""
    began, run = time.perf_counter(), built.folder / RUN_FILE
    run.unlink(missing_ok=True)
    _record(built, settings, model, run)
    patched = _patch(built, settings, model, run)
    patched_at = time.perf_counter()
    said = _check(built, settings, model, run, patched).verdict
    seconds = patched_at - began, time.perf_counter() - patched_at
    return _Decided(patched.circuit, _scores(patched), said, seconds)


def _record(built: HandBuilt, settings: TruthSettings, model: Model, run: Path) -> None:
    """The run of the model's corpus, where one is asked for."""
    if settings.tokens:
        config = RunConfig(
            model=str(built.folder), corpora=(str(built.corpus),), dtype="float64", tokens=settings.tokens
        )
        actions.record(config, run, model=model)


def _patch(built: HandBuilt, settings: TruthSettings, model: Model, run: Path) -> PatchResult:
    """The circuit that patching finds; one that is claimed or given is only judged."""
    return actions.patch(
        run,
        built.pairs_file(DISCOVERY_PROMPTS),
        circuit=_judged(built, settings, model),
        model=model,
        draws=settings.patch_draws,
        neurons=settings.neurons,
        top=settings.top,
        steps=settings.steps,
    )


def _judged(built: HandBuilt, settings: TruthSettings, model: Model) -> Circuit | None:
    """The circuit that is claimed or given; None where patching finds it."""
    truth = built.truth
    stated = truth.claimed or (_with_roles(truth) if settings.given else ())
    if not stated:
        return None
    scope = Scope(truth.name, "stated", ("own",), intact="embedding, biases, MLPs")
    members = tuple(Member(label, role) for label, role in stated)
    return Circuit("claimed" if truth.claimed else "true", model.spec.name, members, scope)


def _with_roles(truth: TrueCircuit) -> tuple[tuple[str, str], ...]:
    """Members with their roles, where they have any."""
    roles = dict(truth.roles)
    return tuple((label, roles.get(label, "")) for label in truth.members)


def _check(built: HandBuilt, settings: TruthSettings, model: Model, run: Path, patched: PatchResult) -> CheckResult:
    """The check of that circuit on the wider distributions."""
    return actions.check(
        run,
        patched.circuit.name,
        model=model,
        reread=True,
        tokens=settings.tokens or 1,
        distributions=_wider(built),
        pairs=_check_pairs(settings),
        draws=settings.check_draws,
    )


def _wider(built: HandBuilt) -> list[str]:
    """The wider distributions, as a user names them."""
    names = [prompts.name for prompts in built.prompts if prompts.name != DISCOVERY_PROMPTS]
    return [f"{name}={built.pairs_file(name)}" for name in names]


def _check_pairs(settings: TruthSettings) -> int:
    return max(settings.pairs, actions.LEAST_OF_CHECK["pairs"])


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
