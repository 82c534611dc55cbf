"""Many patches of one batch of pairs, each restarted where it acts.

Why: patching one head of the last layer does not change the layers before it. Every patch is turned into a change of
the residual stream at its layer; the layers after it are then run for many patches at once (patches x prompts rows).
Three things are never recomputed: layers before the patch, positions before the first that changes (their keys and
values are in the trace), and the last layer anywhere but where the answer is read.

`sweep` is exact: it equals `intervene`, the plain forward pass with the same values put in (a test holds it to that).
Cost of a head sweep: per head, less than half of the layers, at the changed positions only.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.errors import PatchError
from profiler.model.network import (
    Logits,
    Network,
    Offsets,
    Past,
    Stream,
    at,
    attend,
    forward,
    mix,
    mlp,
    resume,
    unchanged,
)
from profiler.patching.batch import PairBatch, Tokens, Trace
from profiler.patching.sites import Target, check_target

BATCH_TOKENS = 8192
Donor = Callable[[str, int], Tensor]
Report = Callable[[int], None]


def resample(other: Trace) -> Donor:
    """Values of the other run, prompt by prompt."""
    return lambda site, layer: other[site][layer]


def intervene(
    net: Network,
    tokens: Tokens,
    ends: Int[Tensor, " prompt"],
    batch: PairBatch,
    targets: Sequence[Target],
    donor: Donor,
) -> Logits:
    """Logits with all `targets` patched at once: the definition that `sweep` is checked against, and joint patches.

    Raises:
        PatchError: a target is not in the model, or its patch never fired.
    """
    for target in targets:
        check_target(net, target)
    fired: set[Target] = set()

    def edit(site: str, layer: int, value: Tensor, positions: Offsets) -> Tensor:
        for target in targets:
            if (target.site, target.layer) == (site, layer):
                mask = at(batch.mask(target.positions), positions)
                given = at_queries(donor(site, layer), site, positions)
                value = put(value, given, mask, target)
                fired.add(target)
        return value

    with torch.inference_mode():
        logits = forward(net, tokens, edit, ends)
    refuse_unfired(targets, fired)
    return logits


def refuse_unfired(targets: Sequence[Target], fired: set[Target]) -> None:
    """Raise if a patch never fired.

    Raises:
        PatchError: naming the first that did not.
    """
    for target in targets:
        if target not in fired:
            raise PatchError(f"the patch of {target.label} at {target.positions} never fired: nothing was measured")


def at_queries(value: Tensor, site: str, positions: Offsets) -> Tensor:
    """A whole-prompt value of a site at the positions that a forward pass with `ends` computes."""
    if positions is None:
        return value
    return at(value.transpose(1, 2), positions).transpose(1, 2) if site == "pattern" else at(value, positions)


def put(value: Tensor, given: Tensor, mask: Bool[Tensor, "prompt position"], target: Target) -> Tensor:
    """`value` with the target's unit replaced by `given` where the mask is true."""
    if target.site == "pattern":
        unit = torch.arange(value.shape[1], device=value.device) == target.unit
        return torch.where(unit[None, :, None, None] & mask[:, None, :, None], given, value)
    if target.unit is None:
        return torch.where(mask[..., None], given, value)
    unit = torch.arange(value.shape[2], device=value.device) == target.unit
    chosen = unit[None, None, :] & mask[..., None]
    return torch.where(chosen if target.site == "neuron" else chosen[..., None], given, value)


def sweep(
    net: Network,
    base: Trace,
    batch: PairBatch,
    targets: Sequence[Target],
    donor: Donor,
    tokens_at_once: int = BATCH_TOKENS,
    report: Report | None = None,
) -> Iterator[tuple[list[int], Float[Tensor, "target prompt vocab"]]]:
    """Patch each target alone into the run `base`.

    Args:
        base: trace of the run that is patched.
        targets: in any order; results come in order of site and layer.
        donor: what is put in.
        tokens_at_once: largest number of tokens (patches x prompts x positions) in one batch.
        report: called with the number of targets done.

    Yields:
        Indices into `targets`, and the logits of these patches.

    Raises:
        PatchError: a target is not in the model or has no position in some batch, so that its patch would never fire.
    """
    for target in targets:
        check_target(net, target)
        if not batch.mask(target.positions).any():
            raise PatchError(
                f"the patch of {target.label} at {target.positions} never fires: no pair has that position"
            )
    key = lambda i: (targets[i].site, targets[i].layer)  # noqa: E731
    done = 0
    for (site, layer), members in groupby(sorted(range(len(targets)), key=key), key=key):
        chosen = list(members)
        given = donor(site, layer)
        size = max(1, tokens_at_once // batch.clean.numel())
        for begin in range(0, len(chosen), size):
            part = chosen[begin : begin + size]
            with torch.inference_mode():
                yield part, _patched(net, base, batch, [targets[i] for i in part], given)
            done += len(part)
            if report:
                report(done)


def _patched(net: Network, base: Trace, batch: PairBatch, targets: list[Target], given: Tensor) -> Tensor:
    """Logits [target prompt vocab] of patches of one site and layer."""
    site, layer = targets[0].site, targets[0].layer
    masks = torch.stack([batch.mask(target.positions) for target in targets])
    first = _first_changed(base, site, layer, given, masks, batch)
    if first is None:
        return base.logits.expand(len(targets), *base.logits.shape)
    delta = _delta(net, base, targets, given, masks)
    logits = _rest(net, base, batch, site, layer, delta[:, :, first:], first)
    return logits.unflatten(0, (len(targets), len(batch)))


def _first_changed(base: Trace, site: str, layer: int, given: Tensor, masks: Tensor, batch: PairBatch) -> int | None:
    """The first position at which some patch changes something; None where none does (a patch of a run into itself)."""
    live = base[site][layer]
    differs = (given != live).transpose(1, 2) if site == "pattern" else given != live
    changed = differs.flatten(2).any(-1) & (masks.any(0) & batch.valid)
    positions = changed.any(0).nonzero()
    return min(int(positions[0]), int(batch.ends.min())) if len(positions) else None


def _delta(net: Network, base: Trace, targets: list[Target], given: Tensor, masks: Tensor) -> Float[Tensor, "t p o m"]:
    """What each patch adds to the residual stream, at the positions that its site changes."""
    site, layer = targets[0].site, targets[0].layer
    live, weights = base[site][layer], net.layers[layer]
    if site in ("resid_pre", "attn_out", "mlp_out"):
        return (given - live)[None] * masks[..., None]
    units = torch.tensor([target.unit for target in targets], device=live.device)
    if site == "neuron":
        change = (given - live)[..., units].permute(2, 0, 1) * masks
        return change[..., None] * weights.w_out[units][:, None, None]
    change = _head_change(net, base, targets, units, given, masks)
    return torch.einsum("tpod,tdm->tpom", change, weights.w_o[units])


def _head_change(
    net: Network, base: Trace, targets: list[Target], units: Tensor, given: Tensor, masks: Tensor
) -> Float[Tensor, "t p o d_head"]:
    """How the heads' mixed values change; q, k, v and patterns act on all later positions, through attention."""
    site, layer = targets[0].site, targets[0].layer
    if site == "head":
        return (given - base["head"][layer])[:, :, units].permute(2, 0, 1, 3) * masks[..., None]
    parts = {name: base[name][layer][:, :, units] for name in ("q", "k", "v", "head")}
    pattern = base["pattern"][layer][:, units]
    new = given[:, units] if site == "pattern" else given[:, :, units]
    if site == "pattern":
        pattern = torch.where(masks.transpose(0, 1)[..., None], new, pattern)
    else:
        parts[site] = torch.where(masks.permute(1, 2, 0)[..., None], new, parts[site])
    if site in ("q", "k"):
        positions = torch.arange(new.shape[1], device=new.device)[None]
        pattern = attend(net, parts["q"], parts["k"], positions)
    return (mix(pattern, parts["v"]) - parts["head"]).permute(2, 0, 1, 3)


def _rest(net: Network, base: Trace, batch: PairBatch, site: str, layer: int, delta: Tensor, first: int) -> Logits:
    """Run what comes after the patch for all rows."""
    times = len(delta)
    ends = batch.ends.repeat(times)
    past = _past(base, layer, first, times)
    flat = delta.flatten(0, 1)
    last = layer == net.n_layers - 1

    def rows(value: Stream) -> Float[Tensor, "row changed model"]:
        return value[:, first:].repeat(times, 1, 1)

    if site == "resid_pre":
        return resume(net, layer, rows(base["resid_pre"][layer]) + flat, unchanged, ends, past)
    after = base["resid_final"][0] if last else base["resid_pre"][layer + 1]
    if site in ("neuron", "mlp_out") or net.parallel:
        return resume(net, layer + 1, rows(after) + flat, unchanged, ends, past)
    middle = rows(base["resid_pre"][layer] + base["attn_out"][layer]) + flat
    if last:
        middle = at(middle, ends - first)
    stream = middle + mlp(net, layer, middle, unchanged, None)
    return resume(net, layer + 1, stream, unchanged, ends, past)


def _past(base: Trace, layer: int, first: int, times: int) -> Past | None:
    if not first:
        return None
    k, v = (
        tuple(
            value[:, :first].repeat(times, 1, 1, 1) if i >= layer else value[:0] for i, value in enumerate(base[name])
        )
        for name in ("k", "v")
    )
    return Past(first, k, v)
