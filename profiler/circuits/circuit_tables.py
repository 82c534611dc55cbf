"""A circuit of an experiment, and its tables: members, scores on each set of pairs, size curve, random circuits.

Why: a circuit is found on the discovery pairs and judged on others: fresh pairs of the same wordings, and held-out
ones.
Cost: see `choose`, `scores`, `null`; most of it is random and inflated circuits, one forward pass of the pairs each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float

from profiler.circuits import choose
from profiler.circuits.by_edges import edge_sets
from profiler.circuits.circuit import Circuit, Member, Scope, check_circuit
from profiler.circuits.nodes import check_roles, masks, members_nodes, node_of, parse_node, roles_of
from profiler.circuits.positions import BEFORE, FIRST, ITSELF, PositionRole
from profiler.circuits.scoring import curve, null, scores
from profiler.circuits.scoring.evaluate import Evaluator, node_labels, sizes
from profiler.patching.capability import ATTENDS
from profiler.patching.setting import PairRuns, PatchSettings
from profiler.patching.sites import Target, parse_target
from profiler.patching.sweep import resample
from profiler.patching.sweep_tables import PatchedPanel, SweepPlan, change, run_plan
from profiler.statistics import ROUNDING, percentile_interval

Keep = Bool[np.ndarray, " node"]
Report = Callable[[str], None]


def evaluator(setting: PairRuns, circuit: Circuit | None = None, *, mlps: bool) -> Evaluator:
    """F on the pairs of a setting, its outside values (resampled ones by default) outside the circuit.

    Args:
        circuit: the circuit that will be judged, whose neurons and positions make nodes of their own; of one by edges
            the nodes are the model's edges.
        mlps: whether every MLP is a node; otherwise only those that the circuit lists are.

    Raises:
        ModelError: the circuit is one by edges, and the network offers none.
    """
    if circuit is not None and circuit.by_edges:
        return edge_sets.evaluator(setting)
    other = setting.corrupted if setting.outside is None else setting.outside
    return Evaluator(setting.net, setting.batch, node_labels(setting.net, circuit, mlps=mlps), other)


def members_kept(evaluate: Evaluator, circuit: Circuit) -> Keep:
    """The circuit as a set of the evaluator's nodes, or edges."""
    if isinstance(evaluate, edge_sets.EdgeEvaluator):
        return edge_sets.mask_of(evaluate, circuit)
    return evaluate.mask(members_nodes(circuit))


def redrawn_values(
    setting: PairRuns, circuit: Circuit, keep: Bool[np.ndarray, "set node"], *, mlps: bool
) -> Float[np.ndarray, "redraw set pair"] | None:
    """F of sets of nodes, or edges, with the references of the means outside resampled; None where these are no
    means."""
    if setting.redrawn is None:
        return None
    again = (replace(setting, outside=other) for other in setting.redrawn())
    return np.stack([evaluator(runs, circuit, mlps=mlps)(keep) for runs in again])


def mlps_are_nodes(settings: PatchSettings, circuit: Circuit | None) -> bool:
    """Whether all MLPs are nodes: asked for, or not among what the circuit's scope says is intact."""
    return settings.mlps or (circuit is not None and "MLPs" not in circuit.scope.intact)


def effects_of(setting: PairRuns, measured: Sequence[PatchedPanel], nodes: Sequence[str]) -> choose.Effects:
    """Effects of the nodes in both directions, from the sweeps; nodes that are in none are patched here."""
    changes = {result.key[:2]: change(setting, result) for result in measured if result.value == "resample"}
    targets = {node: parse_node(node) for node in nodes}
    missing = tuple(t for t in targets.values() if (t, "denoise") not in changes or (t, "noise") not in changes)
    if missing:
        batch = replace(setting.batch, roles=setting.batch.roles | masks(setting.batch, nodes))
        here = replace(setting, batch=batch)
        both = (
            SweepPlan(missing, "denoise", "resample", resample(setting.clean)),
            SweepPlan(missing, "noise", "resample", resample(setting.corrupted)),
        )
        changes |= {result.key[:2]: change(here, result) for plan in both for result in run_plan(here, plan)}
    recovered, lost = (np.stack([changes[targets[node], way] for node in nodes]) for way in ("denoise", "noise"))
    return choose.Effects(recovered, lost, setting.whole)


def find(setting: PairRuns, measured: Sequence[PatchedPanel], settings: PatchSettings) -> tuple[Keep, choose.Effects]:
    """The circuit's nodes, and the effects it was chosen from."""
    evaluate = evaluator(setting, mlps=settings.mlps)
    effects = effects_of(setting, measured, evaluate.nodes)
    return choose.choose(evaluate, effects), effects


def record(
    name: str,
    model: str,
    labels: Sequence[str],
    gates: dict[str, str],
    roles: dict[str, str],
    schemes: dict[str, Sequence[str]],
    scope: Scope,
) -> Circuit:
    """The circuit as a record."""
    members = tuple(
        Member(label, roles.get(label, ""), "all", gates.get(label, ""), tuple(schemes.get(label, ())))
        for label in labels
    )
    return Circuit(name, model, members, scope)


def reads(setting: PairRuns, measured: Sequence[PatchedPanel], labels: Sequence[str]) -> dict[str, str]:
    """A role for each head, read off the pairs: at which role it acts most, and to which role it attends from there.

    A head that attends to everything alike has none, and neither has a head that changes nothing alone: single patches
    do not show where it acts.
    """
    effect: dict[str, dict[str, float]] = {}
    for result in measured:
        if result.value == "resample" and result.target.label in labels and result.target.positions != "all":
            at = effect.setdefault(result.target.label, {})
            at[result.target.positions] = at.get(result.target.positions, 0.0) + abs(
                float(change(setting, result).mean())
            )
    roles = {}
    for label, by_role in effect.items():
        query = max(by_role, key=by_role.__getitem__)
        if by_role[query] <= ROUNDING:
            continue
        key, mass = _attended(setting, parse_target(label), query)
        if mass >= ATTENDS:
            roles[label] = PositionRole(query, key).words(mass)
    return roles


def _attended(setting: PairRuns, target: Target, query: str) -> tuple[str, float]:
    """The position that gets most attention from the query role on clean prompts, and its share."""
    pattern = setting.clean["pattern"][target.layer][:, target.unit]
    rows = setting.batch.mask(query)
    weight = (pattern * rows[..., None]).sum(1) / rows.sum(1).clamp_min(1)[:, None]
    masses = {
        name: (weight * mask).sum(-1).mean().item() for name, mask in setting.batch.roles.items() if name != query
    }
    own = torch.diagonal(pattern, dim1=1, dim2=2)
    masses[ITSELF] = ((own * rows).sum(1) / rows.sum(1).clamp_min(1)).mean().item()
    before = torch.diagonal(pattern[:, 1:], dim1=1, dim2=2)
    masses[BEFORE] = ((before * rows[:, 1:]).sum(1) / rows.sum(1).clamp_min(1)).mean().item()
    masses[FIRST] = weight[:, 0].mean().item()
    best = max(masses, key=masses.__getitem__)
    return best, masses[best]


@dataclass(frozen=True)
class Judged:
    """A circuit's tables on one set of pairs."""

    scores: pl.DataFrame
    random: pl.DataFrame
    members: pl.DataFrame


def judge(
    setting: PairRuns, circuit: Circuit, settings: PatchSettings, ranking: Sequence[int], report: Report, *, full: bool
) -> Judged:
    """Every score of a circuit on a set of pairs.

    Args:
        ranking: nodes by their effect, for the control.
        full: whether to make random and inflated circuits too.

    Returns:
        Only the metrics themselves where the model shows no effect that a circuit could explain: shares of nothing
        are not stated.

    Raises:
        CircuitError: the model lacks a member.
    """
    net = setting.net
    check_circuit(circuit, net)
    check_roles(circuit, setting.batch)
    evaluate = evaluator(setting, circuit, mlps=mlps_are_nodes(settings, circuit))
    keep = evaluate.mask(members_nodes(circuit))
    ends = np.stack([keep, np.zeros_like(keep)])
    again = redrawn_values(setting, circuit, ends, mlps=mlps_are_nodes(settings, circuit))
    rows = faithfulness_rows(evaluate, keep, again)
    if not scores.explainable(evaluate):
        undefined = pl.DataFrame(rows, infer_schema_length=None).with_columns(**six_values(setting, circuit))
        return Judged(undefined, pl.DataFrame(), pl.DataFrame())
    report(f"{setting.name}: completeness")
    missing = scores.incompleteness(evaluate, keep, _classes(circuit), settings.seed)
    control = scores.incompleteness(evaluate, scores.control(keep, ranking), {}, settings.seed, 1)
    rows += completeness_rows(missing, "") + completeness_rows(control, "control_")
    random, members = pl.DataFrame(), pl.DataFrame()
    if full:
        report(f"{setting.name}: random circuits")
        drawn = null.random_circuits(evaluate, keep, settings.draws, settings.seed)
        rows += random_rows(drawn)
        random = random_frame(drawn) if len(drawn.faithfulness) else random
        report(f"{setting.name}: minimality")
        each = [evaluate.mask([node_of(member)]) for member in circuit.members]
        minimal = scores.minimality(evaluate, keep, missing.sets, settings.draws, settings.seed, each)
        rows.append(score_row("minimality", float(minimal.effect.min())))
        rows.append(score_row("minimal_members", minimal.share(choose.ALPHA), n=len(minimal.effect)))
        members = minimality_rows(circuit, minimal)
    six = six_values(setting, circuit)
    scored, drawn_rows = (
        frame.with_columns(**six) if len(frame) else frame
        for frame in (pl.DataFrame(rows, infer_schema_length=None), random)
    )
    del six["positions"]
    return Judged(scored, drawn_rows, members.with_columns(**six) if len(members) else members)


def random_rows(drawn: null.RandomCircuits) -> list[dict[str, Any]]:
    """Rows of `circuit_scores` for the random circuits that a circuit is compared with."""
    faithful = drawn.faithfulness
    rows = [
        score_row("random_p", drawn.p, n=len(faithful)),
        score_row("random_p_least", drawn.p_least, n=len(faithful)),
    ]
    if drawn.alternatives is not None:
        rows.append(score_row("random_alternatives", float(drawn.alternatives)))
    if len(faithful):
        rows.append(score_row("random_faithfulness", float(faithful.mean()), *_percentiles(faithful)))
    return rows


def random_frame(drawn: null.RandomCircuits) -> pl.DataFrame:
    """Table `circuit_random` of one set of pairs."""
    return pl.DataFrame({"draw": np.arange(len(drawn.faithfulness)), "faithfulness": drawn.faithfulness})


def minimality_rows(circuit: Circuit, minimal: scores.Minimality) -> pl.DataFrame:
    """Minimality of every member, with the positions it is at."""
    return pl.DataFrame(
        {
            "component": circuit.components,
            "positions": [m.positions for m in circuit.members],
            "removal_cost": minimal.effect,
            "p": minimal.p,
            "p_adjusted": minimal.p_adjusted,
            "p_least": minimal.p_least,
        }
    )


def six_values(setting: PairRuns, circuit: Circuit) -> dict[str, Any]:
    sites = {parse_target(label).site for label in circuit.components}
    kind = ", ".join(site for site in ("head", "neuron", "mlp_out") if site in sites)
    values = {
        "granularity": circuit.scope.granularity,
        "component_kind": "edge" if circuit.by_edges else kind,
        "value": circuit.scope.outside,
        "positions": "each member's" if roles_of(circuit) else "all",
        "direction": "noise outside",
        "pair_set": setting.name,
    }
    return {name: pl.lit(value) for name, value in values.items()}


def _classes(circuit: Circuit) -> dict[str, list[str]]:
    """Members by gate label and by layer."""
    classes: dict[str, list[str]] = {}
    for member in circuit.members:
        for name in (member.gate, f"layer {parse_target(member.component).layer}"):
            if name:
                classes.setdefault(name, []).append(node_of(member))
    return classes


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    low, high = percentile_interval(drawn)
    return float(low), float(high)


def score_row(
    metric: str, value: float, low: float | None = None, high: float | None = None, n: int | None = None
) -> dict[str, Any]:
    """A row of `circuit_scores`."""
    return {"metric": metric, "score": value, "low": low, "high": high, "n": n}


def faithfulness_rows(
    evaluate: Evaluator, keep: Keep, again: Float[np.ndarray, "redraw 2 pair"] | None = None
) -> list[dict[str, Any]]:
    """Rows of `circuit_scores` for faithfulness in all its forms; shares only where there is something to explain.

    Args:
        again: as for `scores.faithfulness`.
    """
    faithful, n = scores.faithfulness(evaluate, keep, again), len(evaluate.batch)
    rows = [
        score_row("members", float(keep.sum())),
        score_row("nodes", float(len(keep))),
        score_row("metric_model", faithful.model, n=n),
        score_row("metric_circuit", faithful.circuit, n=n),
        score_row("metric_empty", faithful.empty, n=n),
        score_row("faithfulness_gap", faithful.gap, n=n),
        score_row("explainable", float(scores.explainable(evaluate)), n=n),
    ]
    if not scores.explainable(evaluate):
        return rows
    return [
        *rows,
        score_row("faithfulness_ratio", faithful.ratio, n=n),
        score_row("faithfulness", faithful.normalised, *faithful.interval, n=n),
        score_row(
            "faithfulness_per_pair",
            float(faithful.per_pair.median),
            float(faithful.per_pair.low),
            float(faithful.per_pair.high),
            n - faithful.per_pair.excluded,
        ),
        score_row("pairs_excluded", float(faithful.per_pair.excluded), n=n),
        score_row("over_recovery", float(faithful.over_recovery)),
    ]


def completeness_rows(missing: scores.Incompleteness, prefix: str) -> list[dict[str, Any]]:
    """Rows of `circuit_scores` for incompleteness: mean and largest over random K, greedy, per class."""
    rows = [
        score_row(
            f"{prefix}incompleteness_random",
            float(missing.random.mean()),
            0.0,
            float(missing.random.max()),
            len(missing.random),
        ),
        score_row(f"{prefix}incompleteness_greedy", float(missing.greedy.max(initial=0.0)), n=len(missing.greedy)),
    ]
    return rows + [score_row(f"incompleteness_class: {name}", value) for name, value in missing.classes.items()]


def stability_rows(stable: null.Stability, nodes: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of `circuit_scores` for stability, and how often each node is chosen."""
    rows = [score_row("stability_tau", stable.tau, n=null.DRAWS)]
    if not len(stable.jaccard):  # the circuit was given: nothing was chosen that could come out otherwise
        return rows, {}
    low, high = _percentiles(stable.jaccard)
    rows += [
        score_row("stability_jaccard", float(stable.jaccard.mean()), low, high, len(stable.jaccard)),
        score_row("stability_halves", stable.halves, n=2),
    ]
    return rows, dict(zip(nodes, stable.frequency.tolist(), strict=True))


def curve_rows(
    setting: PairRuns, settings: PatchSettings, ranking: Sequence[int], circuit: Circuit | None = None
) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Table `circuit_curve` (faithfulness of the k best nodes), and its areas as scores."""
    evaluate = evaluator(setting, circuit, mlps=mlps_are_nodes(settings, circuit))
    values = evaluate.faithfulness(sizes(ranking, len(evaluate.nodes)))
    share = np.arange(len(values)) / len(evaluate.nodes)
    areas = curve.areas(share, values)
    smallest = curve.smallest(values)
    frame = pl.DataFrame(
        {
            "size": np.arange(len(values)),
            "node_share": share,
            "faithfulness": values,
            "component": [None, *(evaluate.nodes[i] for i in ranking)],
        }
    )
    rows = [score_row(name, value) for name, value in vars(areas).items()]
    return frame, [*rows, score_row("smallest_at_90", float("nan") if smallest is None else float(smallest))]
