"""A pass of total effects over a sample of a run's text: read this first.

1. The run's text is read again (or the corpora that the caller names), in windows chosen by hash: `tokens` of it.
2. The mean of what every unit does: the second reference beside zero.
3. Each batch: effects of every unit by every method, summed by replicate group; against zero also singly at the run's
   uniform sample of positions, where it is known what holds. `integrated` takes the first windows by hash alone.
4. The same batches: what each unit does through the final norm's denominator.
5. Are the estimates true: ablations (`checks`); self-repair of heads (`repair`); through whom (`routes`).

Cost: of each method in `profiler.effects.methods`; all of it is measured and stored beside a forward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import torch

from profiler.database import query
from profiler.effects import checks, final_norm, repair, routes, tables
from profiler.effects.ablation import batched
from profiler.effects.methods import BlockEffects, References, effects, references
from profiler.effects.settings import EffectSettings, Method
from profiler.effects.store import ROWS, SUMS
from profiler.effects.sums import Counts, EffectSums, units_of
from profiler.errors import CorpusError
from profiler.generality.distributions import corpus as texts
from profiler.generality.distributions.subject import Reread, RunText
from profiler.model.components import Block
from profiler.model.gradients.network import EffectNetwork
from profiler.model.load import Model
from profiler.text.sampling_keys import stable_hash
from profiler.text.windows import Batch, Window, make_batch

SHIFTED = 16
"""Units whose entropy and margin are measured: those of the largest mean size of the change of the denominator."""
SHIFTED_WINDOWS = 16
"""Windows, of different documents where there are any, that these are measured in."""
ROUTED = 4
"""Windows of a batch where effects are split over what reads them."""
STAGES = 7
"""Stages that are reported beside one for each method, loading the model included."""
Report = Callable[[str], None]
Frames = dict[str, pl.DataFrame]


@dataclass
class _Pass:
    """What a pass adds up.

    Attributes:
        dense: position ids of the run's uniform sample.
        rows: frames of total effects at the uniform sample: component_id, position_id, method, total.
        seconds: of each method.
    """

    sums: EffectSums
    dense: np.ndarray
    rows: list[pl.DataFrame] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def measure(run: Path, model: Model, settings: EffectSettings, reread: Reread, report: Report) -> Frames:
    """Every table of a pass, by name.

    Raises:
        CorpusError: the run has no corpus, or it cannot be read again.
    """
    report("reading the text")
    text = texts.read(run, model, settings.tokens, reread)
    if not text.batches:
        raise CorpusError(f"{run} has no text to measure effects on: {text.note or 'no window was chosen'}")
    net = EffectNetwork(model)
    report("means")
    began = perf_counter()
    known = references(net, text.batches)
    plain = (perf_counter() - began) / text.n_tokens
    through = _Pass(EffectSums(model.spec), _dense(run))
    for method in settings.methods:
        report(f"effects by {method}")
        _add_method(net, text, method, known, settings, through)
    groups = text.layout.groups_per_domain
    frames = {"effect_totals": tables.totals(through.sums, groups), SUMS: tables.group_sums(through.sums)}
    if through.rows:
        frames[ROWS] = pl.concat(through.rows)
    report("the final norm")
    frames["effect_norms"] = _norms(net, text, groups)
    frames |= _checked(net, text, known, settings, report)
    if settings.routes:
        report("through whom heads act")
        frames["effect_routes"] = _routes(net, text, known, settings, frames["effect_totals"])
    frames["effect_passes"] = pl.DataFrame(list(_passes(text, net, settings, through, plain)))
    return frames


def _dense(run: Path) -> np.ndarray:
    """Position ids of the run's uniform sample."""
    return query.run(run, "SELECT position_id FROM position_rows WHERE dense")["position_id"].to_numpy()


def batches_of(text: RunText, method: Method, settings: EffectSettings) -> Sequence[Batch]:
    """The batches that a method reads: all, or for `integrated` those of the first windows by hash."""
    if method != "integrated":
        return text.batches
    chosen = by_hash(text.windows, settings.seed, settings.integrated_tokens)
    ordered = sorted(chosen, key=lambda window: (-len(window.token_ids), window.window_id))
    return [make_batch(ordered[i : i + texts.BATCH], text.layout) for i in range(0, len(ordered), texts.BATCH)]


def by_hash(windows: Sequence[Window], seed: int, tokens: int) -> list[Window]:
    """The first windows in an order fixed by seed, document and number, until they have so many tokens."""
    ordered = sorted(windows, key=lambda w: (stable_hash(f"effects {seed} {w.document.place} {w.number}"), w.window_id))
    sizes = np.cumsum([len(window.token_ids) for window in ordered])
    return ordered[: int(np.searchsorted(sizes, tokens)) + 1]


def _add_method(
    net: EffectNetwork, text: RunText, method: Method, known: References, settings: EffectSettings, into: _Pass
) -> None:
    began = perf_counter()
    for batch in batches_of(text, method, settings):
        into.sums.count(method, batch)
        dense = torch.from_numpy(np.isin(batch.position_ids.numpy(), into.dense)) & batch.ordinary
        for of_block in effects(net, batch, method, known, settings.steps):
            into.sums.add(method, batch, of_block)
            if of_block.reference == "zero" and bool(dense.any()):
                into.rows.append(_rows(net, method, batch, dense, of_block))
    into.seconds[method] = perf_counter() - began


def _rows(net: EffectNetwork, method: str, batch: Batch, dense: torch.Tensor, of_block: BlockEffects) -> pl.DataFrame:
    """Total effects of a block's units at positions of the run's uniform sample."""
    ids, positions = net.model.spec.slices[of_block.block], batch.position_ids[dense].numpy()
    total = of_block.total["logit"]
    return pl.DataFrame(
        {
            "component_id": np.tile(np.arange(ids.start, ids.stop), len(positions)),
            "position_id": np.repeat(positions, of_block.block.units),
            "method": method,
            "total": total[dense.to(total.device)].float().cpu().numpy().flatten(),
        },
        schema_overrides={"component_id": pl.Int32},
    )


@torch.no_grad()
def _norms(net: EffectNetwork, text: RunText, groups_per_domain: int) -> pl.DataFrame:
    """Table `effect_norms`."""
    spec, counts = net.model.spec, Counts()
    if final_norm.norm_of(net) is None:
        return pl.DataFrame()
    sums: dict[int, np.ndarray] = {}
    both = EffectSums(spec)
    for batch in text.batches:
        both.count("norm", batch)
        for block, change in final_norm.changes(net, net.run(batch.tokens, batch.targets)):
            for group in batch.groups.unique().tolist():
                at = (batch.ordinary & (batch.groups == group)[:, None]).to(net.device)
                fields = torch.stack([change[at].sum(0), change[at].abs().sum(0)], -1)
                room = sums.setdefault(group, np.zeros((units_of(spec), 2)))
                room[spec.slices[block]] += fields.double().cpu().numpy()
    counts = both.counts["norm"]
    frame = tables.norms(spec, sums, counts, groups_per_domain)
    largest = frame.sort("scale_size", "component_id", descending=[True, False])["component_id"].head(SHIFTED).to_list()
    units = [unit_of_block for unit in largest if (unit_of_block := _place(net, unit)) is not None]
    parts = [
        final_norm.shifts(net, batch, net.run(batch.tokens, batch.targets), units)
        for batch in _spread(text, SHIFTED_WINDOWS)
    ]
    merged = [_joined([part[i] for part in parts]) for i in range(len(units))]
    return frame.join(tables.shifts(spec, units, merged), on="component_id", how="left")


def _spread(text: RunText, n: int) -> Iterator[Batch]:
    """Small batches of single windows, of different documents where there are any."""
    firsts = list({window.document.doc_id: window for window in reversed(text.windows)}.values())
    ordered = sorted(firsts, key=lambda w: stable_hash(f"shift {w.document.place}"))
    return (make_batch([window], text.layout) for window in ordered[:n])


def _joined(parts: Sequence[final_norm.Shift]) -> final_norm.Shift:
    entropy, margin = (np.concatenate([getattr(part, name) for part in parts]) for name in ("entropy", "margin"))
    return final_norm.Shift(entropy, margin, tuple(document for part in parts for document in part.documents))


def _place(net: EffectNetwork, component_id: int) -> tuple[Block, int] | None:
    """Block and number of a unit that is measured."""
    return next(
        (
            (block, component_id - units.start)
            for block, units in net.model.spec.slices.items()
            if block in net.writers and units.start <= component_id < units.stop
        ),
        None,
    )


def _checked(net: EffectNetwork, text: RunText, known: References, settings: EffectSettings, report: Report) -> Frames:
    """Tables of ablations: estimates held against the truth, and self-repair."""
    frames: Frames = {}
    every = by_hash(text.windows, settings.seed + 1, text.n_tokens)
    windows = every[: settings.checked_windows]
    if settings.checked:
        report("ablations beside the estimates")
        made = checks.check(net, text.layout, windows, known, settings)
        frames |= {"effect_checks": made, "effect_reliability": checks.reliability_rows(made)}
        frames["effect_recall"] = checks.recall_rows(made)
    if settings.repair:
        report("self-repair of heads")
        frames["effect_repair"] = repair.repair(
            net, text.layout, windows, known["mean"], settings.repair, settings.seed
        )
    return frames


def _routes(
    net: EffectNetwork, text: RunText, known: References, settings: EffectSettings, totals: pl.DataFrame
) -> pl.DataFrame:
    """Table `effect_routes`: of the heads that act most through others."""
    method = "integrated" if "integrated" in settings.methods else settings.methods[0]
    heads = totals.filter(pl.col("method") == method, pl.col("reference") == "mean")
    units = {unit: unit_of_block for unit in heads["component_id"] if (unit_of_block := _place(net, unit)) is not None}
    ordered = heads.sort("through_importance", "component_id", descending=[True, False])["component_id"]
    chosen = [units[unit] for unit in ordered if units[unit][0].kind == "head"][: settings.routes]
    windows = by_hash(text.windows, settings.seed + 1, text.n_tokens)[: settings.checked_windows]
    batches = [make_batch(list(part), text.layout) for part in batched(windows, ROUTED)]
    return routes.routes(net.model, batches, chosen, known, settings.steps)


def _passes(
    text: RunText, net: EffectNetwork, settings: EffectSettings, through: _Pass, plain: float
) -> Iterator[dict[str, object]]:
    """Rows of `effect_passes`: one for each method.

    Args:
        plain: seconds of a bare forward pass, per token.
    """
    for method in settings.methods:
        counts = through.sums.counts[method]
        n_tokens = sum(len(w.token_ids) for batch in batches_of(text, method, settings) for w in batch.windows)
        yield {
            "method": method,
            "n_tokens": n_tokens,
            "n_positions": sum(counts.positions.values()),
            "n_special": sum(counts.special.values()),
            "n_documents": len(counts.documents),
            "n_corpus": text.n_corpus,
            "note": text.note,
            "left_out": net.left_out,
            "seconds": through.seconds[method],
            "cost": through.seconds[method] / n_tokens / plain,
        }
