"""Self-repair: what every later component writes differently when one component is taken away.

Why: a component may be replaced by others when it is gone, so that its removal seems to cost little (the essay on
serial redundancy; Rushing and Nanda 2024, "Explorations of self-repair"). The logit difference is linear in what each
component writes, for a fixed final norm: DLA_c = write_c . g, with

    g = W_g (mean u_answer - mean u_distractor), divided by the norm's denominator s

so that, all DLA taken at the clean run's s and with s' the denominator of the ablated run, the change splits exactly:

    change = change of DLA_x + sum over others of change of DLA_c + (s / s' - 1) * sum over c of DLA'_c

The first term is the direct loss; the second self-repair by heads and by MLPs; the third, closed-form, is the norm's
own part, which the literature leaves as a remainder. Cost: one forward pass from the ablated layer on per component.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from profiler.model.network import Logits, Network, Offsets, at, forward
from profiler.patching.batch import PairBatch, Tokens
from profiler.patching.metrics import logit_diff
from profiler.patching.sites import Target
from profiler.patching.sweep import Donor, at_queries, put, refuse_unfired


@dataclass(frozen=True, eq=False)
class Writes:
    """Direct logit attributions of one run, in logits, at one norm denominator.

    Attributes:
        dla: per component of `names` and pair; together with `constant` they add up to the logit difference.
        constant: biases of norm and unembedding, which no denominator divides.
        scale: the denominator of this run.
        logit_diff: the logit difference, from the logits.
    """

    dla: Float[Tensor, "prompt component"]
    constant: Float[Tensor, " prompt"]
    scale: Float[Tensor, " prompt"]
    logit_diff: Float[Tensor, " prompt"]


def names(net: Network) -> list[str]:
    """Components of `Writes`: embed, pos_embed, then each layer's heads, MLP neurons together, and biases."""
    listed = ["embed", "pos_embed"]
    for layer in range(net.n_layers):
        listed += [f"L{layer}H{head}" for head in range(net.n_heads)]
        listed += [f"L{layer}_mlp_out", f"L{layer}_attn_bias"]
    return listed


def direction(net: Network, batch: PairBatch) -> Float[Tensor, "prompt model"]:
    """g of the module docstring, before the division."""
    u = net.unembed.T
    options = batch.options
    toward = torch.einsum("po,pom->pm", options.answer_weight.to(u.dtype), u[options.answers])
    toward = toward - torch.einsum("po,pom->pm", options.distractor_weight.to(u.dtype), u[options.distractors])
    return net.norm_final.before(toward)


def writes(
    net: Network, sites: dict[tuple[str, int], Tensor], batch: PairBatch, logits: Logits, scale: Tensor | None = None
) -> Writes:
    """DLA of every component from its values at the ends.

    Args:
        sites: `head` and `mlp_out` of each layer, `embed`, and `resid_final`, each [prompt ...] at the end position.
        logits: of the run.
        scale: the denominator to take; by default this run's own.
    """
    toward = direction(net, batch)
    own = net.norm_final.scale(sites["resid_final", net.n_layers])[:, 0]
    g = toward / (own if scale is None else scale)[:, None]
    positions = torch.zeros_like(g) if net.positions is None else net.positions[batch.ends]
    parts = [(sites["embed", 0] * g).sum(-1)[:, None], (positions * g).sum(-1)[:, None]]
    for layer, w in enumerate(net.layers):
        seen = torch.einsum("hdm,pm->phd", w.w_o, g)
        parts.append((sites["head", layer] * seen).sum(-1))
        parts += [(sites["mlp_out", layer] * g).sum(-1)[:, None], (w.b_o * g).sum(-1)[:, None]]
    return Writes(torch.cat(parts, -1), _constant(net, batch), own, logit_diff(logits, batch.options))


def _constant(net: Network, batch: PairBatch) -> Float[Tensor, " prompt"]:
    """What the final norm's bias and the unembedding's bias add to the logit difference."""
    bias = net.b_unembed if net.norm_final.eps is None else net.norm_final.bias @ net.unembed + net.b_unembed
    options = batch.options
    answers = (bias[options.answers] * options.answer_weight).sum(-1)
    return answers - (bias[options.distractors] * options.distractor_weight).sum(-1)


def run_writes(
    net: Network,
    tokens: Tokens,
    batch: PairBatch,
    targets: Sequence[Target] = (),
    donor: Donor | None = None,
    scale: Tensor | None = None,
) -> Writes:
    """DLA of a run, with targets patched.

    Raises:
        PatchError: a patch never fired.
    """
    sites: dict[tuple[str, int], Tensor] = {}
    fired: set[Target] = set()

    def edit(site: str, layer: int, value: Tensor, positions: Offsets) -> Tensor:
        for target in targets:
            if (target.site, target.layer) == (site, layer):
                value = put(
                    value,
                    at_queries(donor(site, layer), site, positions),
                    at(batch.mask(target.positions), positions),
                    target,
                )
                fired.add(target)
        if site in ("head", "mlp_out", "embed", "resid_final"):
            sites[site, layer] = value[:, 0] if positions is not None else at(value, batch.ends)[:, 0]
        return value

    with torch.inference_mode():
        logits = forward(net, tokens, edit, batch.ends)
        refuse_unfired(targets, fired)
        return writes(net, sites, batch, logits, scale)


@dataclass(frozen=True, eq=False)
class Repair:
    """What happens downstream of one ablation, per pair, in logits of the logit difference.

    Attributes:
        target: what was ablated.
        change: patched minus clean logit difference.
        direct: change of the target's own DLA.
        delta: change of every component's DLA (the target's too), at the clean denominator.
        norm: the final norm's part.
    """

    target: Target
    change: Float[Tensor, " prompt"]
    direct: Float[Tensor, " prompt"]
    delta: Float[Tensor, "prompt component"]
    norm: Float[Tensor, " prompt"]

    @property
    def repaired(self) -> Float[Tensor, " prompt"]:
        """Self-repair: the change minus the direct loss, norm included."""
        return self.change - self.direct

    @property
    def residual(self) -> Float[Tensor, " prompt"]:
        """What the identity leaves over: rounding."""
        return self.change - self.delta.sum(-1) - self.norm


def repair(net: Network, before: Writes, tokens: Tokens, batch: PairBatch, target: Target, donor: Donor) -> Repair:
    """Ablate one head or MLP of the run of `tokens` and take its downstream table.

    Args:
        before: `run_writes` of the same tokens without a patch.
    """
    after = run_writes(net, tokens, batch, [target], donor, before.scale)
    delta = after.dla - before.dla
    norm = (before.scale / after.scale - 1) * after.dla.sum(-1)
    change = after.logit_diff - before.logit_diff
    return Repair(target, change, delta[:, names(net).index(target.label)], delta, norm)
