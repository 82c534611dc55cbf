"""What the library does with a model: record a run, patch and check its circuits, compute attention again.

Every function here is one command of the command line, and one method of `profiler.run.Run` where it is about a run.
What is loaded or executed comes from the call alone: a run's own word for its model is followed only where
`profiler.model.of_run` says that it is safe, its corpus and pair files are read again only where the call says so.

Importing this module loads torch; `profiler.run` imports it when one of these methods is called.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import polars as pl
from duckdb import DuckDBPyConnection as Connection

from profiler.circuits import experiment, yaml_files
from profiler.circuits.circuit import Circuit
from profiler.circuits.duration import stages
from profiler.config import ModelChoice, RunConfig
from profiler.database import query
from profiler.effects.measure import STAGES as EFFECT_STAGES
from profiler.effects.measure import measure as measure_effects
from profiler.effects.settings import EffectSettings
from profiler.effects.settings import refuse_bad as refuse_bad_effects
from profiler.effects.store import write as store_effects
from profiler.errors import PairError, ProfilerError
from profiler.export.profiles import Profile
from profiler.generality import check as checks
from profiler.generality.distributions import corpus as texts
from profiler.generality.distributions.subject import CheckSettings, Reread
from profiler.generality.evidence.thresholds import DEFAULT
from profiler.model.components import OF_DICTIONARIES, ModelSpec
from profiler.model.direct import write_likeness
from profiler.model.load import BUNDLED, Model, load_model, with_reader_note
from profiler.model.of_run import config_for, load_for, refuse_other_bos, with_dictionaries_of
from profiler.pages import build as pages
from profiler.patching import own_metric
from profiler.patching.metrics import Metric
from profiler.patching.setting import LEAST_HALF, PatchSettings, parts_of_file
from profiler.prompts import pairs as pair_sets
from profiler.prompts.pairs import Pair
from profiler.prompts.tasks.prompt import Split
from profiler.recording import pipeline, recompute
from profiler.recording.forecast import Forecast, forecast, trial, within_budget, within_memory
from profiler.recording.memory import resident
from profiler.recording.selection import Selection
from profiler.recording.totals import PassProgress
from profiler.recording.write import refuse_bad_place
from profiler.results import CheckResult, EffectsResult, PatchResult, Report, Step, silent
from profiler.text.corpus import check as check_corpora

SPLITS = ("train", "held_out")
MetricAsked = str | Metric | Callable[..., Any]
MOST_SEED = 2**32 - 1
"""What every generator of random numbers takes."""
LEAST = {"pairs": 4, "neurons": 0, "top": 1, "draws": 1, "steps": 1}
"""Least values of the numbers of an experiment."""
LEAST_OF_CHECK = {"pairs": 20, "draws": 1, "tokens": 1}
"""Least values of the numbers of a check: fewer prompts give no interval."""
NOTES = ("forecast", "catalogue", "left out", "warning", "selection", "units of other kinds")
"""How a line begins that a patch or a check says besides its stages."""


@dataclass(frozen=True)
class PassForecast:
    """What a pass will take, said before it begins.

    Attributes:
        spec: the model.
        n_recorded: how many of its components are recorded.
        config: the settings, with what a disk budget or a memory limit lowered.
        forecast: bytes, memory and seconds.
        lowered: what a disk budget or a memory limit lowered, as `extremes 10 -> 5`.
    """

    spec: ModelSpec
    config: RunConfig
    forecast: Forecast
    n_recorded: int
    lowered: tuple[str, ...]


def record(
    config: RunConfig,
    path: str | Path,
    *,
    model: Model | None = None,
    overwrite: bool = False,
    resume: bool = False,
    commit_seconds: float = pipeline.COMMIT_SECONDS,
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    address: str | None = None,
    chunks_per_piece: int = 4,
    announce: Callable[[PassForecast], None] | None = None,
    report: Callable[[PassProgress], None] | None = None,
) -> pipeline.Outcome:
    """Stream a corpus through a model once and write a run.

    Args:
        config: the model, the corpora and every setting that changes a number.
        path: the run file; it appears when the pass has ended.
        model: a model that was loaded for this `config`; None loads it.
        overwrite: replace the run at `path`.
        resume: continue from the last commit of a stopped pass; a finished run is returned as it is.
        commit_seconds: least time between commits.
        engine: `ray` reads chunks in `workers` processes, on the cluster at `address` or on this machine.
        chunks_per_piece: chunks that a worker reads before it sends its sums.
        announce: called before the pass with what it will take; this times a little of each kind of work first.
        report: called after every chunk.

    Raises:
        ProfilerError: the model, the corpus or the path cannot be used, or a stopped pass has other settings.
    """
    path = Path(path)
    reader = _reader(engine, workers, address, chunks_per_piece)
    refuse_bad_place(path, overwrite=overwrite, resume=resume)
    if not (resume and path.exists()):  # of a finished run nothing is read again
        check_corpora(config)
    loaded = with_reader_note(model or load_model(config))
    config, fewer_rows = within_budget(config, loaded.spec)
    config, smaller_batches = within_memory(config, loaded.spec)
    if announce is not None:
        ahead = forecast(config, loaded.spec, trial(loaded, config, path.parent), in_use=resident(config.device))
        n = len(Selection.of(loaded.spec, config).ids)
        announce(PassForecast(loaded.spec, config, ahead, n, (*fewer_rows, *smaller_batches)))
    return pipeline.record(
        config,
        path,
        model=loaded,
        overwrite=overwrite,
        resume=resume,
        commit_seconds=commit_seconds,
        engine=reader,
        report=report or (lambda _: None),
    )


def _reader(
    engine: Literal["local", "ray"], workers: int, address: str | None, chunks_per_piece: int
) -> pipeline.Engine | None:
    """What reads the chunks; None for this process.

    Raises:
        ProfilerError: workers are asked for without Ray, or Ray is not installed.
    """
    if engine == "ray":
        from profiler.recording.ray.engine import engine as on_ray

        return on_ray(workers, address, chunks_per_piece)
    if workers > 1 or address:
        raise ProfilerError("--workers and --address belong to --engine ray: add it")
    return None


def patch(
    run: str | Path,
    task: str | Path | Sequence[Pair],
    *,
    circuit: str | Path | Circuit | None = None,
    metric: MetricAsked = "logit_diff",
    budget: float | None = None,
    model: str | Model | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    device: str = "cpu",
    report: Report = silent,
    **settings: Any,
) -> PatchResult:
    """Patch a task's pairs in both directions, choose a circuit, judge it, and write everything into a run.

    Args:
        run: the run; a file that is not there is made, of the model that is named (the bundled one if none is).
        task: a built-in task, a .jsonl file of pairs, or pairs. Pairs are written beside the run as a .jsonl file, so
            that `check` can read them again.
        circuit: judge this circuit (or the one of this .yaml file) instead of choosing one.
        metric: what selects and judges: logit_diff, prob_diff, kl, accuracy, FILE.py:FUNCTION (the file is executed),
            or a function of (logits, options), see `profiler.patching.own_metric`.
        budget: seconds to keep to: settings that decide least are lowered, and what was lowered is reported.
        model: bundled, a hub name, a directory, or a loaded model; None takes the run's, where that is safe.
        trust_remote_code: run code that comes with a model that is named.
        allow_pickle: load weights of a model that is named that are not safetensors.
        device: cpu, cuda, mps.
        report: told each stage as it begins.
        settings: scheme, pairs, split, seed, neurons, top, steps, draws, mlps, by_role, outside, edges; see
            `Run.patch`.

    Raises:
        PairError: the task, a setting or a pair cannot be used.
        ModelError: the run's model may not be loaded unasked, cannot be loaded, or is another one.
        RunError: the run cannot be written, or is of another model.
        CircuitError: the circuit cannot be read, or the model lacks a member.
    """
    run, decides = Path(run), own_metric.find(metric)
    chosen = patch_settings(str(task) if isinstance(task, str | Path) else _written(run, task), **settings)
    given = circuit if circuit is None or isinstance(circuit, Circuit) else yaml_files.read(circuit)
    report(Step("loading the model", 0, 1))
    loaded = model_of(run, model, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, device=device)
    steps = _Steps(report, stages(chosen, given=given is not None))
    for warning in warnings_of(chosen):
        steps(warning)
    outcome = experiment.patch(loaded, chosen, run, steps, given, decides, budget)
    steps.end()
    return PatchResult(run, outcome.experiment, outcome.circuit, outcome.frames)


def paths(
    run: str | Path,
    task: str | Path | Sequence[Pair],
    asked: str | Sequence[str],
    *,
    positions: str = "all",
    metric: MetricAsked = "logit_diff",
    model: str | Model | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    device: str = "cpu",
    report: Report = silent,
    **settings: Any,
) -> pl.DataFrame:
    """Measure what one component tells another along paths, beside other senders, and write it into a run.

    Args:
        run: as for `patch`.
        task: as for `patch`.
        asked: a path or several: `L0H5:L2H1.q` from a sender to a receiver, `L0H5:L2H1:logits` through it.
        positions: all, or a role of the pairs, at which the senders' messages are exchanged.
        metric: what the effect is measured by, as for `patch`.
        model: as for `patch`.
        trust_remote_code: as for `patch`.
        allow_pickle: as for `patch`.
        device: as for `patch`.
        report: told each stage as it begins.
        settings: scheme, pairs, split, seed, as for `patch`.

    Returns:
        A row per path and sender: the path's own with share, interval and p, then its controls.

    Raises:
        CircuitError: a text is no path of the model.
        PairError, ModelError, RunError: as for `patch`.
    """
    run, decides = Path(run), own_metric.find(metric)
    listed = [asked] if isinstance(asked, str) else list(asked)
    chosen = patch_settings(str(task) if isinstance(task, str | Path) else _written(run, task), **settings)
    loaded = model_of(run, model, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, device=device)
    return experiment.trace_paths(loaded, chosen, listed, positions, run, _Steps(report, 1 + len(listed)), decides)


@dataclass
class _Steps:
    """Tells `report` each line that work says of itself as a step, with how many stages have begun.

    Attributes:
        total: stages there are.
        stages: lines that begin a stage; None where all do that are no notes.
        done: stages begun.
    """

    report: Report
    total: int
    stages: frozenset[str] | None = None
    done: int = 0

    def __call__(self, text: str) -> None:
        is_note = text.startswith(NOTES)
        self.done += not is_note if self.stages is None else text in self.stages
        self.report(Step(text, self.done, self.total, is_note))

    def end(self) -> None:
        """Tell that all is written."""
        self.report(Step("written", self.total, self.total))


def patch_settings(task: str, **settings: Any) -> PatchSettings:
    """The settings of an experiment, checked.

    Raises:
        PairError: a value is out of range.
    """
    chosen = PatchSettings(task, **settings)
    if chosen.split not in SPLITS:
        raise PairError(f"split {chosen.split!r} is unknown: choose train or held_out")
    _refuse_small(LEAST, {name: getattr(chosen, name) for name in LEAST}, chosen.seed)
    return chosen


def warnings_of(settings: PatchSettings) -> list[str]:
    """What the number of pairs will keep `check` or `patch` from saying."""
    parts = parts_of_file(settings) if settings.is_file else None
    n, least = settings.pairs if parts is None else len(parts.discovery), DEFAULT.fewest
    made = []
    if n < least:
        made.append(
            f"warning: {n} pairs: check needs {least} to measure the circuit on the prompts it was found on, and cannot"
            f" say that it generalises without; give {least} or more"
        )
    if parts is not None and not (parts.test or parts.held_out):
        made.append(
            f"warning: the circuit is found and judged on the same {n} pairs: give {2 * LEAST_HALF} or more, of which"
            " half are kept for testing, or mark some with another split"
        )
    return made


def _refuse_small(least: dict[str, int], given: dict[str, int | None], seed: int) -> None:
    for name, value in given.items():
        if value is not None and value < least[name]:
            raise PairError(f"{name} {value} is too few: give {least[name]} or more")
    if not 0 <= seed <= MOST_SEED:
        raise PairError(f"seed {seed} is out of range: give 0 to {MOST_SEED}")


def _written(run: Path, pairs: Sequence[Pair]) -> str:
    """Pairs as a file beside the run, named by their content."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        pair_sets.jsonl.write(file, pairs)
        content = file.read_bytes()
    digest = hashlib.blake2b(content, digest_size=4).hexdigest()
    beside = run.with_name(f"{run.stem}-pairs-{digest}.jsonl")
    beside.write_bytes(content)
    return str(beside)


def model_of(
    run: Path,
    model: str | Model | None = None,
    *,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    device: str = "cpu",
) -> Model:
    """The model of a run with the run's window length and BOS; where there is no run, the one that is named.

    Its dtype is the run's, but float32 where that is half precision. A loaded model must have the run's BOS.

    Raises:
        ModelError: the run's model may not be loaded unasked, cannot be loaded, or is another one.
    """
    if isinstance(model, Model):
        if run.exists():
            refuse_other_bos(run, model)
        return model
    choice = ModelChoice(model, trust_remote_code, allow_pickle, device)
    return (
        load_for(run, choice, full_precision=True)
        if run.exists()
        else load_model(config_for(model or "bundled", choice))
    )


def check(
    run: str | Path,
    circuit: str | Path | Circuit,
    *,
    metric: MetricAsked | None = None,
    corpus: Sequence[str] = (),
    reread: bool = False,
    tokens: int | None = 300_000,
    distributions: Sequence[str] = (),
    pairs: int = 96,
    draws: int = 99,
    seed: int = 0,
    budget: float | None = None,
    model: str | Model | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    device: str = "cpu",
    report: Report = silent,
) -> CheckResult:
    """Check whether a circuit holds on other prompts and on running text, and write the verdict into the run.

    Args:
        run: the run that the circuit is in; its corpus is read again.
        circuit: a task or circuit that `patch` stored in the run, a published circuit, a .yaml file, or a circuit.
        metric: what judges, as for `patch`; None takes the circuit's own, where that is a built-in one.
        corpus: the run's corpora as they were given to `record`, in the place of those that the run names.
        reread: read the files and hub datasets that the run names; otherwise the bundled corpus and `corpus` alone.
        tokens: most tokens of the corpus to read again; None reads what the run read.
        distributions: distributions of your own, NAME=FILE.jsonl or NAME=sql:CONDITION.
        pairs: prompts of each distribution.
        draws: random circuits that it is compared with.
        seed: of every draw.
        budget: seconds to keep to: what decides least is left out, and what was left out is reported and stands in the
            result.
        model: as for `patch`.
        trust_remote_code: as for `patch`.
        allow_pickle: as for `patch`.
        device: as for `patch`.
        report: told each stage as it begins.

    Raises:
        CircuitError: there is no such circuit, or the model lacks a member.
        CorpusError, PairError: something would have to be read that the call does not name.
        ModelError, RunError: as for `patch`.
    """
    run = Path(run)
    _refuse_small(LEAST_OF_CHECK, {"pairs": pairs, "draws": draws, "tokens": tokens}, seed)
    again = Reread(tuple(corpus), reread, trust_remote_code)
    settings = CheckSettings(tokens, pairs, draws, seed, tuple(distributions), again)
    names = frozenset(name for name, _ in checks.STAGES)
    steps = _Steps(report, 1 + len(names), names)
    with TemporaryDirectory() as folder:
        name = str(circuit)
        if isinstance(circuit, Circuit):
            name = str(Path(folder) / "circuit.yaml")
            yaml_files.write(name, circuit)
        decides = None if metric is None else own_metric.find(metric)
        checks.refuse_unasked(run, name, again, decides)  # before the model is loaded
        steps("loading the model")
        loaded = model_of(run, model, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, device=device)
        checked = checks.check(run, name, loaded, settings, steps, decides, budget)
    circuit, verdict = checked.subject.circuit, checked.verdict
    return CheckResult(run, circuit, verdict, checked.distributions, checked.findings, checked.overlap())


def effects(
    run: str | Path,
    *,
    corpus: Sequence[str] = (),
    reread: bool = False,
    model: str | Model | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    device: str = "cpu",
    report: Report = silent,
    **settings: Any,
) -> EffectsResult:
    """Measure what components do through everything after them, and write it into a run beside direct effects.

    Args:
        run: the run; its corpus is read again.
        corpus: as for `check`.
        reread: as for `check`.
        model: as for `patch`.
        trust_remote_code: as for `patch`.
        allow_pickle: as for `patch`.
        device: as for `patch`.
        report: told each stage as it begins.
        settings: methods, tokens, integrated_tokens, steps, checked, checked_windows, repair, routes, seed; see
            `Run.effects`.

    Raises:
        ProfilerError: a setting is out of range.
        CorpusError: something would have to be read that the call does not name, or the run has no text.
        ModelError, RunError: as for `patch`.
    """
    run, chosen = Path(run), EffectSettings(**settings)
    refuse_bad_effects(chosen)
    again = Reread(tuple(corpus), reread, trust_remote_code)
    texts.config_of(run, again)  # before the model is loaded
    steps = _Steps(report, len(chosen.methods) + EFFECT_STAGES)
    steps("loading the model")
    loaded = model_of(run, model, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, device=device)
    frames = measure_effects(run, loaded, chosen, again, steps)
    store_effects(run, chosen, frames)
    steps.end()
    return EffectsResult(run, frames)


def context_tokens(
    run: Path,
    connection: Connection,
    component: str,
    *,
    model: str | Model | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    device: str = "cpu",
) -> dict[str, pl.DataFrame]:
    """The answer of query context_tokens for one component's card, with a value at every token and attention rows.

    Args:
        connection: to the run, for reading.

    Raises:
        ComponentError: the run has no such component.
        ModelError: as for `patch`.
    """
    chosen = pages.find(connection, component)
    frame = pages.load("component").tokens(pages.Reader(connection), component)
    choice = model if isinstance(model, Model) else ModelChoice(model, trust_remote_code, allow_pickle, device)
    loaded = choice if isinstance(choice, Model) else load_for(run, choice)
    if chosen.kind in OF_DICTIONARIES and loaded.described is None:
        loaded = with_dictionaries_of(run, loaded)
    return {"context_tokens": recompute.contexts(connection, loaded, chosen, frame)}


def similar_writes(
    run: Path,
    connection: Connection,
    component: str,
    *,
    top: int = 20,
    model: str | Model | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    device: str = "cpu",
) -> pl.DataFrame:
    """Components of the same kind by how alike the directions are that they write in, most alike first.

    Args:
        connection: to the run, for reading.
        top: how many; 0 gives all.

    Returns:
        component, direction (`profiler.model.direct.write_likeness`), and the median of its size over all.

    Raises:
        ComponentError: the run has no such component, or it is no unit.
        ModelError: as for `patch`.
    """
    chosen = pages.find(connection, component)
    choice = model if isinstance(model, Model) else ModelChoice(model, trust_remote_code, allow_pickle, device)
    loaded = choice if isinstance(choice, Model) else load_for(run, choice)
    recompute.refuse_other(connection, loaded)
    alike = [pair for pair in write_likeness(loaded.weights, loaded.spec, chosen) if pair[0] != chosen]
    frame = pl.DataFrame(
        {"component": [unit.label for unit, _ in alike], "direction": [value for _, value in alike]},
        schema={"component": pl.String, "direction": pl.Float64},
    ).with_columns(direction_median=pl.col("direction").abs().median())
    ordered = frame.sort(pl.col("direction").abs(), "component", descending=[True, False])
    return ordered.head(top) if top else ordered


def recomputed(
    run: Path,
    connection: Connection,
    *,
    model: str | Model | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    device: str = "cpu",
) -> Callable[[Profile], Profile]:
    """What gives a profile the activation at every token of its examples, by running the model again.

    Args:
        connection: to the run, for reading.

    Raises:
        ModelError: as for `patch`.
    """
    choice = model if isinstance(model, Model) else ModelChoice(model, trust_remote_code, allow_pickle, device)
    loaded = choice if isinstance(choice, Model) else load_for(run, choice)
    recompute.refuse_other(connection, loaded)

    @cache
    def with_dictionaries() -> Model:
        return with_dictionaries_of(run, loaded) if loaded.described is None else loaded

    def fill(profile: Profile) -> Profile:
        positions = ",".join(str(number) for number in sorted({e.position_id for e in profile.examples}))
        if not positions:
            return profile
        chosen = pages.find(connection, profile.component)
        asked = query.run(connection, "context_tokens", component=profile.component, positions=positions)
        used = with_dictionaries() if chosen.kind in OF_DICTIONARIES else loaded
        frame = recompute.contexts(connection, used, chosen, asked)
        known = dict(zip(frame["position_id"], frame["activations"], strict=True))
        filled = (replace(e, activations=tuple(known[e.position_id])) for e in profile.examples)
        return replace(profile, examples=tuple(filled))

    return fill


def draw_pairs(
    task: str, *, scheme: str | None = None, split: Split = "train", pairs: int = 48, seed: int = 0
) -> list[Pair]:
    """Pairs of clean and corrupted prompts of a built-in task, to look at, to edit, and to patch with.

    Args:
        task: ioi, docstring, greater-than, repeated-tokens or sva.
        scheme: corruption scheme; None takes the task's first.
        split: whose words and wordings: train or held_out.
        pairs: how many.
        seed: of the draw.

    Raises:
        PairError: no such task, scheme or split.
    """
    if split not in SPLITS:
        raise PairError(f"split {split!r} is unknown: choose train or held_out")
    vocabulary = _bundled_vocabulary() if pair_sets.find_task(task).of_tokens else ()
    return pair_sets.make(task, scheme, split, pairs, seed, vocabulary)


def _bundled_vocabulary() -> tuple[int, ...]:
    """Ids of the ordinary tokens of the bundled model."""
    from transformers import AutoTokenizer

    from profiler.text.token_classes import ordinary_ids

    return ordinary_ids(AutoTokenizer.from_pretrained(BUNDLED))
