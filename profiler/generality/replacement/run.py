"""Effects of replacing components, one at a time, on the same text: how far the model's answer moves at each position.

A job replaces one head or neuron by a rule, by its mean (mean ablation), or does either on the direct path alone: the
change then goes to the logits and to no later component. The effect is measured at every counted position against the
model without the change: KL(model || changed) in nats over the whole vocabulary, and the change of the loss on the
realised next token. BOS, first and special positions keep what they did, and are not counted.

Means and fits come from other documents (`fit`). A job changes what a layer adds to the residual stream, so that the
layers before it are never run again. `gone` components are mean-ablated throughout, in the model that is compared with,
too.

Cost: one forward pass a batch, and per job the layers after it and the unembedding; a direct job has no layers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.errors import PatchError
from profiler.generality.replacement.rules import Rule, RuleInput, mean_of
from profiler.model.steps.network import Network, Offsets, Steps, Stream
from profiler.patching.sites import Target, check_target

Effects = Float[np.ndarray, "position 3"]


@dataclass(frozen=True, eq=False)
class TextBatch:
    """A batch of windows.

    Attributes:
        tokens: ids, padded on the right.
        classes: class ids of the tokens.
        targets: the token to predict.
        counted: positions that are replaced and counted.
        documents: which document each window is of.
        domains: which domain; None is one domain.
    """

    tokens: Int[Tensor, "window offset"]
    classes: Int[Tensor, "window offset"]
    targets: Int[Tensor, "window offset"]
    counted: Bool[Tensor, "window offset"]
    documents: Int[Tensor, " window"]
    domains: Int[Tensor, " window"] | None = None

    def of_positions(self, values: Int[Tensor, " window"]) -> Int[np.ndarray, " position"]:
        """A number of each window, for each of its counted positions."""
        return values[:, None].expand_as(self.counted)[self.counted].cpu().numpy()


@dataclass(frozen=True, eq=False)
class ComponentMeans:
    """Mean of what every head mixed and of every neuron, over counted positions of the fitting documents."""

    heads: tuple[Float[Tensor, "head d_head"], ...]
    neurons: tuple[Float[Tensor, " neuron"], ...]
    n: int

    def of(self, target: Target) -> Tensor:
        """The mean of one head or neuron."""
        return (self.heads if target.site == "head" else self.neurons)[target.layer][target.unit]


@dataclass(frozen=True)
class Job:
    """One replacement. `rule` None is mean ablation; `direct` lets the change reach the logits alone."""

    target: Target
    rule: Rule | None = None
    direct: bool = False


@dataclass(frozen=True, eq=False)
class Base:
    """One batch run without a job: its sites, and log probabilities at counted positions."""

    net: Network
    steps: Steps
    reading: TextBatch
    sites: dict[tuple[str, int], Tensor]
    gone: tuple[tuple[Target, Tensor], ...]
    log_p: Float[Tensor, "position vocab"]
    p: Float[Tensor, "position vocab"]

    def edit(self, site: str, layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
        """Put in the means of what is gone."""
        return _without(self.gone, self.reading.counted, site, layer, value)


def check(net: Network, targets: Iterable[Target]) -> None:
    """Check that these components can be replaced.

    Raises:
        PatchError: a target is no head or neuron, or the model lacks it.
    """
    for target in targets:
        if target.site not in ("head", "neuron"):
            raise PatchError(f"{target.label} cannot be replaced by a rule: name a head (L2H3) or a neuron (L2N17)")
        check_target(net, target)


def base_of(net: Network, reading: TextBatch, gone: tuple[tuple[Target, Tensor], ...] = ()) -> Base:
    """Run one batch and keep every site."""
    sites: dict[tuple[str, int], Tensor] = {}

    def keep(site: str, layer: int, value: Tensor, _offsets: Offsets) -> Tensor:
        sites[site, layer] = _without(gone, reading.counted, site, layer, value)
        return sites[site, layer]

    steps = net.begin(reading.tokens, keep)
    stream = steps.stream
    for layer in range(net.n_layers):
        stream = steps.layer(layer, stream, keep)
    sites["resid_final", net.n_layers] = stream
    log_p = log_probabilities(net, stream, reading.counted)
    return Base(net, steps, reading, sites, gone, log_p, log_p.exp())


def _without(gone: tuple[tuple[Target, Tensor], ...], counted: Tensor, site: str, layer: int, value: Tensor) -> Tensor:
    for target, mean in gone:
        if (target.site, target.layer) == (site, layer):
            value = value.clone()
            value[:, :, target.unit] = torch.where(
                counted[..., None] if mean.ndim else counted, mean, value[:, :, target.unit]
            )
    return value


def log_probabilities(
    net: Network, stream: Stream, counted: Bool[Tensor, "window offset"]
) -> Float[Tensor, "position vocab"]:
    """Log probabilities of the next token at counted positions."""
    return net.logits(stream[counted]).log_softmax(-1)


def seen_of(base: Base, target: Target, mean: Tensor) -> RuleInput:
    """The input of a rule for this head or neuron."""
    layer, unit, tokens = target.layer, target.unit, base.reading.tokens
    live = base.sites[target.site, layer][:, :, unit]
    head = target.site == "head"
    pattern = base.sites["pattern", layer][:, unit] if head else None
    v = base.sites["v", layer][:, :, unit] if head else None
    return RuleInput(
        base.net, target, tokens, base.reading.classes, base.sites["resid_pre", layer], live, pattern, v, mean
    )


def block_of(target: Target) -> str:
    """The site that the block of a head or neuron writes."""
    return "attn_out" if target.site == "head" else "mlp_out"


def write_of(base: Base, target: Target, live: Tensor) -> Stream:
    """What a head or neuron adds to what its block writes when it does `live`."""
    if target.site == "head":
        return live @ base.net.w_o(target.layer)[target.unit].to(live.dtype)
    return live[..., None] * base.net.w_out(target.layer)[target.unit].to(live.dtype)


def added_of(base: Base, target: Target, written: Stream) -> Stream:
    """What a part of a block's write adds to the residual stream."""
    block = block_of(target)
    return base.net.added(block, target.layer, written, base.sites[block, target.layer])


def change(base: Base, job: Job, means: ComponentMeans) -> tuple[Stream, Bool[Tensor, "window offset"]]:
    """The change of a component's write under a job, and where its rule says something."""
    seen = seen_of(base, job.target, means.of(job.target))
    says = torch.ones_like(base.reading.counted)
    if job.rule is None:
        value, gives = mean_of(seen), "live"
    else:
        (value, says), gives = job.rule.value(seen), job.rule.gives
    if gives == "pattern":
        value = torch.einsum("wqk,wkd->wqd", value, seen.v)
    now = value if gives == "write" else write_of(base, job.target, value)
    return (now - write_of(base, job.target, seen.live)) * base.reading.counted[..., None], says


def stream_after(base: Base, job: Job, delta: Stream) -> Stream:
    """The final residual stream with the change put in."""
    net, sites, layer = base.net, base.sites, job.target.layer
    if job.direct:
        return sites["resid_final", net.n_layers] + added_of(base, job.target, delta)
    block = block_of(job.target)
    given: dict[str, Any] = {"attn_out": sites["attn_out", layer]} if net.heads(layer) else {}
    if block == "mlp_out" or (net.parallel and net.has_mlp(layer)):
        given["mlp_out"] = sites["mlp_out", layer]
    given[block] = given[block] + delta
    stream = base.steps.rest(layer, sites["resid_pre", layer], edit=base.edit, **given)
    for number in range(layer + 1, net.n_layers):
        stream = base.steps.layer(number, stream, base.edit, patterns=False)
    return stream


def moved(base: Base, stream: Stream) -> Float[Tensor, "position 3"]:
    """KL, change of loss and its absolute value (shares.MEASURES) at counted positions: nats, float64."""
    log_q = log_probabilities(base.net, stream, base.reading.counted)
    kl = torch.linalg.vecdot(base.p, base.log_p - log_q).double()
    target = base.reading.targets[base.reading.counted][:, None]
    loss = (base.log_p.gather(-1, target) - log_q.gather(-1, target))[:, 0].double()
    return torch.stack([kl, loss, loss.abs()], -1)


def direct_attribution(base: Base, target: Target) -> Float[Tensor, " position"]:
    """DLA of a component at counted positions, in logits."""
    return direct_to(base, target, base.reading.targets)


def direct_to(base: Base, target: Target, tokens: Int[Tensor, "window offset"]) -> Float[Tensor, " position"]:
    """Logit, centred, that a component adds directly to one token at each counted position."""
    net, counted = base.net, base.reading.counted
    toward = net.toward(tokens)[counted]
    scale = net.final_scale(base.sites["resid_final", net.n_layers][counted])
    live = base.sites[target.site, target.layer][:, :, target.unit]
    return (added_of(base, target, write_of(base, target, live))[counted] * toward / scale).sum(-1).double()


@dataclass(frozen=True, eq=False)
class MeasuredEffects:
    """The effect of every job at every counted position, in the order of the readings.

    Attributes:
        effects: per job.
        said: per job with a rule, where it said something.
        importance: |DLA| of every target.
        documents: which document each position is of.
        domains: which domain.
    """

    effects: Mapping[Job, Effects]
    said: Mapping[Job, Bool[np.ndarray, " position"]]
    importance: Mapping[Target, Float[np.ndarray, " position"]]
    documents: Int[np.ndarray, " position"]
    domains: Int[np.ndarray, " position"]


@torch.inference_mode()
def run(
    net: Network,
    readings: Sequence[TextBatch],
    means: ComponentMeans,
    jobs: Sequence[Job],
    gone: Sequence[Target] = (),
    say: Callable[[str], None] = lambda _: None,
) -> MeasuredEffects:
    """Make all jobs on all readings; `say` is told how much is done.

    Raises:
        PatchError: the model lacks a target, or a job replaces what is gone.
    """
    check(net, [job.target for job in jobs])
    check(net, gone)
    if lost := next((job.target for job in jobs if job.target in gone), None):
        raise PatchError(f"{lost.label} is to be replaced and to be gone at once: choose one")
    taken = tuple((target, means.of(target)) for target in gone)
    effects: dict[Job, list[np.ndarray]] = {job: [] for job in jobs}
    said: dict[Job, list[np.ndarray]] = {job: [] for job in jobs}
    importance: dict[Target, list[np.ndarray]] = {job.target: [] for job in jobs}
    documents, domains = [], []
    for number, reading in enumerate(readings):
        say(f"{100 * number // len(readings)} %")
        base = base_of(net, reading, taken)
        documents.append(reading.of_positions(reading.documents))
        of_domains = torch.zeros_like(reading.documents) if reading.domains is None else reading.domains
        domains.append(reading.of_positions(of_domains))
        for target, values in importance.items():
            values.append(direct_attribution(base, target).abs().cpu().numpy())
        for job in jobs:
            delta, says = change(base, job, means)
            effects[job].append(moved(base, stream_after(base, job, delta)).cpu().numpy())
            said[job].append(says[reading.counted].cpu().numpy())
    return MeasuredEffects(
        {job: np.concatenate(parts) for job, parts in effects.items()},
        {job: np.concatenate(parts) for job, parts in said.items()},
        {target: np.concatenate(parts) for target, parts in importance.items()},
        np.concatenate(documents),
        np.concatenate(domains),
    )


@torch.inference_mode()
def means_of(net: Network, readings: Sequence[TextBatch]) -> ComponentMeans:
    """Means of all heads and neurons over the counted positions.

    Raises:
        PatchError: there is no counted position.
    """
    sums: dict[tuple[str, int], Tensor] = {}
    n = sum(int(reading.counted.sum()) for reading in readings)
    if not n:
        raise PatchError("no position to take means over: give more documents")
    for reading in readings:
        base = base_of(net, reading)
        for layer in range(net.n_layers):
            for site in ("head", "neuron"):
                if (site, layer) not in base.sites:
                    sums[site, layer] = torch.zeros(0)
                    continue
                part = base.sites[site, layer][reading.counted].double().sum(0)
                sums[site, layer] = sums.get((site, layer), torch.zeros_like(part)) + part
    dtype = net.dtype
    heads, neurons = (
        tuple((sums[site, layer] / n).to(dtype) for layer in range(net.n_layers)) for site in ("head", "neuron")
    )
    return ComponentMeans(heads, neurons, n)


@torch.inference_mode()
def fit(
    net: Network, readings: Sequence[TextBatch], means: ComponentMeans, wanted: Sequence[tuple[Target, Rule]]
) -> dict[tuple[Target, str], Rule]:
    """Each rule as fitted for its target; a rule without a fit as it is."""
    totals: dict[tuple[Target, str], Tensor] = {}
    fitting = [(target, rule, rule.fit) for target, rule in wanted if rule.fit is not None]
    for reading in readings if fitting else ():
        base = base_of(net, reading)
        for target, rule, fitted in fitting:
            part = fitted.sums(seen_of(base, target, means.of(target)), reading.counted)
            key = (target, rule.name)
            totals[key] = totals[key] + part if key in totals else part
    return {
        (target, rule.name): rule if rule.fit is None else rule.fit.rule(totals[target, rule.name])
        for target, rule in wanted
    }


@torch.inference_mode()
def alike(
    net: Network, readings: Sequence[TextBatch], targets: Sequence[Target]
) -> dict[Target, Float[Tensor, "layer head"]]:
    """Mean overlap of every head's attention with that of each target, the first token left out; 0 for itself."""
    totals = {
        target: torch.zeros(net.n_layers, net.n_heads, dtype=torch.float64, device=net.device) for target in targets
    }
    n = max(1, sum(int(reading.counted.sum()) for reading in readings))
    for reading in readings if targets else ():
        base = base_of(net, reading)
        for target, total in totals.items():
            own = base.sites["pattern", target.layer][:, target.unit, :, 1:]
            for layer in range(net.n_layers):
                if not net.heads(layer):
                    continue
                both = torch.minimum(base.sites["pattern", layer][..., 1:], own[:, None]).sum(-1)
                total[layer, : net.heads(layer)] += both.movedim(1, -1)[reading.counted].double().sum(0)
    for target, total in totals.items():
        total[target.layer, target.unit] = 0.0
    return {target: total / n for target, total in totals.items()}
