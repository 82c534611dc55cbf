"""A text read by the model: what components do at each token, where a head attends, what the model predicts.

DLA is toward the token that comes next in the text; at the last token toward a token of the reader's choice, or the
model's most probable one. Cost: one forward pass of one window, with the logits of every token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from profiler.errors import CorpusError
from profiler.model.components import ComponentId
from profiler.model.direct import Part
from profiler.model.forward import Wanted
from profiler.model.load import Model
from profiler.sentence.changes import Change, changed


@dataclass(frozen=True, eq=False)
class TextReading:
    """What the model did on a text.

    Attributes:
        token_ids: of the text, the BOS first where the run has one.
        targets: toward which DLA is taken at each token: the next of the text, at the last the one that was chosen.
        log_p: log probability (nats) of every token of the vocabulary after each token, float64.
        components: ids of the components that are shown, by token; the same everywhere where one was named.
        activation, dla: of these, NaN where a component is absent (an expert that was not chosen); dla in logits.
        attention: of a named head, by query and key; None for other components.
    """

    token_ids: Int[Tensor, " offset"]
    targets: Int[Tensor, " offset"]
    log_p: Float[Tensor, "offset vocab"]
    components: Int[Tensor, "offset shown"]
    activation: Float[Tensor, "offset shown"]
    dla: Float[Tensor, "offset shown"]
    attention: Float[Tensor, "offset key_offset"] | None

    @property
    def next_p(self) -> Float[Tensor, " offset"]:
        """Probability of the target after each token."""
        return self.log_p.gather(-1, self.targets[:, None])[:, 0].exp()

    def likeliest(self, n: int) -> pl.DataFrame:
        """The `n` tokens that the model finds most probable after the text: rank, token_id, p."""
        p, ids = self.log_p[-1].exp().topk(min(n, self.log_p.shape[-1]))
        return pl.DataFrame({"rank": range(1, len(ids) + 1), "token_id": ids.tolist(), "p": p.tolist()})


def token_ids_of(model: Model, text: str) -> tuple[Int[Tensor, " offset"], int]:
    """Token ids of a text as the pass reads a window's, and how many tokens do not fit into it and are left out.

    Raises:
        CorpusError: the text holds no token.
    """
    ids = model.encode(text)
    if not ids:
        raise CorpusError("the text holds no token: give at least one word, such as 'The year 1987 was'")
    begin = [] if model.bos_id is None else [model.bos_id]
    fits = max(model.spec.context_length - len(begin), 1)
    return torch.tensor([*begin, *ids[:fits]]), len(ids[fits:])


def token_of(model: Model, text: str) -> int:
    """The id of a text that is a single token.

    Raises:
        CorpusError: it is none, or several.
    """
    ids = model.encode(text)
    if len(ids) != 1:
        raise CorpusError(
            f"{text!r} is {len(ids)} tokens of this model: give a single one, blank included, such as ' the'"
        )
    return ids[0]


def read(
    model: Model,
    token_ids: Int[Tensor, " offset"],
    component: ComponentId | None = None,
    changes: Sequence[Change] = (),
    *,
    after: int | None = None,
    most: int = 5,
) -> TextReading:
    """What the model does on a text.

    Args:
        component: whose values are wanted; None takes at each token the `most` components of the largest |DLA|.
        changes: of components, made in the pass.
        after: id of the token that DLA is taken toward at the last token; None takes the most probable.

    Raises:
        ComponentError: the model lacks a component, or it cannot be changed.
    """
    block = None if component is None or component.kind != "head" else model.spec.block_of(component)
    every = (torch.zeros_like(token_ids), torch.arange(len(token_ids)))
    with changed(model, changes):
        capture = model.run(token_ids[None], Wanted(logits=every, attention=every))
    log_p = model.weights.wiring.capped(capture.logits.double()).log_softmax(-1).cpu()
    last = int(log_p[-1].argmax()) if after is None else after
    targets = torch.cat([token_ids[1:], torch.tensor([last])])
    parts = model.parts_of(component, capture, targets[None].to(model.weights.unembed.device))
    if component is None:
        shown = _largest(parts, len(token_ids), most)
    else:
        shown = _own(parts, model.spec.id_of(component), len(token_ids))
    rows = capture.attention.get(block) if block is not None else None
    attention = None if rows is None or component is None else rows[:, component.unit].double().cpu()
    return TextReading(token_ids, targets, log_p, *shown, attention)


Shown = tuple[Int[Tensor, "offset shown"], Float[Tensor, "offset shown"], Float[Tensor, "offset shown"]]


def _own(parts: Iterator[Part], number: int, n_tokens: int) -> Shown:
    """One component's values at every token."""
    part = next(part for part in parts if part.components.start <= number < part.components.stop)
    unit = slice(number - part.components.start, number - part.components.start + 1)
    activation, dla = (spread(values[..., unit], part.present, n_tokens) for values in (part.activation, part.dla))
    return torch.full((n_tokens, 1), number), activation, dla


def _largest(parts: Iterator[Part], n_tokens: int, most: int) -> Shown:
    """At each token the components of the largest |DLA|, the largest first."""
    ids, activations, dlas = [], [], []
    for part in parts:
        dla = spread(part.dla, part.present, n_tokens)
        order = dla.abs().nan_to_num(-1.0).topk(min(most, dla.shape[-1])).indices
        ids.append(order + part.components.start)
        activations.append(spread(part.activation, part.present, n_tokens).gather(-1, order))
        dlas.append(dla.gather(-1, order))
    components, activation, dla = (torch.cat(columns, -1) for columns in (ids, activations, dlas))
    order = dla.abs().nan_to_num(-1.0).topk(min(most, dla.shape[-1])).indices
    return components.gather(-1, order), activation.gather(-1, order), dla.gather(-1, order)


def spread(
    values: Float[Tensor, "1 row unit"], present: Int[Tensor, " present"] | None, n_tokens: int
) -> Float[Tensor, "offset unit"]:
    """A block's values at every token, float64; NaN where the block is absent."""
    values = values[0].double().cpu()
    if present is None:
        return values
    room = torch.full((n_tokens, values.shape[-1]), torch.nan, dtype=torch.float64)
    return room.index_copy_(0, present.cpu(), values)
