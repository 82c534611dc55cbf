"""What ablating one unit at one position really does: the truth that estimates are held against.

One row a case: the case's window once more, with the unit's value at the position replaced, everything after it
computed anew. The effect is the unablated run minus the ablated one, of the same sums that the gradients are of. Of the
loss no ablation is made: it would take the unembedding of every position.

Cost: a forward pass of a window for each case, and one for each window.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from profiler.model.components import Block
from profiler.model.direct import final_norm
from profiler.model.gradients.network import EffectNetwork, Values, WatchedPass
from profiler.text.windows import Layout, Window, make_batch

ROWS = 16
"""Cases of one forward pass."""


@dataclass(frozen=True, eq=False)
class AblationCase:
    """A unit at a position, and what is put in there.

    Attributes:
        window, offset: the position.
        given: in the place of what the unit's matrix reads there.
    """

    block: Block
    unit: int
    window: Window
    offset: int
    given: Float[Tensor, " width"]


@dataclass(frozen=True)
class Ablated:
    """Effect of a case: the unablated run minus the ablated one.

    Attributes:
        logit: on the centred logits of all ordinary positions of the window together, logits.
        own: on the logit of the case's own position alone, logits.
        norm: the part of `own` that the final norm's denominator makes, closed form, logits.
    """

    logit: float
    own: float
    norm: float


def batched(items: Iterable[Any], n: int) -> Iterator[tuple[Any, ...]]:
    """The items in tuples of `n`; the last may be shorter."""
    rest = iter(items)
    while part := tuple(islice(rest, n)):
        yield part


@dataclass(frozen=True, eq=False)
class _Plain:
    """Of a window's unablated run: the logit and the final norm's denominator at each position."""

    logit: Float[Tensor, " offset"]
    scale: Float[Tensor, " offset"]


@torch.no_grad()
def ablate(net: EffectNetwork, layout: Layout, cases: Sequence[AblationCase]) -> list[Ablated]:
    """The effect of every case, in their order."""
    windows = {case.window.window_id: case.window for case in cases}
    plain: dict[int, _Plain] = {}
    for part in batched(windows.values(), ROWS):
        batch = make_batch(list(part), layout)
        passed = net.run(batch.tokens, batch.targets)
        scale = _scale(net, passed)
        plain |= {window.window_id: _Plain(passed.logit[i], scale[i]) for i, window in enumerate(part)}
    return [effect for part in batched(cases, ROWS) for effect in _ablate(net, layout, part, plain)]


def _ablate(
    net: EffectNetwork, layout: Layout, cases: tuple[AblationCase, ...], plain: dict[int, _Plain]
) -> Iterator[Ablated]:
    batch = make_batch([case.window for case in cases], layout)

    def edit(block: Block, value: Values) -> Values:
        rows = [row for row, case in enumerate(cases) if case.block == block]
        if not rows:
            return value
        changed = value.clone()
        for row in rows:
            changed[row, cases[row].offset, cases[row].unit] = cases[row].given
        return changed

    ablated = net.run(batch.tokens, batch.targets, edit)
    scale, bias = _scale(net, ablated), net.model.weights.token_bias[batch.targets.to(net.device)]
    ordinary = batch.ordinary.to(net.device)
    for row, case in enumerate(cases):
        before, at = plain[case.window.window_id], case.offset
        n = min(len(before.logit), ordinary.shape[1])
        change = before.logit[:n] - ablated.logit[row, :n]
        norm = (ablated.logit[row, at] - bias[row, at]) * (scale[row, at] / before.scale[at] - 1)
        yield Ablated(float(change[ordinary[row, :n]].sum()), float(change[at]), float(norm))


def _scale(net: EffectNetwork, passed: WatchedPass) -> Float[Tensor, "window offset"]:
    """The final norm's denominator."""
    return final_norm(passed.capture, net.model.weights)[1][..., 0]
