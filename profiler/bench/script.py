"""The script a user would write with TransformerLens, as the tutorials do it: cache, head results, neuron DLA, moments,
top-k, a histogram.

It keeps less than `profiler record` (no classes, groups of documents, random samples, attention summaries or files), and it is
not slowed down on purpose: products are batched, nothing is looped over that a tensor operation does. It measures what the
convenient way costs.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

TOP, BINS, WIDEST = 10, 100, 10.0


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
            result = torch.einsum(
                "bthd,hdm->bthm", z.unflatten(-1, (cfg.n_heads, -1)) if z.ndim == 3 else z, block.attn.W_O
            )
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
