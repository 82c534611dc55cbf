"""Pairs as tensors, and the two runs that every patch starts from.

Why: a sweep needs, for the clean and for the corrupted prompts, the activations of every site once; all patches then
restart from them. Prompts are padded on the right (harmless under a causal mask); the answer is read at each prompt's
own last position. Cost: two forward passes; the traces hold about 6 d_model + d_mlp numbers per token and layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from profiler.errors import PairError
from profiler.model.steps.experts import ROUTED, ByLayer
from profiler.model.steps.network import Logits, Network, Offsets, Stream, at
from profiler.patching.metrics import Options
from profiler.patching.sites import EXPERT, OF_MATRIX
from profiler.prompts.pairs import TokenPair

Tokens = Int[Tensor, "prompt position"]
SITES = (
    *("embed", "resid_pre", "q", "k", "v", "pattern", "head", "attn_out", "neuron", "mlp_out", "resid_final"),
    *(*OF_MATRIX, "mixer_out"),
)
OF_EXPERTS = (*ROUTED, "experts_out")
"""Sites of routed experts that a run keeps beside; `expert`, their neurons' activations, is made of these."""


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pairs of one experiment.

    Attributes:
        pairs: in the order of the rows.
        clean, corrupted: padded ids.
        ends: position of the last token of each prompt.
        valid: false at padding.
        options: what the answer is compared with.
        roles: role to the positions that play it; `end` is always there.
    """

    pairs: tuple[TokenPair, ...]
    clean: Tokens
    corrupted: Tokens
    ends: Int[Tensor, " prompt"]
    valid: Bool[Tensor, "prompt position"]
    options: Options
    roles: dict[str, Bool[Tensor, "prompt position"]]

    def __len__(self) -> int:
        return len(self.clean)

    def mask(self, positions: str) -> Bool[Tensor, "prompt position"]:
        """The positions that `positions` names: `all`, or a role.

        Raises:
            PairError: no pair has this role.
        """
        if positions == "all":
            return self.valid
        if positions not in self.roles:
            raise PairError(f"no pair has the role {positions!r}: the roles are all, {', '.join(self.roles)}")
        return self.roles[positions]

    @property
    def first_difference(self) -> int:
        """Before this position clean and corrupted prompts are the same, in every pair."""
        return min(pair.first_difference for pair in self.pairs)


def batch_of(
    pairs: Sequence[TokenPair], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> PairBatch:
    """Pairs as tensors.

    Raises:
        PairError: there is no pair, or a pair's prompts differ in length or not at all.
    """
    if not pairs:
        raise PairError("there is no pair: give at least one")
    for pair in pairs:
        if len(pair.clean) != len(pair.corrupted) or pair.clean == pair.corrupted:
            what = "are the same tokens" if pair.clean == pair.corrupted else "differ in length"
            raise PairError(f"pair {pair.pair.name!r}: its prompts {what}, so nothing can be patched: change one")
    clean, corrupted = (filled_up([getattr(p, name) for p in pairs], device) for name in ("clean", "corrupted"))
    width = clean.shape[1]
    ends = torch.tensor([len(pair.clean) - 1 for pair in pairs], device=device)
    valid = torch.arange(width, device=device)[None] <= ends[:, None]
    answers, distractors = (
        _padded([getattr(p, name) for p in pairs], device, dtype) for name in ("answers", "distractors")
    )
    options, roles = Options(*answers, *distractors), _roles(pairs, width, device)
    return PairBatch(tuple(pairs), clean, corrupted, ends, valid, options, roles)


def filled_up(rows: Sequence[Sequence[int]], device: torch.device | str) -> Int[Tensor, "text offset"]:
    """Texts as one tensor, the shorter ones filled up with token 0 after their ends."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)


def _padded(rows: Sequence[Sequence[int]], device: torch.device | str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[row[0]] * (width - len(row))] for row in rows], device=device)
    weight = torch.tensor([[1 / len(row)] * len(row) + [0.0] * (width - len(row)) for row in rows], dtype=dtype)
    return ids, weight.to(device)


def _roles(pairs: Sequence[TokenPair], width: int, device: torch.device | str) -> dict[str, Tensor]:
    names = dict.fromkeys(name for pair in pairs for name in pair.role_names)
    masks = {name: torch.zeros(len(pairs), width, dtype=torch.bool) for name in names}
    for row, pair in enumerate(pairs):
        for name, positions in pair.roles:
            masks[name][row, list(positions)] = True
    return {name: mask.to(device) for name, mask in masks.items()}


@dataclass(frozen=True, eq=False)
class Trace:
    """What one run left: per site a tensor per layer (`embed` and `resid_final` have one), and logits at the ends.

    `tokens` are what was run; None where the values are of no single run.
    """

    sites: Mapping[str, Sequence[Tensor]]
    logits: Logits
    tokens: Tokens | None = None

    def __getitem__(self, site: str) -> Sequence[Tensor]:
        return self.sites[site]


def trace(net: Network, tokens: Tokens, ends: Int[Tensor, " prompt"]) -> Trace:
    """Run the model on whole prompts and keep every site."""
    sites, stream = every_site(net, tokens)
    with torch.inference_mode():
        return Trace(sites, net.finish(at(stream, ends), ends=ends), tokens)


def every_site(net: Network, tokens: Tokens) -> tuple[dict[str, Sequence[Tensor]], Stream]:
    """Every site of a run, and the final residual stream; of a layer that lacks heads or neurons none."""
    values: dict[tuple[str, int], Tensor] = {}

    def keep(site: str, layer: int, value: Tensor, _positions: Offsets) -> Tensor:
        values[site, layer] = value
        return value

    with torch.inference_mode():
        steps = net.begin(tokens, keep)
        stream = steps.stream
        for layer in range(net.n_layers):
            stream = steps.layer(layer, stream, keep)
    nothing = stream.new_zeros(*tokens.shape, 0)
    absent = {"pattern": stream.new_zeros(len(tokens), 0, *[tokens.shape[1]] * 2)}
    absent |= dict.fromkeys(("attn_out", "mlp_out", "mixer_out"), torch.zeros_like(stream))
    absent |= dict.fromkeys(("neuron", *OF_MATRIX, *OF_EXPERTS), nothing)
    absent |= dict.fromkeys(("q", "k", "v", "head"), nothing[..., None])
    sites: dict[str, Sequence[Tensor]] = {
        site: [values.get((site, layer), absent.get(site, stream)) for layer in range(net.n_layers)]
        for site in (*SITES, *OF_EXPERTS)
    }
    experts = [net.experts(layer) for layer in range(net.n_layers)]
    sites[EXPERT] = ByLayer(experts, sites["expert_read"], sites["expert_choice"])
    return sites | {"embed": [values["embed", 0]], "resid_final": [stream]}, stream
