"""The model's own forward pass, watched: what heads and neurons wrote, attention rows where asked for, logits where
asked for.

The Hugging Face network itself with hooks that only look, running the attention it runs by default. PyTorch's fused
kernel never forms a pattern; the few rows that the summaries need (positions of the uniform sample) are computed again
beside it from the same queries and keys. The unembedding is applied to the rows asked for and to no others, some at a
time: with a large vocabulary it is a third of a forward pass, and a full-vocabulary quantity is kept of sampled
positions alone.

What writers read is held until the pass has ended (`Capture.units`), or is taken from each as soon as it has read it
and then let go (`Wanted.take`), so that memory is that of one block and not of all.

Cost: the bare forward pass less the unembedding; a row of attention costs heads * offsets * d_head multiplications,
less than a layer's MLP.
"""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from profiler.axes import HeadOutputs, Residual, Scale, TokenIds
from profiler.dictionaries.dictionary import Place
from profiler.model.components import Block
from profiler.model.gates import Gate, Gates, factors, factors_left
from profiler.model.wiring import Wiring, call_name, site_of
from profiler.model.writers import Sources, Writer

Rows = tuple[Int[Tensor, " row"], Int[Tensor, " row"]]
AttendingRows = tuple[Int[Tensor, "attending"], Int[Tensor, "attending"]]
"""Window and offset of each position asked for."""

NOWHERE: Rows = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
LOGIT_BYTES = 2**26
"""Of the logits that are made at a time."""


def logit_rows(n_vocab: int, itemsize: int) -> int:
    """Rows whose logits are made at a time."""
    return max(1, LOGIT_BYTES // (n_vocab * itemsize))


@dataclass(frozen=True)
class Routed:
    """What a module of experts was called with.

    Attributes:
        read: what the experts chosen at a position read there.
        experts, weights: the experts chosen at each position, and what their outputs are multiplied by.
    """

    read: Residual
    experts: Int[Tensor, "window offset choice"]
    weights: Float[Tensor, "window offset choice"]

    def take(self, rows: Callable[[Tensor], Tensor]) -> "Routed":
        """The same at some positions."""
        return Routed(rows(self.read), rows(self.experts), rows(self.weights))

    @property
    def choices(self) -> "Routed":
        """The same without what was read."""
        return replace(self, read=self.read[..., :0])


Factors = tuple[Float[Tensor, "window offset gated"], Float[Tensor, "window offset gated"]]
"""Gate (before its nonlinearity) and value of gated neurons."""
Read = Float[Tensor, "window offset unit"] | HeadOutputs | Routed
"""What a writer read: values of neurons or channels, what heads mixed, or what its experts were called with."""


@dataclass(frozen=True)
class Wanted:
    """What a forward pass is asked for, beside what heads and neurons wrote.

    Attributes:
        logits: positions whose logits are wanted.
        attention: positions whose attention rows are wanted.
        read: what is made of a layer's attention rows; the rows themselves are not kept.
        check: whether rows computed beside the fused kernel are held against what it wrote.
        summary: what is made of logits, some of the rows asked for at a time, given with the numbers of these rows; the
            logits themselves are not kept.
        take: is given the path of each writer, what it read, and gate and value of its neurons where they are gated, as
            soon as it has read it; nothing of it is then held. None holds it until the pass has ended.
    """

    logits: Rows = NOWHERE
    attention: AttendingRows = NOWHERE
    read: Callable[[Float[Tensor, "attending head key_offset"]], Any] = lambda rows: rows
    check: bool = False
    summary: Callable[[Float[Tensor, "part vocab"], Int[Tensor, " part"]], Tensor] = lambda logits, _: logits
    take: Callable[[str, Read, Factors | None], None] | None = None

    def to(self, device: torch.device) -> "Wanted":
        """The same, with indices on a device."""
        (windows, offsets), (from_windows, from_offsets) = self.logits, self.attention
        attention = from_windows.to(device), from_offsets.to(device)
        return replace(self, logits=(windows.to(device), offsets.to(device)), attention=attention)


@dataclass(frozen=True)
class Capture:
    """What one forward pass left.

    Attributes:
        units: of each block but those of experts, what its writer read: what each head read and mixed ([window, offset,
            head, d_head]), activations of neurons after the nonlinearity (gated MLPs: act(gate) * in) and channels of
            mixers. None of a block that was taken (`Wanted.take`).
        embed, pos_embed: what the embeddings wrote; pos_embed is None where positions are not added.
        residual: what the final norm reads.
        scales: of each norm on the way to the logits its denominator, and of each gate its sigmoid.
        attention: of each block of heads whose attention weights can be read, what was read off the rows asked for;
            empty where none was asked for.
        logits: what was made of the logits of the rows asked for, before a soft cap; else they themselves.
        mixing_gap: of each block that was checked, the largest difference between what its attention rows mix and what
            the fused kernel wrote, relative to the largest value.
        routed: of each module of experts, by its path, what it was called with; none that was taken.
        factors: of each gated block, gate (before its nonlinearity) and value of its neurons; none that was taken.
        sites: what stands where dictionaries read and write.
    """

    units: dict[Block, Float[Tensor, "window offset unit"] | HeadOutputs]
    embed: Residual
    pos_embed: Residual | None
    residual: Residual
    scales: dict[str, Scale]
    attention: dict[Block, Any]
    logits: Float[Tensor, "row *value"]
    mixing_gap: dict[Block, float]
    routed: dict[str, Routed]
    factors: dict[Block, Factors] = field(default_factory=dict)
    sites: dict[Place, Tensor] = field(default_factory=dict)


Forward = Callable[[TokenIds, Wanted], Capture]


def attention_rows(
    query: Float[Tensor, "window head offset d_head"],
    key: Float[Tensor, "window key_head key_offset d_head"],
    mask: Tensor | None,
    scaling: float,
    rows: Rows,
) -> Float[Tensor, "row head key_offset"]:
    """Softmax of the scaled products at some positions, causal where no mask says otherwise.

    Args:
        mask: [window or 1, 1, offset, key_offset], true (or 0) where attention may go, false (or -inf) where not.
    """
    windows, offsets = rows
    attention = query.new_empty(len(windows), query.shape[1], key.shape[2])
    key_offsets = torch.arange(key.shape[2], device=key.device)
    for window in windows.unique().tolist():
        at = (windows == window).nonzero()[:, 0]
        asked = query[window].index_select(1, offsets[at]) * scaling
        scores = asked @ repeat_kv(key[window][None], query.shape[1] // key.shape[1])[0].mT
        weights = _softmax(scores, mask, window, offsets[at], key_offsets)
        attention.index_copy_(0, at, weights.transpose(0, 1).to(query.dtype))
    return attention


def _softmax(
    scores: Float[Tensor, "head row key_offset"],
    mask: Tensor | None,
    window: int,
    at: Int[Tensor, " row"],
    offsets: Int[Tensor, " key_offset"],
) -> Float[Tensor, "head row key_offset"]:
    """The scores of one window's rows, masked, as weights; in float32 at least."""
    if mask is None:
        scores.masked_fill_(offsets > at[:, None], -torch.inf)
    else:
        own = mask[window % len(mask), :, at]
        scores = scores.masked_fill(~own, -torch.inf) if own.dtype == torch.bool else scores + own
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _fused(module: nn.Module, *inputs: Any, **options: Any) -> tuple[Tensor, None]:
    """PyTorch's fused attention; where the pass was asked for rows, they are computed beside it and read."""
    query, key, value, mask, *_ = inputs
    out, _ = sdpa_attention_forward(module, *inputs, **options)
    watch: Watched | None = getattr(module, "profiler_watch", None)
    if watch is not None and len(watch.under_way.wanted.attention[0]):
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        with torch.no_grad():  # what is read has no gradient
            rows = attention_rows(query, key, mask, scaling, watch.under_way.wanted.attention)
            watch.read(rows)
        if watch.under_way.wanted.check:
            watch.compare(rows, repeat_kv(value, query.shape[1] // value.shape[1]), out)
    return out, None


def _eager(module: nn.Module, *inputs: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """The model's own attention, which forms every weight; rows that the pass was asked for are read."""
    own = sys.modules[type(module).__module__].eager_attention_forward
    out, weights = own(module, *inputs, **options)
    watch: Watched | None = getattr(module, "profiler_watch", None)
    if watch is not None:
        watch.read_of(weights)
    return out, weights


FUSED, EAGER = "profiler_fused", "profiler_eager"
"""Names of our attention functions in transformers' register."""
for _name, _function, _mask in ((FUSED, _fused, sdpa_mask), (EAGER, _eager, eager_mask)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, _mask)


@dataclass
class UnderWay:
    """What the pass under way is asked for, and what it has left so far.

    Attributes:
        given: what the matrices of gated MLPs gave, by their paths.
    """

    wanted: Wanted = Wanted()
    shape: tuple[int, ...] = (0, 0)
    left: dict[Any, Any] = field(default_factory=dict)
    attention: dict[Block, Any] = field(default_factory=dict)
    mixing_gap: dict[Block, float] = field(default_factory=dict)
    given: dict[str, Tensor] = field(default_factory=dict)
    factors: dict[Block, Factors] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    def begin(self, wanted: Wanted, shape: tuple[int, ...]) -> None:
        """Forget what another pass left."""
        self.wanted, self.shape = wanted, shape
        self.left, self.attention, self.mixing_gap, self.calls = {}, {}, {}, Counter()
        self.given, self.factors = {}, {}

    def leave(self, writer: Writer, read: Read, gate: Gate | None) -> None:
        """Hand over what a writer read, or hold it; with gate and value of its neurons, where they are gated."""
        pair = None if gate is None else factors(gate, self.given, self.shape)
        if self.wanted.take is not None:
            self.given = {}  # of this block alone
            self.wanted.take(writer.site, read, pair)
            return
        self.left[writer.site] = read
        if pair is not None:
            self.factors[writer.block] = pair


@dataclass(frozen=True, eq=False)
class Watched:
    """What an attention module knows of the pass under way."""

    block: Block
    under_way: UnderWay

    def read(self, rows: Float[Tensor, "row head key_offset"]) -> None:
        """Take the rows asked for."""
        self.under_way.attention[self.block] = self.under_way.wanted.read(rows)

    def compare(
        self,
        rows: Float[Tensor, "row head key_offset"],
        value: Float[Tensor, "window head key_offset d_head"],
        out: Float[Tensor, "window offset head d_head"],
    ) -> None:
        """Hold what the rows mix against what the kernel wrote."""
        windows, offsets = self.under_way.wanted.attention
        mixed = torch.einsum("rhk,rhkd->rhd", rows, value[windows])
        written = out[windows, offsets]
        gap = (mixed - written).abs().max() / written.abs().max().clamp_min(torch.finfo(written.dtype).tiny)
        self.under_way.mixing_gap[self.block] = float(gap)

    def read_of(self, weights: Float[Tensor, "window head offset key_offset"]) -> None:
        """Take the rows asked for out of all weights."""
        windows, offsets = self.under_way.wanted.attention
        if len(windows):
            with torch.no_grad():
                self.read(weights[windows, :, offsets])


def watch(
    network: PreTrainedModel,
    sources: Sources,
    wiring: Wiring,
    *,
    ask_for_weights: bool = False,
    without: Collection[Block] = (),
    gates: Gates = MappingProxyType({}),
) -> Forward:
    """Hook a network (in place) and return its forward pass, which computes what the network does by itself.

    Attention runs as the network's configuration says, so its weights are those that the pass used: read beside
    PyTorch's fused kernel, or where the network forms them itself.

    Args:
        ask_for_weights: whether the network is asked to return attention weights, where it does not by itself.
        without: blocks of heads whose attention weights are not read.
        gates: the gated blocks whose factors are read.
    """
    under_way = UnderWay()
    own = network.config._attn_implementation
    asking = {"output_attentions": True} if ask_for_weights else {}
    heads = [writer for writer in sources.writers if writer.block.kind == "head"]
    blocks = {writer.reader: writer.block for writer in heads if writer.block not in without}
    through = {"sdpa": FUSED, "eager": EAGER}.get(own)
    if through and goes_through_register(network, (writer.reader for writer in heads)):
        network.set_attn_implementation(through)
        for site, block in blocks.items():
            vars(network.get_submodule(site))["profiler_watch"] = Watched(block, under_way)
    else:
        for site, block in blocks.items():
            network.get_submodule(site).register_forward_hook(_weights_of(Watched(block, under_way)))
    _hook_sites(network, sources, wiring, under_way, gates)
    for site, hook in factors_left(gates, lambda site, output: under_way.given.update({site: output})).items():
        network.get_submodule(site).register_forward_hook(hook)

    def forward(tokens: TokenIds, wanted: Wanted) -> Capture:
        under_way.begin(wanted, tokens.shape)
        try:
            network(tokens, use_cache=False, **asking)
            return _capture(under_way, network, sources, wiring)
        finally:
            under_way.begin(Wanted(), tokens.shape)

    return forward


def routed(given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """What a module of experts is called with: what they read, the choices, and their weights."""
    read, *rest = given
    chosen, weights = sorted(rest, key=torch.is_floating_point)
    return read, chosen, weights


def goes_through_register(network: PreTrainedModel, blocks: Iterable[str]) -> bool:
    """Whether the attention modules ask transformers' register which function to call."""
    files = {sys.modules[type(network.get_submodule(site)).__module__] for site in blocks}
    return all(hasattr(file, "eager_attention_forward") for file in files)


def _capture(under_way: UnderWay, network: PreTrainedModel, sources: Sources, wiring: Wiring) -> Capture:
    left, shape = under_way.left, under_way.shape
    embed = left[sources.embed]
    pos = [left[site].expand_as(embed) for site in sources.pos_embeds]
    return Capture(
        units={w.block: left[w.site] for w in sources.writers if w.expert is None and w.site in left},
        embed=embed,
        pos_embed=torch.stack(pos).sum(0) if len(pos) > 1 else next(iter(pos), None),
        residual=left["residual"],
        scales={name: left[name].reshape(*shape, 1) for name in (*wiring.path_norms, *wiring.gates)},
        attention=under_way.attention,
        logits=_logits(network.get_output_embeddings(), left["unembedded"], wiring.logit_scale, under_way.wanted),
        mixing_gap=under_way.mixing_gap,
        routed={w.site: left[w.site] for w in sources.writers if w.expert == 0 and w.site in left},
        factors=under_way.factors,
    )


def _logits(
    head: nn.Module, read: Float[Tensor, "row model"], scale: float, wanted: Wanted
) -> Float[Tensor, "row *value"]:
    """What is made of the logits of the rows asked for, some rows at a time.

    Args:
        head: the unembedding; its hooks are for the network's own call, which is given no row.
        scale: what its output is multiplied by.
    """
    numbers = torch.arange(len(read), device=read.device)
    n = logit_rows(len(head.get_parameter("weight")), read.dtype.itemsize)
    parts = [wanted.summary(head.forward(read[rows][None])[0] * scale, rows) for rows in numbers.split(n)]
    return torch.cat(parts)


def _weights_of(watched: Watched) -> Callable[..., None]:
    """A hook that reads attention weights from what an attention module returns beside its output."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        for value in output[1:] if isinstance(output, tuple | list) else ():
            if torch.is_tensor(value) and value.dim() == len(("window", "head", "offset", "key_offset")):
                watched.read_of(value)
                return

    return hook


def _hook_sites(network: PreTrainedModel, sources: Sources, wiring: Wiring, under_way: UnderWay, gated: Gates) -> None:
    """Let writers, norms, embeddings and the unembedding leave what they read or write."""
    modules = dict(network.named_modules())

    def reads(writer: Writer) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            value = args[0].reshape(*under_way.shape, -1)  # OPT flattens windows before its MLP
            heads = writer.block.units, writer.width
            read = value.unflatten(-1, heads) if writer.width > 1 else value
            under_way.leave(writer, read, gated.get(writer.block))

        return hook

    def writes(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            under_way.left[name] = output

        return hook

    def gates(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            under_way.left[name] = output.sigmoid()

        return hook

    def routes(writer: Writer) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            tables = routed((*args, *named.values()))
            under_way.leave(writer, Routed(*(table.reshape(*under_way.shape, -1) for table in tables)), None)

        return hook

    def no_row(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        if wiring.final is None:
            under_way.left["residual"] = args[0]
        under_way.left["unembedded"] = args[0][under_way.wanted.logits]
        return (args[0][:1, :0],)

    for writer in sources.writers:
        if writer.expert is None:
            modules[writer.site].register_forward_pre_hook(reads(writer))
        elif writer.expert == 0:
            modules[writer.site].register_forward_pre_hook(routes(writer), with_kwargs=True)
    for name in wiring.gates:
        modules[name].register_forward_hook(gates(name))
    _hook_norms(modules, wiring, under_way)
    for name in (sources.embed, *sources.pos_embeds):
        modules[name].register_forward_hook(writes(name))
    head = network.get_output_embeddings()
    head.register_forward_pre_hook(no_row)


def _hook_norms(modules: dict[str, nn.Module], wiring: Wiring, under_way: UnderWay) -> None:
    """Let each call of a norm on the way to the logits leave its denominator, and the final norm what it read."""
    norms = {sink.name: sink.norm for sink in wiring.sinks if sink.norm is not None}

    def reads(site: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            under_way.calls[site] += 1
            name = call_name(site, under_way.calls[site])
            if name in norms:
                under_way.left[name] = norms[name].denominator(args[0])
            if wiring.final is not None and name == wiring.final.name:
                under_way.left["residual"] = args[0]

        return hook

    for site in dict.fromkeys(site_of(name) for name in norms):
        modules[site].register_forward_pre_hook(reads(site))
