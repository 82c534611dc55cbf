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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from profiler.model.steps.network import Logits, Network, Offsets, at, forward
from profiler.patching.batch import PairBatch, Tokens
from profiler.patching.metrics import logit_diff
from profiler.patching.sites import PER_HEAD, Target
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
    """Components of `Writes`: embed, pos_embed, then each layer's heads, its MLP together and its attention's bias.

    In a model with blocks of other kinds, or MLPs without a direct part of the logits, also the rest, which these
    write."""
    listed = ["embed", "pos_embed"]
    for layer in range(net.n_layers):
        listed += [f"L{layer}H{head}" for head in range(net.heads(layer))]
        listed += [f"L{layer}_mlp_out"] if net.direct("mlp_out", layer) else []
        listed += [f"L{layer}_attn_bias"]
    return [*listed, *(["rest"] if net.other_kinds else [])]


def direction(net: Network, batch: PairBatch) -> Float[Tensor, "prompt model"]:
    """g of the module docstring, before the division."""
    return _toward(net.toward, batch)


def _toward(of_tokens: Callable[[Tensor], Tensor], batch: PairBatch) -> Tensor:
    """A quantity of tokens: its mean over a pair's answers minus that over its distractors."""
    parts = []
    for tokens, weight in (
        (batch.options.answers, batch.options.answer_weight),
        (batch.options.distractors, batch.options.distractor_weight),
    ):
        values = of_tokens(tokens)
        parts.append((values * weight.to(values.dtype).view(*weight.shape, *[1] * (values.dim() - 2))).sum(1))
    return parts[0] - parts[1]


def writes(
    net: Network, sites: dict[tuple[str, int], Tensor], batch: PairBatch, logits: Logits, scale: Tensor | None = None
) -> Writes:
    """DLA of every component from its values at the ends.

    Args:
        sites: `head`, `attn_out` and `mlp_out` of each layer that has them, `resid_pre` of the first, `embed`, and
            `resid_final`, each [prompt ...] at the end position.
        logits: of the run.
        scale: the denominator to take; by default this run's own.
    """
    final = sites["resid_final", net.n_layers]
    own = net.final_scale(final)[:, 0]
    g = direction(net, batch) / (own if scale is None else scale)[:, None]
    zero = torch.zeros_like(g[:, 0])
    read = sites["resid_pre", 0]
    position = read - net.embedded(sites["embed", 0]) if net.places_matter else torch.zeros_like(read)
    parts = [((read - position) * g).sum(-1)[:, None], (position * g).sum(-1)[:, None]]
    for layer in range(net.n_layers):
        parts += [_heads(net, sites, layer, g), _mlp(net, sites, layer, g, zero), _bias(net, sites, layer, g, zero)]
    every = torch.cat(parts, -1)
    if net.other_kinds:
        every = torch.cat([every, ((final * g).sum(-1) - every.sum(-1))[:, None]], -1)
    return Writes(every, _toward(net.logit_bias, batch), own, logit_diff(logits, batch.options))


def _heads(net: Network, sites: dict[tuple[str, int], Tensor], layer: int, g: Tensor) -> Float[Tensor, "prompt head"]:
    if not net.heads(layer):
        return g[:, :0]
    written = torch.einsum("phd,hdm->phm", sites["head", layer], net.w_o(layer).to(g.dtype))
    added = net.added("attn_out", layer, written, sites["attn_out", layer][:, None])
    return (added * g[:, None]).sum(-1)


def _mlp(
    net: Network, sites: dict[tuple[str, int], Tensor], layer: int, g: Tensor, zero: Tensor
) -> Float[Tensor, "prompt column"]:
    """One column; none where the MLP has no direct part of the logits."""
    if not net.direct("mlp_out", layer):
        return g[:, :0]
    if not net.has_mlp(layer):
        return zero[:, None]
    out = sites["mlp_out", layer]
    bias = net.added_bias("mlp_out", layer)
    added = net.added("mlp_out", layer, out, out)
    return ((added if bias is None else added + bias) * g).sum(-1)[:, None]


def _bias(
    net: Network, sites: dict[tuple[str, int], Tensor], layer: int, g: Tensor, zero: Tensor
) -> Float[Tensor, "prompt 1"]:
    total, bias = zero, net.out_bias("attn_out", layer)
    if bias is not None and net.heads(layer):
        out = sites["attn_out", layer]
        total = total + (net.added("attn_out", layer, bias.to(out.dtype).expand_as(out), out) * g).sum(-1)
    own = net.added_bias("attn_out", layer)
    return (total if own is None else total + g @ own)[:, None]


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
                assert donor is not None
                value = put(
                    value,
                    at_queries(donor(site, layer), site, positions),
                    at(batch.mask(target.positions), positions),
                    target,
                )
                fired.add(target)
        if site in ("head", "attn_out", "mlp_out", "embed", "resid_final") or (site, layer) == ("resid_pre", 0):
            sites[site, layer] = value[:, 0] if positions is not None else at(value, batch.ends)[:, 0]
        return value

    with torch.inference_mode():
        logits = forward(net, tokens, edit, batch.ends, patterns=any(t.site in PER_HEAD for t in targets))
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
