"""Copy suppression and copying as rules: keep what a head writes towards the tokens it attends to, and nothing else.

Why: a head that suppresses (or copies) is said to do so through one direction per source: the unembedding of the token
there. McDougall et al. 2023 ("Copy Suppression: Comprehensively Understanding an Attention Head", section 3) therefore
ablate everything but that. With z = sum over sources k of a_k v_k and m the mean of z, and because attention sums to 1,

    write = m W_O + sum over k of a_k (v_k - m) W_O

of which the sum's terms are kept in part: only their projection on the direction of source k's own token, only with one
sign (away from it for suppression, towards it for copying), and, with `top`, only for the share of sources that the
model, read by the logit lens where the head reads, predicts most. With everything kept this is the live write, with
nothing it is mean ablation; both are tested.

The direction of a token is the one that direct logit attribution uses: final norm's weight times the centred row of the
unembedding, centred where the norm centres. Cost: [window, query, key] products, and one logit lens per position.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler.generality.replacement.rules import (
    RULES,
    Attended,
    Rule,
    RuleInput,
    everywhere,
    pattern_of,
    values_of,
)

TOP = 0.05
"""Share of sources kept (McDougall et al. 2023)."""


def kept_by_lens(seen: RuleInput, top: float) -> Attended:
    """The `top` share of sources (one at least) whose tokens have the highest logit where the head reads."""
    lens = seen.net.logits(seen.stream)
    width = seen.tokens.shape[1]
    scores = lens.gather(-1, seen.tokens[:, None, :].expand(-1, width, -1))
    causal = torch.ones(width, width, dtype=torch.bool, device=scores.device).tril()
    order = torch.argsort(scores.masked_fill(~causal, -math.inf), dim=-1, descending=True, stable=True)
    most = (top * torch.arange(1, width + 1, device=scores.device)).ceil().clamp_min(1)
    return (order.argsort(-1) < most[:, None]) & causal


def w_o_of(seen: RuleInput) -> Float[Tensor, "d_head model"]:
    """W_O of the head."""
    return seen.net.w_o(seen.target.layer)[seen.target.unit].to(seen.stream.dtype)


def unit_directions(seen: RuleInput) -> Float[Tensor, "window offset model"]:
    """Of each token the unit direction that raises its logit, at what the head's block writes."""
    toward = seen.net.toward_from("attn_out", seen.target.layer, seen.tokens)
    return torch.nn.functional.normalize(toward.to(seen.stream.dtype), dim=-1)


def kept_part(seen: RuleInput, sign: int | None) -> Float[Tensor, "window key"]:
    """Each source's term, divided by its attention, along its own token's unit direction; one sign alone."""
    units = unit_directions(seen)
    written = (values_of(seen) - seen.mean) @ w_o_of(seen)
    along = (written * units).sum(-1)
    return along if sign is None else sign * (sign * along).clamp_min(0)


def towards_attended(name: str, sign: int | None, top: float | None, *, project: bool = True) -> Rule:
    """The rule of the module docstring.

    Args:
        name: shown to people.
        sign: 1 keeps what raises the attended token, -1 what lowers it, None both.
        top: share of sources kept, by the logit lens; None keeps all.
        project: whether only the part along the source's own token is kept; False keeps the whole term.
    """

    def value(seen: RuleInput) -> tuple[Tensor, Bool[Tensor, "window offset"]]:
        w_o = w_o_of(seen)
        weights = pattern_of(seen) if top is None else pattern_of(seen) * kept_by_lens(seen, top)
        base = (seen.mean @ w_o).expand_as(seen.stream)
        if not project:
            return base + (weights @ (values_of(seen) - seen.mean)) @ w_o, everywhere(seen)
        units = unit_directions(seen)
        return base + weights @ (kept_part(seen, sign)[..., None] * units), everywhere(seen)

    return Rule(name, "write", value)


BUILT_IN: dict[str, Rule] = {
    **RULES,
    "copy_suppression": towards_attended("copy_suppression", -1, TOP),
    "copy_suppression_ov": towards_attended("copy_suppression_ov", -1, None),
    "copy_suppression_qk": towards_attended("copy_suppression_qk", None, TOP, project=False),
    "copying": towards_attended("copying", 1, None),
}
"""All rules by name."""
