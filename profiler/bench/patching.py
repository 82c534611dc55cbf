"""How long patching takes, beside TransformerLens, on one model and batch in one process.

Both sides of each ratio are run in turn several times and their fastest times compared, in time of the process on its
cores, so that a busy machine does not decide. A forward pass is the functional one of all logits; TransformerLens' own
is stated too. Cost: about a minute.
"""

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import patching

from profiler.bench.script import bridge_of
from profiler.circuits.edge_mask import all_writes, graph_of, masked
from profiler.model.load import Model
from profiler.model.steps.as_network import logits_of, network_of_heads
from profiler.model.steps.network import forward
from profiler.patching import setting
from profiler.patching.batch import PairBatch
from profiler.patching.metrics import logit_diff
from profiler.patching.setting import PatchSettings
from profiler.patching.sites import every
from profiler.patching.sweep import resample, sweep

ROUNDS = 3
FEW, MOST = 0.05, 0.95
"""Shares of edges in the circuits that are timed."""


def compare(model: Model, settings: PatchSettings) -> Iterator[str]:
    """Lines: seconds of each, and the ratios that are promised."""
    net = network_of_heads(model)
    main = setting.prepare(
        "bench", net, setting.encoded(model, setting.draw(model, settings, settings.split, settings.seed))
    )
    batch, heads = main.batch, every(net, "head")
    writes = all_writes(net.plain, main.corrupted)
    exists = graph_of(net.plain).exists
    few = exists & (torch.rand(exists.shape, generator=torch.Generator().manual_seed(0)) < FEW)
    most = exists & (torch.rand(exists.shape, generator=torch.Generator().manual_seed(1)) < MOST)
    values = {}

    def sweep_ours() -> None:
        differences = torch.zeros(len(heads), len(batch), dtype=net.dtype)
        for indices, logits in sweep(net, main.corrupted, batch, heads, resample(main.clean)):
            differences[indices] = torch.stack([logit_diff(row, batch.options) for row in logits])
        values["ours"] = differences

    def sweep_theirs() -> None:
        values["theirs"] = head_sweep(model, batch)

    work: dict[str, Callable[[], object]] = {
        "forward": lambda: forward(net, batch.clean),
        "TransformerLens forward": lambda: logits_of(model, batch.clean),
        "circuit, 5 % of edges": lambda: masked(net.plain, batch.clean, batch.ends, few, writes),
        "circuit, 95 % of edges": lambda: masked(net.plain, batch.clean, batch.ends, most, writes),
        "head sweep": sweep_ours,
        "TransformerLens head sweep": sweep_theirs,
    }
    took = fastest(work)
    yield (
        f"{len(batch)} pairs of at most {batch.clean.shape[1]} tokens, {len(heads)} heads, {torch.get_num_threads()}"
        " thread(s)"
    )
    yield from (f"{name}: {seconds:.3f} s of CPU" for name, seconds in took.items())
    plain = took["forward"]
    yield from (f"{name}: {took[name] / plain:.2f} forward passes" for name in work if name.startswith("circuit"))
    yield f"head sweep, per head: {took['head sweep'] / len(heads) / plain:.2f} forward passes"
    yield f"head sweep, TransformerLens over ours: {took['TransformerLens head sweep'] / took['head sweep']:.1f}"
    yield (
        "largest difference of the two sweeps' logit differences:"
        f" {(values['ours'] - values['theirs']).abs().max():.1e}"
    )


def fastest(work: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """The fastest of a few interleaved runs of each, seconds of CPU."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, run in work.items():
            began = time.process_time()
            with torch.inference_mode():
                run()
            best[name] = min(best[name], time.process_time() - began)
    return best


def head_sweep(model: Model, batch: PairBatch) -> Float[Tensor, "head prompt"]:
    """Logit differences with each head's clean output in the corrupted run, by TransformerLens: one run a head."""
    bridge = bridge_of(model)
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.spec.n_layers)]
    rows = torch.arange(len(batch), device=batch.ends.device)
    with torch.inference_mode(), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        _, cache = bridge.run_with_cache(batch.clean, names_filter=lambda name: name in names)
        patched: Any = patching.get_act_patch_attn_head_out_all_pos(
            bridge,
            batch.corrupted,
            cache,
            lambda logits: logit_diff(logits[rows, batch.ends], batch.options),
            reduce="none",
        )
    return cast(Tensor, patched.values.reshape(-1, len(batch)))
