"""One experiment from pairs to tables: sweeps, redundancy, attribution, circuit (`profiler patch`).

1. pairs: drawn or read, encoded, linted; both runs of the model
2. sweeps in both directions, four kinds of values                 -> patch_effects, patch_shares, patch_gates
3. attribution patching, and the neurons it points to              -> patch_attribution, patch_reliability, patch_recall
4. redundancy of the top heads                                     -> patch_downstream, _interactions, _saturation
5. the circuit: chosen on these pairs, judged on others            -> circuits, circuit_*
6. the task's corruptions crossed: what each component responds to -> patch_cells, patch_factors

Cost: for the bundled model and 48 pairs about four minutes of one core, half of it circuits.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from profiler.circuits import choose, circuit_tables, description, duration, pair_runs
from profiler.circuits.by_edges import edge_tables, paths
from profiler.circuits.circuit import Circuit, Scope, check_circuit
from profiler.circuits.edge_mask import graph_of
from profiler.circuits.nodes import check_roles, members_nodes
from profiler.circuits.scoring import null
from profiler.circuits.scoring.evaluate import Evaluator
from profiler.errors import PairError
from profiler.model.load import Model
from profiler.model.steps.as_network import network_of_heads
from profiler.model.steps.network import Network
from profiler.patching import experiment_store, factorial, setting, sweep_tables, values
from profiler.patching.attribution import estimates, recall
from profiler.patching.capability import capability
from profiler.patching.metrics import LOGIT_DIFF, Metric
from profiler.patching.redundancy import redundancy_tables
from profiler.patching.setting import SCHEME_PAIRS, Outside, PairRuns, PatchSettings
from profiler.patching.sites import every
from profiler.patching.sweep import resample
from profiler.patching.sweep_tables import PatchedPanel
from profiler.prompts.pairs import find_task, lint

Report = Callable[[str], None]


@dataclass(frozen=True)
class ExperimentResult:
    """What an experiment found. `frames` are the tables written, by name; `circuit` may be read from a file."""

    experiment: str
    circuit: Circuit
    frames: dict[str, pl.DataFrame]


@dataclass(frozen=True, eq=False)
class Experiment:
    """What all stages of one experiment have in common.

    Attributes:
        model: the model.
        settings: everything that changes the numbers.
        main: the discovery pairs, with both runs.
        means: mean activations for these pairs.
        metric: what circuits are judged by; `main` has the one that selects, another where this one's gradient is flat.
        given: the circuit to judge; None where one is chosen.
        report: told each stage as it begins.
    """

    model: Model
    settings: PatchSettings
    main: PairRuns
    means: values.ReferenceMeans
    metric: Metric = LOGIT_DIFF
    given: Circuit | None = None
    report: Report = print

    @property
    def outside(self) -> Outside:
        """What everything outside the circuit writes."""
        return pair_runs.outside_of(self.settings, self.given)

    @cached_property
    def judged(self) -> PairRuns:
        """The discovery pairs under the metric that judges."""
        return self.main.judged_by(self.metric)

    @property
    def scheme(self) -> str:
        """The corruption scheme."""
        return description.scheme_of(self.settings)


def patch(
    model: Model,
    settings: PatchSettings,
    out: Path,
    report: Report = print,
    circuit: Circuit | None = None,
    metric: Metric = LOGIT_DIFF,
    budget: float | None = None,
) -> ExperimentResult:
    """Run an experiment and write it into a run.

    Args:
        out: the run, or a file to be made.
        report: told each stage as it begins.
        circuit: judge this circuit instead of choosing one.
        metric: what decides.
        budget: seconds to keep to, by leaving out what decides least; None leaves nothing out.

    Raises:
        PairError: the task or a pair is unusable.
        RunError: the file cannot be written, or is a run of another model.
        CircuitError: the model lacks a member of the circuit.
    """
    with experiment_store.ready(out, model):
        return _patch(model, replace(settings, metric=metric.name), out, report, circuit, metric, budget)


def _patch(
    model: Model,
    settings: PatchSettings,
    out: Path,
    report: Report,
    circuit: Circuit | None,
    metric: Metric,
    budget: float | None,
) -> ExperimentResult:
    began = time.perf_counter()
    experiment = begin(model, settings, report, circuit, metric, budget)
    settings, main = experiment.settings, experiment.main
    measured = sweeps(experiment)
    report("attribution patching")
    frames, chosen = attribution_frames(experiment, measured)
    measured += [*chosen, *other_units(experiment)]
    frames |= {
        "patch_effects": sweep_tables.effect_rows(main, measured),
        "patch_shares": sweep_tables.share_rows(main, measured),
        "patch_gates": redundancy_tables.gate_rows(main, measured),
    }
    report("redundancy")
    frames |= redundancy_frames(experiment, measured)
    judged, more, other_sets = circuit_frames(experiment, measured, frames["patch_gates"])
    frames |= more
    report("corruptions crossed")
    crossed, said = factorial.frames(model, main.net, settings)
    frames |= crossed | description.setting_frames(model, [experiment.judged, *other_sets], said)
    name = experiment_name(settings, model.spec.weights_hash)
    frames["patch_experiments"] = description.experiment_row(
        model, experiment.judged, settings, main.metric, experiment.means.by_template, time.perf_counter() - began
    )
    report("writing")
    experiment_store.write(out, name, frames)
    return ExperimentResult(name, judged, frames)


def begin(
    model: Model,
    settings: PatchSettings,
    report: Report,
    circuit: Circuit | None,
    metric: Metric,
    budget: float | None,
) -> Experiment:
    """The pairs, the settings that keep to a budget, and the means: all that is needed before the first sweep.

    Args:
        report: told what is left out, and how long the experiment will take.

    Raises:
        PairError: the task or a pair is unusable.
        CircuitError: the model lacks a member of the circuit.
    """
    net = network_of_heads(model)
    report("pairs")
    main = pair_runs.selected_by(pair_runs.discovery(model, net, settings, metric), report)
    if settings.is_file and main.encoded.dropped:
        report(main.encoded.left_out(settings.task))
    if circuit is not None:
        check_circuit(circuit, net)
        check_roles(circuit, main.batch)
    costs = duration.unit_costs(main, settings)
    if budget is not None:
        settings, left_out = duration.within(budget, main, settings, costs)
        report(f"left out to keep to {budget / 60:.3g} min: {', '.join(left_out) or 'nothing'}")
        if settings.pairs < len(main.batch):
            main = pair_runs.discovery(model, net, settings, metric).judged_by(main.metric)
    report(duration.forecast(main, settings, costs).sentence)
    outside = pair_runs.outside_of(settings, circuit)
    circuit = circuit and replace(circuit, scope=replace(circuit.scope, outside=outside, metric=metric.name))
    means = values.means(net, main.clean, main.batch, setting.references(model, settings, main.encoded).pairs)
    main = pair_runs.with_outside(main, outside, lambda: means)
    return Experiment(model, settings, main, means, metric, circuit, report)


def trace_paths(
    model: Model,
    settings: PatchSettings,
    asked: Sequence[str],
    positions: str,
    out: Path,
    report: Report = print,
    metric: Metric = LOGIT_DIFF,
) -> pl.DataFrame:
    """What paths carry on the discovery pairs, beside other senders, written into a run as table `patch_paths`.

    Args:
        asked: paths (`profiler.circuits.by_edges.paths`).
        positions: all, or a role of the pairs, at which the senders' messages are exchanged.

    Raises:
        PairError: the task, a pair or a role is unusable, or the pairs show no effect.
        ModelError: the network offers no edges.
        CircuitError: a text is no path of the model.
        RunError: the file cannot be written, or is a run of another model.
    """
    settings = replace(settings, metric=metric.name)
    net = network_of_heads(model)
    graph = graph_of(net.plain)
    for text in asked:
        paths.parse(text, graph)
    with experiment_store.ready(out, model):
        report("pairs")
        main = pair_runs.discovery(model, net, settings, metric)
        if main.whole.mean() <= 0:
            raise PairError(
                f"the corruption does not lower {metric.words} on these pairs, so there is no effect whose share a path"
                " could carry: choose another task, scheme or metric"
            )
        rows: list[dict[str, Any]] = []
        for text in asked:
            report(f"path {text}")
            rows += paths.rows(paths.effect(main, text, positions, settings.seed), main)
        frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(created=pl.lit(experiment_store.now()))
        experiment_store.write_paths(out, experiment_name(settings, model.spec.weights_hash), frame)
    return frame


def experiment_name(settings: PatchSettings, weights_hash: str) -> str:
    """Task, scheme and a hash of everything that changes the numbers."""
    return f"{settings.name}/{description.scheme_of(settings)}/{settings.digest(weights_hash)}"


def sweeps(experiment: Experiment) -> list[PatchedPanel]:
    """All sweeps but those of neurons."""
    donors = {
        "zero": values.zero(experiment.main.clean),
        "mean": experiment.means.donor(),
        "noise": values.noise(experiment.main.clean, experiment.main.batch, experiment.settings.seed),
    }
    measured: list[PatchedPanel] = []
    for plan in sweep_tables.plans(experiment.main, donors, by_role=experiment.settings.by_role):
        label = f"patching, {plan.direction} with {plan.value}"
        experiment.report(f"{label}: {len(plan.targets)} targets")
        measured += sweep_tables.run_plan(experiment.main, plan)
    return measured


def attribution_frames(
    experiment: Experiment, measured: Sequence[PatchedPanel]
) -> tuple[dict[str, pl.DataFrame], list[PatchedPanel]]:
    """Attribution tables, and the exact patches of the chosen neurons."""
    slopes = estimates.slopes(
        experiment.main, experiment.settings.steps, [result.target for result in measured if result.value == "resample"]
    )
    chosen = estimates.choose_neurons(experiment.main, slopes, experiment.settings.neurons, experiment.settings.seed)
    experiment.report(f"patching neurons: {len(chosen.largest)} by attribution, {len(chosen.sampled)} at random")
    exact = estimates.patch_neurons(experiment.main, chosen)
    table = estimates.estimate_rows(experiment.main, slopes, [*measured, *exact])
    largest, sampled = ([target.label for target in some] for some in (chosen.largest, chosen.sampled))
    net = experiment.main.net
    n_neurons = sum(net.neurons(layer) for layer in range(net.n_layers))
    return {
        "patch_attribution": table,
        "patch_reliability": estimates.reliability_rows(experiment.main, table, chosen, slopes),
        "patch_recall": recall.recall_rows(table, largest, sampled, n_neurons, estimates.THRESHOLD),
    }, exact


def other_units(experiment: Experiment) -> list[PatchedPanel]:
    """Exact patches of units that are neither heads nor an MLP's neurons, drawn at random."""
    main, settings = experiment.main, experiment.settings
    targets = sweep_tables.other_units(main, settings.neurons // 2, settings.seed)
    if targets:
        kinds = ", ".join(f"{n} at site {site}" for site, n in Counter(target.site for target in targets).items())
        experiment.report(f"units of other kinds: {kinds}")
    return sweep_tables.run_both(main, targets)


def redundancy_frames(experiment: Experiment, measured: Sequence[PatchedPanel]) -> dict[str, pl.DataFrame]:
    """Downstream, interaction and saturation tables of the top heads."""
    top = redundancy_tables.top_heads(measured, experiment.main, experiment.settings.top)
    donors = {
        "resample": resample(experiment.main.corrupted),
        "mean": experiment.means.donor(),
        "zero": values.zero(experiment.main.clean),
    }
    if not experiment.main.net.heads_direct:
        experiment.report("left out: self-repair, because the heads have no direct part of the logits of their own")
    repaired = redundancy_tables.repairs(experiment.main, top, donors)
    return {
        "patch_downstream": redundancy_tables.downstream_rows(experiment.main, repaired),
        "patch_interactions": (
            redundancy_tables.interaction_rows(experiment.main, top, measured, repaired)
            if len(top) > 1
            else pl.DataFrame()
        ),
        "patch_saturation": redundancy_tables.saturation_rows(experiment.main, top),
    }


def circuit_frames(
    experiment: Experiment, measured: list[PatchedPanel], gates: pl.DataFrame
) -> tuple[Circuit, dict[str, pl.DataFrame], list[PairRuns]]:
    """Choose (or take) a circuit, judge it on each set of pairs, and its tables."""
    experiment.report("choosing a circuit")
    main, settings, given = experiment.main, experiment.settings, experiment.given
    mlps = circuit_tables.mlps_are_nodes(settings, given)
    by_nodes = None if given is None or given.by_edges else given
    evaluate = circuit_tables.evaluator(main, by_nodes, mlps=mlps)
    effects = circuit_tables.effects_of(main, measured, evaluate.nodes)
    ranking = choose.ranking(effects)
    estimated = edge_tables.estimates_of(main, settings.steps)
    if given is None and settings.edges:
        circuit = edge_tables.chosen(by_edges(experiment), main, estimated)
    else:
        circuit = given or chosen_circuit(experiment, measured, effects, gates)
    circuit, edge_frame, edge_scores = edge_tables.edge_rows(main, circuit, estimated, mlps=mlps)
    other_sets = pair_runs.other_settings(experiment.model, main.net, settings, experiment.metric, experiment.outside)
    fractions, edge_areas = edge_tables.fraction_rows(experiment.judged, other_sets, estimated)
    judged = judge(experiment, circuit, other_sets, ranking)
    stable, frequency = stability(experiment, evaluate, effects, circuit)
    curve, areas = circuit_tables.curve_rows(
        experiment.judged, settings, ranking, None if circuit.by_edges else circuit
    )
    six = circuit_tables.six_values(main, circuit)
    scores = [of_set.scores for of_set in judged] + [
        pl.DataFrame([*stable, *areas, *edge_scores], infer_schema_length=None).with_columns(**six),
        edge_areas,
    ]
    frames = {
        "circuits": description.circuit_row(circuit),
        "circuit_edges": edge_frame.with_columns(
            **six | {"granularity": pl.lit("edge"), "value": pl.lit("resample"), "positions": pl.lit("all")}
        ),
        "circuit_scores": pl.concat(scores, how="diagonal_relaxed").with_columns(pl.col("score").fill_nan(None)),
        "circuit_curve": curve.with_columns(**six | {"granularity": pl.lit("node")}),
        "circuit_fractions": fractions,
        "circuit_random": pl.concat([of_set.random for of_set in judged], how="diagonal_relaxed"),
        "circuit_members": pl.concat(
            [
                description.member_rows(main, circuit, of_set.members, frequency)
                for of_set in judged
                if of_set.members.height or of_set is judged[0]
            ],
            how="diagonal_relaxed",
        ),
    }
    named = pl.lit(circuit.name).alias("circuit")
    frames = {name: frame.with_columns(named) if frame.height else frame for name, frame in frames.items()}
    return circuit, frames, other_sets


def stability(
    experiment: Experiment, evaluate: Evaluator, effects: choose.Effects, circuit: Circuit
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """How much of a circuit comes back on other pairs: rows of `circuit_scores`, and how often each node is chosen."""
    experiment.report("stability")
    settings = experiment.settings
    is_chosen_by_nodes = not experiment.given and not settings.edges
    again = (lambda some, pairs: choose.choose(evaluate.drawn(pairs), some)) if is_chosen_by_nodes else None
    keep = evaluate.mask(members_nodes(circuit))
    return circuit_tables.stability_rows(null.stability(effects, keep, again, seed=settings.seed), evaluate.nodes)


def judge(
    experiment: Experiment, circuit: Circuit, other_sets: Sequence[PairRuns], ranking: Sequence[int]
) -> list[circuit_tables.Judged]:
    """The circuit on every set of pairs, by the metric that judges."""
    settings, judged = experiment.settings, []
    for runs in (experiment.judged, *other_sets):
        full = runs.name in ("discovery", "test")
        if circuit.by_edges:
            experiment.report(f"{runs.name}: the edges")
            judged.append(edge_tables.judge(runs, circuit, settings.draws, settings.seed, full=full))
        else:
            judged.append(circuit_tables.judge(runs, circuit, settings, ranking, experiment.report, full=full))
    return judged


def by_edges(experiment: Experiment) -> Circuit:
    """A circuit by edges before its edges are chosen: its name and scope."""
    settings, main = experiment.settings, experiment.main
    scope = Scope(
        task=settings.name,
        prompts=f"{len(main.batch)} pairs, {settings.split}, seed {settings.seed}",
        schemes=(experiment.scheme,),
        controlled=("prompt length", f"everything but what scheme {experiment.scheme} changes"),
        outside=experiment.outside,
        intact="biases, positions",
        metric=experiment.metric.name,
        found_by=f"EAP-IG of {main.metric.words}, {settings.steps} midpoints, the fewest best edges that are faithful",
        granularity="edge",
    )
    return Circuit(f"{settings.name}-{experiment.scheme}-edges", experiment.model.spec.name, (), scope)


def chosen_circuit(
    experiment: Experiment, measured: list[PatchedPanel], effects: choose.Effects, gates: pl.DataFrame
) -> Circuit:
    """Choose the circuit and write its scope."""
    main, settings = experiment.main, experiment.settings
    evaluate = circuit_tables.evaluator(main, mlps=settings.mlps)
    labels = evaluate.labels(choose.choose(evaluate, effects))
    experiment.report("other corruption schemes")
    seen = schemes_of(experiment, labels, effects, evaluate.nodes)
    checks = lint.check(main.encoded) + capability(main)
    accidental = tuple(f"{check.name}: {check.finding}" for check in checks if check.level != "ok")
    scope = Scope(
        task=settings.name,
        prompts=f"{len(main.batch)} pairs, {settings.split}, seed {settings.seed}",
        schemes=tuple(seen["all"]),
        controlled=(
            "prompt length",
            f"everything but what scheme {experiment.scheme} changes",
            f"that an answer is due ({main.metric.words})",
        ),
        accidental=accidental,
        outside=experiment.outside,
        intact="embedding, biases" + ("" if settings.mlps else ", MLPs"),
        metric=experiment.metric.name,
        found_by=f"patching in both directions by {main.metric.words}, grown and pruned",
    )
    label = dict(gates.filter(pl.col("positions") == "all").select("component", "gate").rows())
    return circuit_tables.record(
        f"{settings.name}-{experiment.scheme}",
        experiment.model.spec.name,
        labels,
        label,
        circuit_tables.reads(main, measured, labels),
        {k: v for k, v in seen.items() if k != "all"},
        scope,
    )


def schemes_of(
    experiment: Experiment, labels: Sequence[str], effects: choose.Effects, nodes: list[str]
) -> dict[str, list[str]]:
    """Under which corruption schemes each member has an effect; `all` lists the schemes that could be tried."""
    model, main, settings = experiment.model, experiment.main, experiment.settings
    known = [experiment.scheme] if settings.is_file else list(find_task(settings.task).schemes)
    seen: dict[str, list[str]] = {label: [] for label in ("all", *labels)}
    for scheme in known:
        clear: list[str] | None
        if scheme == experiment.scheme:
            clear = [nodes[i] for i in choose.candidates(effects)]
        else:
            clear = _clear_under(
                model, main.net, replace(settings, scheme=scheme, pairs=SCHEME_PAIRS), nodes, main.metric
            )
        if clear is not None:
            seen["all"].append(scheme)
            for label in set(labels) & set(clear):
                seen[label].append(scheme)
    return seen


def _clear_under(
    model: Model, net: Network, settings: PatchSettings, nodes: list[str], metric: Metric
) -> list[str] | None:
    """Nodes with an effect under another scheme; None where it leaves no pair or no difference to be explained."""
    try:
        other = setting.prepare(
            settings.scheme or "",
            net,
            setting.encoded(model, setting.draw(model, settings, settings.split, settings.seed)),
            metric,
        )
    except PairError:
        return None
    if other.whole.mean() <= 0:
        return None
    targets = tuple(t for site in ("head", "mlp_out") for t in every(net, site) if t.label in nodes)
    measured = sweep_tables.run_both(other, targets)
    return [nodes[i] for i in choose.candidates(circuit_tables.effects_of(other, measured, nodes))]
