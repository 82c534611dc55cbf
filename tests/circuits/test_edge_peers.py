"""EAP-IG and MIB's metrics by their definitions on TransformerLens' own hooks, beside ours, on the bundled model.

The authors' programs import classes that TransformerLens no longer has, so their formulas are written again here, on
another forward pass than ours: hannamw/EAP-IG (get_scores_eap_ig, evaluate_graph) and hannamw/MIB-circuit-track
(evaluate_area_under_curve). docs/circuits.md has what the authors' own programs gave.
"""

from functools import partial

import numpy as np
import pytest
import torch

from profiler.bench.script import bridge_of
from profiler.circuits import edge_mask, edges
from profiler.circuits.by_edges import edge_sets, edge_tables, fractions
from profiler.config import RunConfig
from profiler.model.load import load_model
from profiler.model.steps.as_network import network_of
from profiler.patching import setting
from profiler.patching.metrics import logit_diff
from profiler.prompts.pairs import Encoded

pytestmark = pytest.mark.slow
STEPS, PAIRS = 5, 4


@pytest.fixture(scope="module")
def both():
    """Pairs of one length, our runs of them, and TransformerLens' model with every reader's input split."""
    model = load_model(RunConfig(model="bundled", corpora=("none",)))
    asked = setting.PatchSettings("ioi", pairs=48)
    found = setting.encoded(model, setting.draw(model, asked, "train", 0)).pairs
    lengths = [len(pair.clean) for pair in found]
    alike = tuple(pair for pair in found if len(pair.clean) == max(set(lengths), key=lengths.count))[:PAIRS]
    runs = setting.prepare("discovery", network_of(model), Encoded(alike, ()))
    bridge = bridge_of(model)
    bridge.set_use_attn_result(True)
    bridge.set_use_split_qkv_input(True)
    bridge.set_use_hook_mlp_in(True)
    return runs, bridge


class Hooks:
    """Writers and readers of a TransformerLens model in the order of our graph."""

    def __init__(self, runs, bridge):
        self.runs, self.bridge, self.graph = runs, bridge, edge_mask.graph_of(runs.net.plain)
        self.n, self.heads = self.graph.n_layers, self.graph.n_heads

    def writes(self, tokens):
        """[writer, prompt, position, model] of a run."""
        with torch.no_grad():
            _, cache = self.bridge.run_with_cache(tokens)
        parts = [cache["hook_embed"][None]]
        for layer in range(self.n):
            parts.append(cache[f"blocks.{layer}.attn.hook_result"].permute(2, 0, 1, 3))
            parts.append(cache[f"blocks.{layer}.hook_mlp_out"][None])
        return torch.cat(parts).clone()

    def readers(self):
        """Hook name and columns of each reader."""
        for layer in range(self.n):
            first = self.graph.reader_slice(layer).start
            for i, part in enumerate("qkv"):
                columns = slice(first + i * self.heads, first + (i + 1) * self.heads)
                yield f"blocks.{layer}.hook_{part}_input", columns
            yield f"blocks.{layer}.hook_mlp_in", self.graph.reader_slice(layer, mlp=True)
        yield f"blocks.{self.n - 1}.hook_resid_post", slice(-1, None)


def _scores(hooks: Hooks) -> np.ndarray:
    """Mean change of the logit difference over pairs and over inputs k / steps of the way from the corrupted prompt."""
    batch = hooks.runs.batch
    corrupted, clean = hooks.writes(batch.corrupted), hooks.writes(batch.clean)
    change = corrupted - clean
    total = torch.zeros(len(hooks.graph.writers), len(hooks.graph.readers))
    for step in range(STEPS):
        start = (corrupted[0] + step / STEPS * (clean[0] - corrupted[0])).requires_grad_()

        def note(columns, slope, hook):
            slope = slope if slope.ndim == 4 else slope[:, :, None]
            total[:, columns] += torch.einsum("wpom,porm->wr", change, slope)

        back = [(name, partial(note, columns)) for name, columns in hooks.readers()]
        with hooks.bridge.hooks(fwd_hooks=[("hook_embed", partial(_instead, start))], bwd_hooks=back):
            logits = hooks.bridge(batch.clean)
            logit_diff(logits[torch.arange(len(batch)), batch.ends], batch.options).sum().backward()
    return (total * hooks.graph.exists / len(batch) / STEPS).numpy()


def _instead(start: torch.Tensor, value: torch.Tensor, hook: object) -> torch.Tensor:
    return start


def _masked(hooks: Hooks, keep: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Logits with the edges outside `keep` carrying `other`: differences are noted and added by hooks."""
    batch, difference = hooks.runs.batch, other.clone()
    drop = (~keep & hooks.graph.exists).float()

    def hear(columns, value, hook):
        told = torch.einsum("wpom,wr->porm", difference, drop[:, columns])
        return value + (told if value.ndim == 4 else told[:, :, 0])

    def wrote(rows, value, hook):
        difference[rows] -= value.permute(2, 0, 1, 3) if value.ndim == 4 else value[None]

    forward = [(name, partial(hear, columns)) for name, columns in hooks.readers()]
    forward.append(("hook_embed", partial(wrote, slice(0, 1))))
    for layer in range(hooks.n):
        first = hooks.graph.before(layer)
        forward.append((f"blocks.{layer}.attn.hook_result", partial(wrote, slice(first, first + hooks.heads))))
        mlp = slice(first + hooks.heads, first + hooks.heads + 1)
        forward.append((f"blocks.{layer}.hook_mlp_out", partial(wrote, mlp)))
    with torch.no_grad(), hooks.bridge.hooks(fwd_hooks=forward):
        return hooks.bridge(batch.clean)[torch.arange(len(batch)), batch.ends]


def test_eap_ig_is_that_of_the_definition(both: tuple) -> None:
    hooks = Hooks(*both)
    along = [1 - step / STEPS for step in range(STEPS)]
    runs = both[0]
    ours = edges.edge_scores(runs.net.plain, runs.clean, runs.corrupted, runs.batch.clean, runs.batch, along).numpy()
    theirs = _scores(hooks)
    assert np.abs(theirs).max() > 1
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    plain = edges.edge_scores(runs.net.plain, runs.clean, runs.corrupted, runs.batch.clean, runs.batch).numpy()
    fine, few = (edge_tables.estimates_of(runs, steps).change.numpy() for steps in (32, 8))
    exists = hooks.graph.exists.numpy()
    near = [np.corrcoef(some[exists], fine[exists])[0, 1] for some in (plain, theirs, few)]
    assert near[0] < 0.95 < near[1] < near[2]  # one gradient, the authors' five steps, our eight midpoints


def test_cpr_and_cmd_are_those_of_the_definition(both: tuple) -> None:
    hooks, runs = Hooks(*both), both[0]
    estimated, evaluate = edge_tables.estimates_of(runs, STEPS), edge_sets.evaluator(runs)
    table = fractions.rows(evaluate, estimated.importance)
    other = hooks.writes(runs.batch.corrupted)
    worth, exists = estimated.importance, hooks.graph.exists.numpy()

    def value(keep: torch.Tensor) -> float:
        return logit_diff(_masked(hooks, keep, other), runs.batch.options).mean().item()

    whole, empty = value(hooks.graph.exists), value(torch.zeros_like(hooks.graph.exists))
    for ranking, form in (("signed", np.asarray), ("absolute", np.abs)):
        listed = np.argsort(-np.where(exists, form(worth), -np.inf).flatten(), kind="stable")
        reached = []
        for fraction in fractions.FRACTIONS:
            keep = torch.zeros(exists.size, dtype=torch.bool)
            keep[listed[: int(fraction * exists.sum())].copy()] = True
            reached.append((value(keep.reshape(exists.shape)) - empty) / (whole - empty))
        ours = table.filter(level="edge", ranking=ranking).sort("fraction")["faithfulness"].to_numpy()
        assert np.abs(ours - np.array(reached)).max() < 1e-4
