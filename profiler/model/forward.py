"""The model's own forward pass, watched: what heads and neurons wrote, attention rows where asked for, logits where
asked for.

A plain Hugging Face network with hooks that only look. Its attention runs through PyTorch's fused kernel, which never
forms a pattern; the few rows that the summaries need (positions of the uniform sample) are computed again beside it
from the same queries and keys. The unembedding is applied to the rows asked for and to no others: with a large
vocabulary it is a third of a forward pass, and a full-vocabulary quantity is kept of sampled positions alone.

Cost: the bare forward pass less the unembedding; a row of attention costs heads * offsets * d_head multiplications,
  less
than a layer's MLP.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from profiler.axes import HeadOutputs, Residual, TokenIds

WATCHED = "profiler_watched"
"""The name of our attention function in transformers' register."""

Rows = tuple[Int[Tensor, " row"], Int[Tensor, " row"]]
AttendingRows = tuple[Int[Tensor, "attending"], Int[Tensor, "attending"]]
"""Window and offset of each position asked for."""

NOWHERE: Rows = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


@dataclass(frozen=True)
class Wanted:
    """What a forward pass is asked for, beside what heads and neurons wrote.

    Attributes:
        logits: positions whose logits are wanted.
        attention: positions whose attention rows are wanted.
        read: what is made of a layer's attention rows; the rows themselves are not kept.
    """

    logits: Rows = NOWHERE
    attention: AttendingRows = NOWHERE
    read: Callable[[Float[Tensor, "attending head key_offset"]], Any] = lambda rows: rows

    def to(self, device: torch.device) -> "Wanted":
        """The same, with indices on a device."""
        logits, attention = (tuple(index.to(device) for index in rows) for rows in (self.logits, self.attention))
        return replace(self, logits=logits, attention=attention)


@dataclass(frozen=True)
class Capture:
    """What one forward pass left.

    Attributes:
        heads: per layer, what each head read and mixed, before W_O.
        neurons: per layer, activations after the nonlinearity (gated MLPs: act(gate) * in), before W_out.
        embed, pos_embed: what the embeddings wrote; pos_embed is None where positions are not added.
        residual: the final residual stream, what the final norm reads.
        attention: per layer, what was read off the attention rows asked for; empty where none was.
        logits: the model's logits of the rows asked for.
    """

    heads: list[HeadOutputs]
    neurons: list[Float[Tensor, "window offset neuron"]]
    embed: Residual
    pos_embed: Residual | None
    residual: Residual
    attention: list[Any]
    logits: Float[Tensor, "row vocab"]


@dataclass
class UnderWay:
    """What the pass under way is asked for, and what it has left so far."""

    wanted: Wanted = Wanted()
    left: dict[str, Any] = field(default_factory=dict)


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
    found = query.new_empty(len(windows), query.shape[1], key.shape[2])
    places = torch.arange(key.shape[2], device=key.device)
    for window in windows.unique().tolist():
        at = (windows == window).nonzero()[:, 0]
        asked = query[window].index_select(1, offsets[at]) * scaling
        scores = asked @ repeat_kv(key[window][None], query.shape[1] // key.shape[1])[0].mT
        weights = _softmax(scores, mask, window, offsets[at], places)
        found.index_copy_(0, at, weights.transpose(0, 1).to(query.dtype))
    return found


def _softmax(
    scores: Float[Tensor, "head row key_offset"],
    mask: Tensor | None,
    window: int,
    at: Int[Tensor, " row"],
    places: Int[Tensor, " key_offset"],
) -> Float[Tensor, "head row key_offset"]:
    """The scores of one window's rows, masked, as weights; in float32 at least."""
    if mask is None:
        scores.masked_fill_(places > at[:, None], -torch.inf)
    else:
        own = mask[window % len(mask), :, at]
        scores = scores.masked_fill(~own, -torch.inf) if own.dtype == torch.bool else scores + own
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _watched_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """PyTorch's fused attention; where the pass was asked for rows, they are computed beside it and read."""
    out = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    name, under_way = module.profiler_watch
    wanted = under_way.wanted
    if len(wanted.attention[0]):
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        rows = attention_rows(query, key, attention_mask, scaling, wanted.attention)
        under_way.left[name] = wanted.read(rows)
    return out


AttentionInterface.register(WATCHED, _watched_attention)
AttentionMaskInterface.register(WATCHED, sdpa_mask)


def twin_of(network: PreTrainedModel) -> PreTrainedModel:
    """A second network of the same modules over the very same tensors: hooks on one are not on the other."""
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return deepcopy(network, tensors)


def watch(network: PreTrainedModel, names: dict[str, str], n_layers: int, n_heads: int) -> Forward:
    """Hook a network (in place) and return its forward pass.

    Args:
        names: where things are in it: `embed`, `pos_embed` (may be absent), `final_norm`, `unembed`, and of each layer
          i
            `attn{i}`, `attn_out{i}` (W_O) and `mlp_out{i}` (W_out; absent where it cannot be read).

    Raises:
        AttributeError, ValueError: it has no such module, or its attention cannot be exchanged.
    """
    under_way = UnderWay()
    network.set_attn_implementation(WATCHED)
    for name, place in names.items():
        _hook(network.get_submodule(place), name, under_way)

    def forward(tokens: TokenIds, wanted: Wanted) -> Capture:
        under_way.wanted, under_way.left = wanted, {}
        logits = network(tokens, use_cache=False).logits
        left, under_way.left = under_way.left, {}
        split = lambda z: z.unflatten(-1, (n_heads, -1))  # noqa: E731
        return Capture(
            heads=[split(left[f"attn_out{i}"]) for i in range(n_layers)],
            neurons=[left[f"mlp_out{i}"] for i in range(n_layers)] if "mlp_out0" in left else [],
            embed=left["embed"],
            pos_embed=_over_windows(left.get("pos_embed"), left["embed"]),
            residual=left["final_norm"],
            attention=[left[f"attn{i}"] for i in range(n_layers)] if len(wanted.attention[0]) else [],
            logits=logits[0],
        )

    return forward


def _over_windows(positions: Residual | None, embed: Residual) -> Residual | None:
    """Positional embeddings may come once for all windows."""
    return None if positions is None else positions.expand_as(embed)


def _hook(module: nn.Module, name: str, under_way: UnderWay) -> None:
    """Let one module leave what it reads or writes."""

    def keep_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        under_way.left[name] = args[0]

    def keep_output(module: nn.Module, args: Any, output: Tensor) -> None:
        under_way.left[name] = output

    def only_rows(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0][under_way.wanted.logits][None],)

    if name.startswith("attn") and not name.startswith("attn_out"):
        module.profiler_watch = (name, under_way)
    elif name == "unembed":
        module.register_forward_pre_hook(only_rows)
    elif name in ("embed", "pos_embed"):
        module.register_forward_hook(keep_output)
    else:
        module.register_forward_pre_hook(keep_input)
