"""Queries, keys, values and patterns inside an attention module, given to the edit of the call under way.

Most families ask transformers' register which function computes their attention; ours stand in it. The others compute
it in their own forward (GPT-J, CodeGen, GPT-Neo, Bloom, MPT, XGLM, GPT-1) or call PyTorch's fused kernel there
(Falcon): of these every call of a PyTorch function is watched. Of the products of two batches of matrices, that before
the softmax is of queries and keys, that after it mixes the values. That this holds of a model is tried
in `profiler.model.steps.as_network`.

Cost: that of the attention itself; where patterns are edited and a fused kernel forms none, they are computed beside
it.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from profiler.model.steps.network import unchanged
from profiler.model.steps.under_way import LayerCall, Reached

PRODUCTS = ("matmul", "bmm", "baddbmm", "__matmul__")
"""Names of PyTorch's products of matrices."""
MATRICES = 3
"""Fewest axes of a batch of matrices."""
ByHead = Float[Tensor, "prompt head offset d_head"]
KeysByHead = Float[Tensor, "prompt key_head key_offset d_value"]


class _PerHeadModule:
    """An attention module whose keys and values have been repeated for each head."""

    num_key_value_groups = 1

    def __init__(self, module: nn.Module):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _additive(mask: Tensor | None, query: ByHead, key: KeysByHead) -> Tensor:
    """A mask that is added to scores, causal where there is none."""
    if mask is None:
        n, m = query.shape[2], key.shape[2]
        mask = torch.ones(n, m, dtype=torch.bool, device=query.device).tril(m - n)[None, None]
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)


def _edited(call: LayerCall, site: str, x: ByHead) -> ByHead:
    """Queries, keys or values as the edit returns them."""
    return call.edit(site, call.layer, x.transpose(1, 2), None).transpose(1, 2)


def _edited_parts(
    call: LayerCall,
    query: ByHead,
    key: Float[Tensor, "prompt key_head key_offset d_head"],
    value: Float[Tensor, "prompt key_head key_offset d_value"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of every head as the edit returns them, but where keys of earlier offsets stand before
    them."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if query.shape[2] != key.shape[2]:
        return query, key, value
    return _edited(call, "q", query), _edited(call, "k", key), _edited(call, "v", value)


def _edited_pattern(
    call: LayerCall, pattern: Float[Tensor, "prompt head query key"]
) -> Float[Tensor, "prompt head query key"]:
    """A pattern as the edit returns it; the end, where that was asked for."""
    changed = call.edit("pattern", call.layer, pattern, None)
    if call.until == "pattern":
        raise Reached(changed)
    return changed


# --- attention functions of transformers' register ---


def _own_eager(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """The attention of a model's own file that forms every weight."""
    own: Callable[..., tuple[Tensor, Tensor]] = sys.modules[type(module).__module__].eager_attention_forward
    return own


def _fused(module: nn.Module, *inputs: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    """PyTorch's fused attention, watched."""
    return _attention(sdpa_attention_forward, module, inputs, options)


def _eager(module: nn.Module, *inputs: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    """The model's own attention, watched."""
    return _attention(_own_eager(module), module, inputs, options)


def _attention(
    plain: Callable[..., tuple[Tensor, Tensor | None]],
    module: nn.Module,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    options: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """Attention with every head's queries, keys, values and pattern given to the edit; the pattern where it is asked
    for."""
    call: LayerCall = vars(module)["profiler_steps"]
    query, key, value, mask = inputs
    if call.edit is unchanged:
        return plain(module, query, key, value, mask, **options)
    query, key, value = _edited_parts(call, query, key, value)
    by_head = _PerHeadModule(module)
    if not call.patterns:
        return plain(by_head, query, key, value, mask, **options)
    out, weights = _own_eager(module)(by_head, query, key, value, _additive(mask, query, key), **options)
    changed = _edited_pattern(call, weights)
    if changed is not weights:
        return (changed @ value).transpose(1, 2), changed
    if torch.is_grad_enabled():  # a gradient is asked of the pattern
        return out, weights
    return plain(by_head, query, key, value, mask, **options)


FUSED, EAGER = "profiler_steps_fused", "profiler_steps_eager"
"""Names of our attention functions in transformers' register."""
for _name, _function, _mask in ((FUSED, _fused, sdpa_mask), (EAGER, _eager, eager_mask)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, _mask)


# --- attention that a module computes in its own forward ---


def watch_own(module: nn.Module, call: LayerCall) -> None:
    """Let an attention module that computes its attention itself give its parts to the edit of the call under way."""
    own = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if call.edit is unchanged or call.calls is not None:
            return own(*args, **kwargs)
        with _OwnAttention(call):
            return own(*args, **kwargs)

    module.forward = forward


class _OwnAttention(TorchFunctionMode):
    """Sees every PyTorch function that one call of an attention module makes, until the values are mixed."""

    def __init__(self, call: LayerCall):
        super().__init__()
        self._call, self._mixes, self._whole, self._heads = call, False, True, 0
        self._done = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if self._done:
            return func(*args, **named)
        if func is scaled_dot_product_attention:
            self._done = True
            return self._fused(*args, **named)
        if name == "softmax":
            self._mixes = True
        elif name in PRODUCTS:
            return self._product(func, args, named)
        return func(*args, **named)

    def _product(self, func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
        """A product of two batches of matrices, its operands edited where they are parts of the attention."""
        names = [name for name in ("batch1", "batch2", "mat2", "other") if name in named]
        operands = [*args, *(named.pop(name) for name in names)]
        *first, left, right = operands
        if min(left.dim(), right.dim()) >= MATRICES:
            left, right = self._mixed(left, right) if self._mixes else self._scored(left, right)
            self._done = self._mixes
        product: Tensor = func(*first, left, right, **named)
        return product

    def _scored(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, edited."""
        queries, keys = self._by_head(query), self._by_head(key.mT)
        self._whole, self._heads = queries.shape[2] == keys.shape[2], queries.shape[1]
        keys = repeat_kv(keys, self._heads // keys.shape[1])
        if self._whole:
            queries, keys = _edited(self._call, "q", queries), _edited(self._call, "k", keys)
        return self._as_given(queries, query), self._as_given(keys, key.mT).mT

    def _mixed(self, pattern: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The pattern and the values, edited."""
        values = self._by_head(value)
        values = repeat_kv(values, self._heads // values.shape[1])
        values = _edited(self._call, "v", values) if self._whole else values
        if self._call.patterns:
            pattern = self._as_given(_edited_pattern(self._call, self._by_head(pattern)), pattern)
        return pattern, self._as_given(values, value)

    def _by_head(self, x: Tensor) -> Float[Tensor, "prompt head row column"]:
        """A batch of matrices by prompt and head, whether these are two axes or one."""
        return x.reshape(self._call.rows, -1, *x.shape[-2:])

    def _as_given(self, x: Float[Tensor, "prompt head row column"], given: Tensor) -> Tensor:
        """The same with the axes in which it was given."""
        return x if given.dim() > MATRICES else x.flatten(0, 1)

    def _fused(
        self, query: ByHead, key: KeysByHead, value: KeysByHead, attn_mask: Tensor | None = None, **options: Any
    ) -> ByHead:
        """PyTorch's fused kernel, its operands edited, and the pattern that it does not form."""
        query, key, value = _edited_parts(self._call, query, key, value)
        if self._call.patterns:
            scores = query @ key.mT * (options.get("scale") or query.shape[-1] ** -0.5)
            pattern = (scores + _additive(attn_mask, query, key)).softmax(-1)
            changed = _edited_pattern(self._call, pattern)
            if changed is not pattern or torch.is_grad_enabled():  # a gradient may be asked of the pattern
                return changed @ value
        out: Tensor = scaled_dot_product_attention(query, key, value, attn_mask, **options)
        return out
