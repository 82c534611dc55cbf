"""A user's script with TransformerLens: cache, head results, neuron DLA, moments, top-k, a histogram.

`Script` keeps less than `profiler record`: no classes, no groups of documents, one end of the values and not where they
stood. `SplitScript` keeps those too, and so comes nearer to what `record` keeps; random samples per bin, attention
summaries, sums per token, the context of what is kept, files and commits are still left out. Neither is slowed down on
purpose: products are batched, nothing is looped over that a tensor operation does. They measure what the convenient way
costs.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from profiler.errors import ModelError
from profiler.model.load import Model
from profiler.recording.accumulators.cells import N_CLASSES, Axes

TOP, BINS, WIDEST, GROUPS = 10, 100, 10.0, 8


def bridge_of(model: Model) -> TransformerBridge:
    """TransformerLens' view of a model.

    Raises:
        ModelError: TransformerLens does not read its family.
    """
    if model.bridge is None:
        raise ModelError(
            "TransformerLens does not read this model, so nothing can be measured beside it: bench another"
        )
    return model.bridge


@dataclass
class Script:
    """The loop body, `batch`, and what it adds up, by name of activation."""

    bridge: TransformerBridge
    moments: dict[str, Tensor] = field(default_factory=dict)
    top: dict[str, Tensor] = field(default_factory=dict)
    histogram: dict[str, Tensor] = field(default_factory=dict)

    @torch.inference_mode()
    def batch(self, tokens: Tensor) -> None:
        """Cache everything a batch needs, attribute it to the realised next token, and add it up."""
        bridge, cfg = self.bridge, self.bridge.cfg
        names = {f"blocks.{i}.{part}" for i in range(cfg.n_layers) for part in ("attn.hook_z", "mlp.out.hook_in")}
        _, cache = bridge.run_with_cache(tokens, names_filter=lambda name: name in names | {"ln_final.hook_in"})
        residual = cache["ln_final.hook_in"]
        residual = residual - residual.mean(-1, keepdim=True)
        scale = (residual.square().mean(-1, keepdim=True) + cfg.eps).sqrt()
        toward = (bridge.W_U[:, tokens[:, 1:]].movedim(0, -1) - bridge.W_U.mean(1)) * bridge.ln_final.weight
        toward = (toward - toward.mean(-1, keepdim=True)) / scale[:, :-1]
        for i, block in enumerate(bridge.blocks):
            z = cache[f"blocks.{i}.attn.hook_z"][:, :-1]
            result = torch.einsum("bthd,hdm->bthm", z.reshape(*z.shape[:2], cfg.n_heads, -1), block.attn.W_O)
            self._add(f"{i} heads", result.norm(dim=-1), torch.einsum("bthm,btm->bth", result, toward))
            post = cache[f"blocks.{i}.mlp.out.hook_in"][:, :-1]
            self._add(f"{i} neurons", post, post * (toward @ block.mlp.W_out.T))

    def _add(self, name: str, *values: Tensor) -> None:
        for kind, value in zip(("activation", "dla"), values, strict=True):
            self._add_one(f"{name} {kind}", value.flatten(0, 1))

    def _add_one(self, name: str, value: Tensor) -> None:
        powers = torch.stack([value.double().pow(power).sum(0) for power in (1, 2, 3, 4)])
        best = (
            torch.cat([*([self.top[name]] if name in self.top else []), value]).topk(min(TOP, len(value)), dim=0).values
        )
        bins = ((value / WIDEST + 1) * BINS / 2).clamp(0, BINS - 1).long()
        counts = torch.zeros(BINS, value.shape[1], device=value.device).scatter_add_(0, bins, torch.ones_like(value))
        self.moments[name] = self.moments.get(name, 0) + powers
        self.top[name], self.histogram[name] = best, self.histogram.get(name, 0) + counts


@dataclass
class SplitScript(Script):
    """The same script with what `record` splits by: class, next class and position, in groups of windows.

    A window's row stands for its document. Power sums and a histogram per class with the DLA in each bin; both ends
    with their positions.

    `classes` is the class of each token id; `read`, how many positions were read before.
    """

    classes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    sums: dict[str, Tensor] = field(default_factory=dict)
    read: int = 0

    def batch(self, tokens: Tensor) -> None:
        """One batch."""
        of, (n, width) = self.classes[tokens], tokens[:, 1:].shape
        rows = (torch.arange(n) % GROUPS)[:, None].expand(n, width).flatten()
        self.axes = {
            "class": of[:, :-1].flatten(),
            "next": of[:, 1:].flatten(),
            "position": Axes.buckets(width).repeat(n),
        }
        self.cells = {name: rows * N_CLASSES + values for name, values in self.axes.items()}
        super().batch(tokens)
        self.read += n * width

    def _add(self, name: str, *values: Tensor) -> None:
        activation, dla = (value.flatten(0, 1) for value in values)
        quantities = (activation, dla, dla.abs())
        for axis, cells in self.cells.items():
            for kind, value in zip(("activation", "dla", "|dla|"), quantities, strict=True):
                self._to(f"{name} {kind} by {axis}", GROUPS * N_CLASSES, cells, value.double())
        for kind, value in zip(("activation", "dla"), quantities, strict=False):
            for power in (2, 3, 4):
                self._to(f"{name} {kind} to the {power}", N_CLASSES, self.axes["class"], value.double().pow(power))
            self._ends(f"{name} {kind}", value)
        bins = ((activation / WIDEST + 1) * BINS / 2).clamp(0, BINS - 1).long() + self.axes["class"][:, None] * BINS
        for kind, value in zip(("n", "dla", "|dla|"), (torch.ones_like(dla), *quantities[1:]), strict=True):
            total = self.histogram.setdefault(f"{name} {kind}", torch.zeros(N_CLASSES * BINS, dla.shape[1]))
            total.scatter_add_(0, bins, value)

    def _to(self, name: str, n: int, cells: Tensor, value: Tensor) -> None:
        total = self.sums.setdefault(name, torch.zeros(n, value.shape[1], dtype=torch.float64))
        total.index_add_(0, cells, value)

    def _ends(self, name: str, value: Tensor) -> None:
        """Largest and smallest values and the numbers of their positions."""
        at = torch.arange(self.read, self.read + len(value))[:, None].expand_as(value)
        for end, largest in ((f"{name} top", True), (f"{name} bottom", False)):
            best, index = value.topk(min(TOP, len(value)), dim=0, largest=largest)
            index = at.gather(0, index)
            if end in self.top:
                best, index = torch.cat([self.top[end], best]), torch.cat([self.top[f"{end} at"], index])
                best, order = best.topk(min(TOP, len(best)), dim=0, largest=largest)
                index = index.gather(0, order)
            self.top[end], self.top[f"{end} at"] = best, index
