"""What a reading of weights leaves out, measured on text; and what the heads do there, to compare the reading with.

Why: "we may ignore this term" is the weak point of every argument from weights (the essay on mechanistic analysis). So
the terms are built up one by one, and for each stands how much of the variance of the head's real attention scores it
explains: with a free scale, scores taken within a query (a constant there changes no attention), BOS and special keys
left out.

| circuit | term | what |
|---|---|---|
| QK | embedding | token embeddings alone, no positions |
| QK | positions | and where they stand: rotary or added |
| QK | layer 0 | and what layer 0 makes of a token alone (the effective embedding) |
| QK | norm | and the real denominator of the layer's norm |
| QK | rest | what other tokens wrote: earlier heads, and MLPs that read them |
| OV | embedding, layer 0, norm, rest | the same for values, without positions, by mean squares over positions |

Shares add up to 1; one can be below 0, where a term makes the reading worse. A score's `ignored_share` is what its own
term leaves out: all but positions for the positional score, the key through one earlier head for induction. Cost:
[window, head, query, key] products, a few per layer, on a few thousand tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from profiler.generality.replacement.rules import ATTENDED
from profiler.generality.replacement.run import Base, TextBatch, base_of, direct_to, seen_of
from profiler.generality.weights import inputs as parts
from profiler.generality.weights.inputs import Alone
from profiler.generality.weights.scores import HeadScores, PerHead, WordSample, mean_scores, written_keys
from profiler.model.steps.plain import PlainNetwork, rotate
from profiler.patching.sites import Target

QK_TERMS = ("embedding", "positions", "layer 0", "norm")
OV_TERMS = ("embedding", "layer 0", "norm")
BEHAVIOURS = {"QK previous": "previous_token", "QK duplicate": "duplicate", "QK induction": "induction"}
"""The attention that each score should show as; OV copying should show as the logit of the attended token."""


@dataclass(frozen=True)
class WeightBudget:
    """How much of a circuit's variance on text one term adds; a row of the run file.

    Attributes:
        component: label of a head.
        circuit: QK or OV.
        term: of the module docstring; `rest` is what no term explains.
        share: of the variance.
    """

    component: str
    circuit: str
    term: str
    share: float


@dataclass(frozen=True, eq=False)
class HeadsOnText:
    """What text shows: explained shares per term, ignored shares per score, and behaviour, [layer, head] each.

    Attributes:
        qk, ov: share explained by each term with those before it.
        ignored: per score, what its own term leaves out.
        behaviour: per score, what the heads do on text: mean attention to its positions, or DLA to the attended token.
        n: positions.
    """

    qk: dict[str, PerHead]
    ov: dict[str, PerHead]
    ignored: dict[str, PerHead]
    behaviour: dict[str, PerHead]
    n: int


class _Fit:
    """Sums for the share of variance that one thing explains of another, with a free scale, per head."""

    def __init__(self, layers: int, heads: int):
        self.both, self.own, self.given = (torch.zeros(layers, heads, dtype=torch.float64) for _ in range(3))

    def add(self, layer: int, head: int, given: Tensor, own: Tensor) -> None:
        """Centred values of the real thing, and of the term."""
        self.both[layer, head] += (given * own).sum().double().cpu()
        self.own[layer, head] += own.square().sum().double().cpu()
        self.given[layer, head] += given.square().sum().double().cpu()

    def share(self) -> PerHead:
        """Squared correlation; 0 where the term is constant."""
        return (self.both.square() / (self.own * self.given).clamp_min(1e-300)).clamp(0, 1)


@torch.inference_mode()
def see(
    net: PlainNetwork, readings: Sequence[TextBatch], seen: Alone, words: WordSample, scored: HeadScores
) -> HeadsOnText:
    """Read the text once."""
    names = (
        [("qk", t) for t in QK_TERMS]
        + [("ov", t) for t in OV_TERMS]
        + [("own", n) for n in ("QK previous", "QK induction")]
    )
    fits = {name: _Fit(net.n_layers, net.n_heads) for name in names}
    did = {name: torch.zeros(net.n_layers, net.n_heads, dtype=torch.float64) for name in (*BEHAVIOURS, "OV copying")}
    there = dict.fromkeys(did, 0)
    for reading in readings:
        base = base_of(net, reading)
        for layer in range(net.n_layers):
            for head in range(net.n_heads):
                for name, given, own in _terms(base, seen, words, scored, layer, head):
                    fits[name].add(layer, head, given, own)
        _behave(base, did, there)
    shares = {name: fit.share() for name, fit in fits.items()}
    qk, ov = ({t: shares[c, t] for t in terms} for c, terms in (("qk", QK_TERMS), ("ov", OV_TERMS)))
    ignored = {"OV copying": 1 - ov["layer 0"], "OV diagonal": 1 - ov["layer 0"], "QK duplicate": 1 - qk["layer 0"]}
    ignored |= {name: 1 - shares["own", name] for name in ("QK previous", "QK induction")}
    n = sum(int(reading.counted.sum()) for reading in readings)
    return HeadsOnText(qk, ov, ignored, {name: did[name] / max(1, there[name]) for name in did}, n)


def _terms(
    base: Base, seen: Alone, words: WordSample, scored: HeadScores, layer: int, head: int
) -> Iterator[tuple[tuple[str, str], Tensor, Tensor]]:
    """Name, real value and term, centred, of one head: scores within queries, values over positions."""
    net, reading = base.net.plain, base.reading
    allowed = _allowed(reading.counted)
    real = _scores(net, base.sites["q", layer][:, :, head], base.sites["k", layer][:, :, head])
    given = _within(real, allowed)
    streams = _streams(base, seen, layer)
    for term in QK_TERMS:
        q, k = (_read(base, layer, head, what, streams[term], real_norm=term == "norm") for what in "qk")
        yield ("qk", term), given, _within(_scores(net, q, k, positions=term != "embedding"), allowed)
    width = reading.tokens.shape[1]
    position = mean_scores(net, seen, words, layer, head, width).expand_as(real)
    yield ("own", "QK previous"), given, _within(position, allowed)
    if (partner := scored.partners[layer]) is not None:
        keys = written_keys(net, seen, layer, head, partner)[reading.tokens.roll(1, 1)]
        q = _read(base, layer, head, "q", streams["layer 0"], real_norm=False)
        yield ("own", "QK induction"), given, _within(_scores(net, q, keys), allowed)
    values = _over(base.sites["v", layer][:, :, head], reading.counted)
    for term in OV_TERMS:
        stream = streams["embedding" if term == "embedding" else "OV"]
        yield (
            ("ov", term),
            values,
            _over(_read(base, layer, head, "v", stream, real_norm=term == "norm"), reading.counted),
        )


def _streams(base: Base, seen: Alone, layer: int) -> dict[str, Tensor]:
    """What a head would read if only the term were there."""
    tokens = base.reading.tokens
    offsets = torch.arange(tokens.shape[1], device=tokens.device)
    later = parts.at_offset(base.net.plain, seen.at(layer)[tokens], offsets)
    return {
        "embedding": seen.first[tokens],
        "positions": parts.at_offset(base.net.plain, seen.first[tokens], offsets),
        "layer 0": later,
        "norm": later,
        "OV": seen.at(layer)[tokens],
    }


def _read(base: Base, layer: int, head: int, what: str, stream: Tensor, *, real_norm: bool) -> Tensor:
    if not real_norm:
        return parts.read(base.net.plain, layer, head, what, stream)
    w = base.net.plain.layers[layer]
    norm = w.norm_attn
    own = norm.scale(stream)
    scale = norm.scale(base.sites["resid_pre", layer])
    normed = (norm(stream) - norm.bias) * own / scale + norm.bias
    made: Tensor = normed @ getattr(w, f"w_{what}")[head] + getattr(w, f"b_{what}")[head]
    return made


def _scores(net: PlainNetwork, q: Tensor, k: Tensor, *, positions: bool = True) -> Float[Tensor, "window query key"]:
    """Attention scores before the softmax."""
    if positions:
        offsets = torch.arange(q.shape[1], device=q.device)[None]
        q, k = (rotate(net, x[:, :, None], offsets)[:, :, 0] for x in (q, k))
    return q @ k.transpose(1, 2) * net.attn_scale


def _allowed(counted: Bool[Tensor, "window offset"]) -> Bool[Tensor, "window query key"]:
    """Counted keys up to each counted query."""
    width = counted.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=counted.device).tril()
    return causal & counted[:, :, None] & counted[:, None, :]


def _within(scores: Tensor, allowed: Tensor) -> Tensor:
    """Scores minus their mean over a query's keys; 0 elsewhere."""
    allowed_scores = scores.masked_fill(~allowed, 0.0)
    return (
        allowed_scores - allowed_scores.sum(-1, keepdim=True) / allowed.sum(-1, keepdim=True).clamp_min(1)
    ) * allowed


def _over(values: Tensor, counted: Tensor) -> Tensor:
    """Values at counted positions minus their mean there."""
    counted_values = values[counted]
    return counted_values - counted_values.mean(0)


def _behave(base: Base, did: dict[str, PerHead], there: dict[str, int]) -> None:
    """Add what the heads do in one batch."""
    net, reading = base.net, base.reading
    rule_input = seen_of(base, Target("head", 0, 0), torch.zeros_like(base.sites["head", 0][0, 0, 0]))
    for name, mass in BEHAVIOURS.items():
        where = ATTENDED[mass](rule_input)
        at = where.any(-1) & reading.counted
        there[name] += int(at.sum())
        for layer in range(net.n_layers):
            weight = (base.sites["pattern", layer] * where[:, None]).sum(-1).movedim(1, -1)
            did[name][layer] += weight[at].sum(0).double().cpu()
    there["OV copying"] += int(reading.counted.sum())
    for layer in range(net.n_layers):
        for head in range(net.n_heads):
            top = base.sites["pattern", layer][:, head].argmax(-1)
            attended = reading.tokens.gather(1, top)
            did["OV copying"][layer, head] += float(direct_to(base, Target("head", layer, head), attended).sum())


def budget_rows(on_text: HeadsOnText) -> tuple[WeightBudget, ...]:
    """What each term adds, and the rest, of every head."""
    rows = []
    for circuit, shares in (("QK", on_text.qk), ("OV", on_text.ov)):
        before = torch.zeros_like(next(iter(shares.values())))
        for term, share in (*shares.items(), ("rest", torch.ones_like(before))):
            added = share - before
            rows += [
                WeightBudget(f"L{i}H{j}", circuit, term, float(added[i, j]))
                for i in range(added.shape[0])
                for j in range(added.shape[1])
            ]
            before = share
    return tuple(rows)
