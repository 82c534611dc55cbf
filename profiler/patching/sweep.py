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
from profiler.model.steps.experts import ROUTED
from profiler.model.steps.network import Logits, Network, Offsets, Steps, Stream, at, forward
from profiler.patching.batch import PairBatch, Tokens, Trace
from profiler.patching.sites import EXPERT, OF_MATRIX, OTHER_UNITS, PER_HEAD, WHOLE, Target, check_target

BATCH_TOKENS = 4096
"""Tokens of a batch of patches: larger ones leave the caches of a core, and were 6 % slower at 8,192."""
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
    of_experts = _ExpertEdit(net, batch, [target for target in targets if target.site == EXPERT], donor, fired)

    def edit(site: str, layer: int, value: Tensor, positions: Offsets) -> Tensor:
        for target in targets:
            if (target.site, target.layer) == (site, layer):
                mask = at(batch.mask(target.positions), positions)
                given = at_queries(donor(site, layer), site, positions)
                value = put(value, given, mask, target)
                fired.add(target)
        return of_experts(site, layer, value, positions)

    with torch.inference_mode():
        logits = forward(net, tokens, edit, ends)
    refuse_unfired(targets, fired)
    return logits


class _ExpertEdit:
    """The edit that patches neurons of routed experts in what the experts write, given what they were called with."""

    def __init__(self, net: Network, batch: PairBatch, targets: Sequence[Target], donor: Donor, fired: set[Target]):
        self._net, self._batch, self._donor, self._fired = net, batch, donor, fired
        self._targets = {layer: [t for t in targets if t.layer == layer] for layer in {t.layer for t in targets}}
        self._sent: dict[str, Tensor] = {}

    def __call__(self, site: str, layer: int, value: Tensor, positions: Offsets) -> Tensor:
        if layer not in self._targets:
            return value
        if site in ROUTED:
            self._sent[site] = value
        if site != "experts_out":
            return value
        experts = self._net.experts(layer)
        assert experts is not None
        read, chosen, weights = (self._sent[name] for name in ROUTED)
        live, given = experts.activations(read, chosen), at(self._donor(EXPERT, layer), positions)
        for target in self._targets[layer]:
            assert target.expert is not None
            assert target.unit is not None
            change = _changed_neuron(live, given, at(self._batch.mask(target.positions), positions), target)
            if change is not None:
                value = value + experts.written(target.expert, target.unit, change, chosen, weights)
                self._fired.add(target)
        return value


def _changed_neuron(
    live: Float[Tensor, "prompt position expert neuron"],
    given: Float[Tensor, "prompt position expert neuron"],
    mask: Bool[Tensor, "prompt position"],
    target: Target,
) -> Float[Tensor, "prompt position"] | None:
    """How a patch changes the activation of an expert's neuron; None where no position of the mask has both values."""
    change = (given - live)[:, :, target.expert, target.unit]
    there = mask & ~change.isnan()
    return torch.where(there, change, 0) if bool(there.any()) else None


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
        assert target.unit is not None
        unit = torch.arange(value.shape[1], device=value.device) == target.unit
        return torch.where(unit[None, :, None, None] & mask[:, None, :, None], given, value)
    if target.unit is None:
        return torch.where(mask[..., None], given, value)
    unit = torch.arange(value.shape[2], device=value.device) == target.unit
    chosen = unit[None, None, :] & mask[..., None]
    return torch.where(chosen[..., None] if target.site in PER_HEAD else chosen, given, value)


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
    done, run = 0, _Sweep(net, base, batch)
    for (site, layer), members in groupby(sorted(range(len(targets)), key=key), key=key):
        chosen = list(members)
        given = donor(site, layer)
        size = max(1, tokens_at_once // batch.clean.numel())
        for begin in range(0, len(chosen), size):
            part = chosen[begin : begin + size]
            with torch.inference_mode():
                yield part, run.patched([targets[i] for i in part], given)
            done += len(part)
            if report:
                report(done)


class _Sweep:
    """Patches into one run. The passes that it goes on from are begun once for each first changed position."""

    def __init__(self, net: Network, base: Trace, batch: PairBatch):
        self.net, self.base, self.batch = net, base, batch
        self._begun: dict[int, Steps] = {}

    def _begin(self, first: int) -> Steps:
        """A pass from a position on, that position 0 where the model cannot go on from earlier ones."""
        if first not in self._begun:
            tokens = self.base.tokens
            assert tokens is not None
            self._begun[first] = self.net.begin(tokens, past=self.net.past(tokens, first))
        return self._begun[first]

    def patched(self, targets: list[Target], given: Tensor) -> Float[Tensor, "target prompt vocab"]:
        """Logits of patches of one site and layer."""
        base, batch, site, layer = self.base, self.batch, targets[0].site, targets[0].layer
        masks = torch.stack([batch.mask(target.positions) for target in targets])
        first = _first_changed(base, site, layer, given, masks, batch)
        change = self._change(targets, given, masks)
        if first is None:
            return base.logits.expand(len(targets), *base.logits.shape)
        steps = self._begin(first)
        rest = self._rest_of_other if site in (*OTHER_UNITS, "mixer_out") else self._rest
        logits: Tensor = rest(steps, site, layer, change[:, :, steps.first :])
        by_target: Tensor = logits.unflatten(0, (len(targets), len(batch)))
        return by_target

    def _change(self, targets: list[Target], given: Tensor, masks: Tensor) -> Float[Tensor, "t p o m"]:
        """How each patch changes what the site's block writes, or the residual stream."""
        site, layer = targets[0].site, targets[0].layer
        if site in WHOLE:
            return (given - self.base[site][layer])[None] * masks[..., None]
        if site == EXPERT:
            return torch.stack([self._of_expert(target, given) for target in targets])
        units = torch.tensor([target.unit for target in targets], device=given.device)
        if site in OF_MATRIX:
            own = torch.nn.functional.one_hot(units, given.shape[-1])[:, None, None]
            return (given - self.base[site][layer])[None] * masks[..., None] * own
        if site == "neuron":
            change = (given - self.base[site][layer])[..., units].permute(2, 0, 1) * masks
            return change[..., None] * self.net.w_out(layer)[units][:, None, None].to(change.dtype)
        if site != "head" and not self.net.heads_apart:
            return torch.stack([self._through_all_heads(target, given) for target in targets])
        mixed = torch.zeros_like(self.base["head"][layer][:, :, units]).permute(2, 0, 1, 3).contiguous()
        for positions in dict.fromkeys(target.positions for target in targets):
            some = [i for i, target in enumerate(targets) if target.positions == positions]
            changed = self._mixed(site, layer, given, self.batch.mask(positions))
            mixed[some] = (changed - self.base["head"][layer])[:, :, units[some]].permute(2, 0, 1, 3)
        return torch.einsum("tpod,tdm->tpom", mixed, self.net.w_o(layer)[units].to(mixed.dtype))

    def _of_expert(self, target: Target, given: Tensor) -> Float[Tensor, "p o m"]:
        """How a patch of an expert's neuron changes what the experts write.

        Raises:
            PatchError: no position of both runs is sent to the expert.
        """
        base, layer, experts = self.base, target.layer, self.net.experts(target.layer)
        assert experts is not None
        assert target.expert is not None
        assert target.unit is not None
        change = _changed_neuron(base[EXPERT][layer], given, self.batch.mask(target.positions), target)
        if change is None:
            raise PatchError(
                f"the patch of {target.label} at {target.positions} never fires: no position is sent to expert"
                f" {target.expert} of layer {layer} in both runs"
            )
        return experts.written(
            target.expert, target.unit, change, base["expert_choice"][layer], base["expert_weight"][layer]
        )

    def _through_all_heads(self, target: Target, given: Tensor) -> Float[Tensor, "p o m"]:
        """How a patch of one head changes what its block writes, where a norm over all heads stands before W_O."""
        changed = self._mixed(target.site, target.layer, given, self.batch.mask(target.positions), target.unit)
        change = changed - self.base["head"][target.layer]
        return torch.einsum("pohd,hdm->pom", change, self.net.w_o(target.layer).to(change.dtype))

    def _mixed(
        self, site: str, layer: int, given: Tensor, batch_mask: Tensor, unit: int | None = None
    ) -> Float[Tensor, "p o head d_head"]:
        """What every head mixes with its own part patched, or what all mix with that of one head patched."""
        if site == "head":
            return torch.where(batch_mask[..., None, None], given, self.base["head"][layer])
        heads = torch.ones(self.net.heads(layer), dtype=torch.bool, device=given.device)
        if unit is not None:
            heads = torch.arange(len(heads), device=given.device) == unit
        where = (
            batch_mask[:, None, :, None] & heads[None, :, None, None]
            if site == "pattern"
            else batch_mask[..., None, None] & heads[:, None]
        )

        def edit(name: str, _layer: int, value: Tensor, _positions: Offsets) -> Tensor:
            return torch.where(where, given, value) if name == site else value

        stream = self.base["resid_pre"][layer]
        return self._begin(0).heads(layer, stream, edit, patterns=site == "pattern")

    def _rest(self, steps: Steps, site: str, layer: int, change: Float[Tensor, "t p o m"]) -> Logits:
        """Run what comes after the patch for all rows."""
        times, ends = len(change), self.batch.ends.repeat(len(change))

        def rows(name: str) -> Stream:
            return self.base[name][layer][:, steps.first :].repeat(times, 1, 1)

        def changed(name: str) -> Stream:
            return (self.base[name][layer][:, steps.first :] + change).flatten(0, 1)

        if site == "resid_pre":
            return steps.to_end(layer, changed("resid_pre"), ends=ends)
        block = "attn_out" if site in PER_HEAD else "mlp_out" if site == "neuron" else site
        attn_out = changed("attn_out") if block == "attn_out" else rows("attn_out")
        mlp_out = changed("mlp_out") if block == "mlp_out" else rows("mlp_out") if self.net.parallel else None
        only = ends if layer == self.net.n_layers - 1 else None
        stream = steps.rest(layer, rows("resid_pre"), attn_out=attn_out, mlp_out=mlp_out, ends=only)
        return steps.to_end(layer + 1, stream, ends=ends)

    def _rest_of_other(self, steps: Steps, site: str, layer: int, change: Float[Tensor, "t p o any"]) -> Logits:
        """The same for units that are neither heads nor the MLP's neurons: the layer computes what follows them."""
        times, n = len(change), self.net.n_layers
        ends = self.batch.ends.repeat(times)

        def rows(name: str) -> Tensor:
            return self.base[name][layer][:, steps.first :].repeat(times, 1, 1)

        put_in = "experts_out" if site == EXPERT else site
        attn_out = rows("attn_out") if self.net.heads(layer) else None
        stream = steps.rest(
            layer,
            rows("resid_pre"),
            attn_out=attn_out,
            others={put_in: (self.base[put_in][layer][:, steps.first :] + change).flatten(0, 1)},
            ends=ends if layer == n - 1 else None,
        )
        return steps.to_end(layer + 1, stream, ends=ends)


def _first_changed(base: Trace, site: str, layer: int, given: Tensor, masks: Tensor, batch: PairBatch) -> int | None:
    """The first position at which some patch changes something; None where none does (a patch of a run into itself)."""
    live = base[site][layer]
    differs = (given != live).transpose(1, 2) if site == "pattern" else given != live
    if site == EXPERT:
        differs &= ~(given.isnan() | live.isnan())
    changed = differs.flatten(2).any(-1) & (masks.any(0) & batch.valid)
    positions = changed.any(0).nonzero()
    return min(int(positions[0]), int(batch.ends.min())) if len(positions) else None
