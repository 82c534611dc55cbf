"""Logits of model, circuits and the empty circuit in running text, a few windows at a time, and how far they differ.

Why: three runs of the whole corpus and forty circuits on a part of it are most of a check's time. What they share is
run once (`profiler.circuits.node_sets`). The empty circuit mixes no positions, so its answer depends on the token alone
(and on the position, where a model adds positions) and is computed once a token. Logits are made only where they are
read.

Cost: a forward pass of the text for the model, about three quarters of one more for each circuit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from profiler.circuits import node_sets
from profiler.generality.distributions.subject import RunText
from profiler.generality.faithfulness.means import PositionMeans
from profiler.model.steps.network import Network
from profiler.text.windows import Batch

TOKENS_AT_ONCE = 1024
"""Tokens of one pass: of more, logits over a vocabulary leave a processor's cache."""
Keep = Bool[np.ndarray, "set node"]
Logits = Float[Tensor, "position vocab"]


@dataclass(frozen=True, eq=False)
class WindowPiece:
    """A few windows of a batch, and the positions of them that are read.

    Attributes:
        tokens: of the windows.
        chosen: the positions that are read.
        targets: the token to predict at each of these.
        indices: of these, in the text's flat arrays.
    """

    tokens: Int[Tensor, "window offset"]
    chosen: Bool[Tensor, "window offset"]
    targets: Int[Tensor, " position"]
    indices: Int[np.ndarray, " position"]


def pieces(
    text: RunText, tokens: int = TOKENS_AT_ONCE, only: Bool[np.ndarray, " position"] | None = None
) -> Iterator[WindowPiece]:
    """The text in pieces of about `tokens` tokens, up to the last chosen position; of windows without one none.

    Args:
        only: the positions that are read; all ordinary ones by default.
    """
    for batch, part in text.parts():
        indices = torch.full(batch.tokens.shape, -1)
        indices[batch.ordinary] = torch.arange(part.start, part.stop)
        chosen = batch.ordinary
        if only is not None:
            chosen = chosen & torch.from_numpy(np.append(only, np.False_))[indices]
        wanted = chosen.any(1).nonzero()[:, 0]
        for rows in wanted.split(max(1, tokens // batch.tokens.shape[1])) if len(wanted) else ():
            yield _piece(batch, rows, chosen[rows], indices)


def windows_of(text: RunText) -> Int[np.ndarray, " position"]:
    """The number of its window in the text, for each position of the flat arrays."""
    counts = np.concatenate([batch.ordinary.sum(1).numpy() for batch in text.batches])
    return np.repeat(np.arange(len(counts)), counts)


def _piece(batch: Batch, rows: Int[Tensor, " window"], chosen: Tensor, indices: Tensor) -> WindowPiece:
    width = 1 + int(chosen.any(0).nonzero().max())
    here = indices[rows][chosen].numpy()
    return WindowPiece(batch.tokens[rows, :width], chosen[:, :width], batch.targets[rows][chosen], here)


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs sets of nodes, everything outside at its mean; `known` caches the empty circuit's answer to each token."""

    net: Network
    nodes: list[str]
    means: PositionMeans
    known: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def asked(
        self, tokens: Int[Tensor, "window offset"], ends: Int[Tensor, " window"] | None = None
    ) -> node_sets.NodeSetInputs:
        """The tokens and means that sets of nodes are run on."""
        width = tokens.shape[1]
        return node_sets.NodeSetInputs(
            self.net, tokens, ends, self.nodes, lambda site, layer: self.means.at(site, layer, width), {}
        )

    def logits(self, piece: WindowPiece, keep: Keep) -> Iterator[Logits]:
        """Logits at the positions that are read, set by set."""
        with torch.inference_mode():
            chosen = piece.chosen.to(self.net.device)
            for stream in node_sets.streams(self.asked(piece.tokens.to(self.net.device)), keep):
                yield self._finish(stream[chosen])

    def empty(self, piece: WindowPiece) -> tuple[Float[Tensor, "kind vocab"], Int[Tensor, " position"]]:
        """Logits of the empty circuit for each kind of position, and the kind of each position."""
        tokens = piece.tokens[piece.chosen]
        offsets = piece.chosen.nonzero()[:, 1] if self.net.places_matter else torch.zeros_like(tokens)
        kinds, of = torch.unique(torch.stack([tokens, offsets], -1), dim=0, return_inverse=True)
        keys = [(token, offset) for token, offset in kinds.tolist()]
        self._learn([key for key in keys if key not in self.known])
        with torch.inference_mode():
            return self._finish(torch.stack([self.known[key] for key in keys])), of.to(self.net.device)

    def _learn(self, keys: list[tuple[int, int]]) -> None:
        """Run the empty circuit on tokens: each at its own position, after positions that are not attended to."""
        nothing = np.zeros((1, len(self.nodes)), dtype=bool)
        for offset in {offset for _, offset in keys}:
            some = [key for key in keys if key[1] == offset]
            width = max(2, offset + 1)
            tokens = torch.tensor([token for token, _ in some], device=self.net.device)[:, None].expand(-1, width)
            ends = torch.full((len(some),), width - 1, device=self.net.device)
            streams = node_sets.streams(self.asked(tokens, ends), nothing)[0, :, 0]
            self.known.update(zip(some, streams, strict=True))

    def _finish(self, stream: Float[Tensor, "row model"]) -> Float[Tensor, "row vocab"]:
        return self.net.logits(stream)


@dataclass(frozen=True, eq=False)
class Own:
    """The model's own answer at some positions, for comparison with a circuit's."""

    log_p: Logits
    p: Logits
    targets: Int[Tensor, " position"]

    def against(self, log_q: Logits) -> Float[np.ndarray, "2 position"]:
        """KL(p || q), and the loss under q, nats."""
        divergence = torch.linalg.vecdot(self.p, self.log_p - log_q)
        return torch.stack([divergence, loss(log_q, self.targets)]).double().cpu().numpy()

    @property
    def loss(self) -> Float[np.ndarray, " position"]:
        """The model's own loss, nats."""
        return loss(self.log_p, self.targets).double().cpu().numpy()


def own_of(logits: Logits, targets: Int[Tensor, " position"]) -> Own:
    """The model's own answer, from its logits."""
    log_p = logits.log_softmax(-1)
    return Own(log_p, log_p.exp(), targets.to(logits.device))


def loss(log_p: Logits, targets: Int[Tensor, " position"]) -> Float[Tensor, " position"]:
    """Loss on the token that follows, nats."""
    return -log_p.gather(-1, targets[:, None])[:, 0]
