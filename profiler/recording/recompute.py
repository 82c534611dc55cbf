"""What a component does at every token of some contexts, with the model at hand: the run keeps its windows, not all
values.

The windows that the shown positions refer to go through the model again: activation and DLA of one component at each
token in sight, the probability of each token that came next, and for a head the attention row of each shown position.

Cost: one forward pass per window, at most a few hundred of them; logits of the tokens in sight alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from duckdb import DuckDBPyConnection as Connection
from jaxtyping import Float, Int
from torch import Tensor

from profiler.database import query
from profiler.errors import ModelError, RunError
from profiler.model.components import ComponentId
from profiler.model.forward import Wanted
from profiler.model.load import Model

BATCH = 8
WINDOWS = """SELECT position_id, window_id, "offset", next_token_id, token_ids
FROM position_rows JOIN windows USING (window_id)
WHERE list_contains(string_split(getvariable('positions'), ',')::BIGINT[], position_id)
ORDER BY len(token_ids), window_id, "offset\""""


@dataclass(frozen=True)
class WindowValues:
    """What the model did in one window.

    Attributes:
        activation, dla: of the component at each offset (DLA in logits); NaN where it is absent (an expert that was not
            chosen), dla where the next token is unknown, too.
        probability: of the token that came next; NaN where it was not asked for or is unknown.
        attention: by offset asked for, over the window's tokens; empty for components that are no head.
    """

    activation: Float[Tensor, " offset"]
    dla: Float[Tensor, " offset"]
    probability: Float[Tensor, " offset"]
    attention: dict[int, Float[Tensor, " key_offset"]]


def contexts(run: Connection, model: Model, component: ComponentId, frame: pl.DataFrame) -> pl.DataFrame:
    """The answer of the query context_tokens with a value at every token, and `attention` for heads.

    Args:
        run: a connection to a run.
        model: the run's model.
        component: whose values.
        frame: the query's rows.

    Raises:
        ModelError: `model` is not the one that the run was recorded from.
        RunError: the run's windows hold tokens that the model does not know.
    """
    refuse_other(run, model)
    if frame.is_empty():
        return frame
    listed = ",".join(map(str, frame["position_id"]))
    rows = query.run_text(run, WINDOWS, {"positions": listed})
    _refuse_unknown_tokens(run, model, rows)
    seen = {window: values for batch in _batches(rows) for window, values in _visit(model, component, batch)}
    by_position = {row["position_id"]: row for row in rows.to_dicts()}
    filled = [_filled(row, by_position[row["position_id"]], seen) for row in frame.to_dicts()]
    schema = frame.schema | {"attention": pl.List(pl.Float64)}
    return pl.DataFrame(filled, schema=schema)


def refuse_other(run: Connection, model: Model) -> None:
    """Refuse a model that is not the one that the run was recorded from.

    Raises:
        ModelError: it has other weights.
    """
    info = query.run(run, "run_info").row(0, named=True)
    if model.spec.weights_hash != info["model_hash"]:
        raise ModelError(
            f"model {model.spec.name!r} has other weights than {info['model']!r}, which the run was recorded from: give"
            " the same one with --model"
        )


def _refuse_unknown_tokens(run: Connection, model: Model, rows: pl.DataFrame) -> None:
    ids = pl.concat([rows["token_ids"].explode(), rows["next_token_id"].cast(pl.Int32)]).drop_nulls()
    if not len(ids):
        return
    least, most = ids.to_numpy().min(), ids.to_numpy().max()
    if least < 0 or most >= model.spec.n_vocab:
        raise RunError(
            f"{query.path_of(run)} holds windows with token ids from {least} to {most}, and its model knows 0"
            f" to {model.spec.n_vocab - 1}: the run is damaged; take a copy that is whole, or record it again"
        )


def _batches(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows of BATCH windows at a time, windows of like length together."""
    windows = rows["window_id"].unique(maintain_order=True).to_list()
    for start in range(0, len(windows), BATCH):
        yield rows.filter(pl.col("window_id").is_in(windows[start : start + BATCH]))


def _visit(model: Model, component: ComponentId, rows: pl.DataFrame) -> Iterator[tuple[int, WindowValues]]:
    """What the model did in each window of a batch."""
    firsts = rows.unique("window_id", keep="first", maintain_order=True).to_dicts()
    number = {row["window_id"]: i for i, row in enumerate(firsts)}
    lengths = [len(row["token_ids"]) for row in firsts]
    tokens, targets = _padded(rows, firsts)
    asked = (torch.tensor([number[w] for w in rows["window_id"]]), torch.tensor(rows["offset"].to_list()))
    sight = _in_sight(asked, lengths)
    device = model.weights.unembed.device
    capture = model.run(tokens, Wanted(logits=sight, attention=asked))
    part = next(
        p
        for p in model.parts_of(component, capture, targets.clamp_min(0).to(device))
        if _inside(model, component, p.components)
    )
    column = model.spec.id_of(component) - part.components.start
    chance = torch.full(tokens.shape, torch.nan, dtype=torch.float64)
    log_p = model.weights.wiring.capped(capture.logits.double()).log_softmax(-1).cpu()
    chance[sight] = log_p.gather(-1, targets[sight].clamp_min(0)[:, None])[:, 0].exp()
    known = targets >= 0
    activation, dla = (
        _everywhere(values[..., column], part.present, tokens.shape) for values in (part.activation, part.dla)
    )
    attended = capture.attention.get(model.spec.block_of(component)) if component.kind == "head" else None
    rows_of = _attention(attended, component, asked, len(firsts))
    for i, row in enumerate(firsts):
        cut = slice(0, lengths[i])
        own, probability = (torch.where(known[i], v[i], torch.nan)[cut] for v in (dla, chance))
        yield row["window_id"], WindowValues(activation[i, cut], own, probability, rows_of[i])


def _everywhere(
    values: Float[Tensor, "_ _"], present: Int[Tensor, " present"] | None, shape: torch.Size
) -> Float[Tensor, "window offset"]:
    """A component's values at every position, float64; NaN where it is absent."""
    values = values.double().cpu()
    if present is None:
        return values
    room = torch.full((shape.numel(),), torch.nan, dtype=torch.float64)
    return room.index_copy_(0, present.cpu(), values[0]).view(shape)


def _inside(model: Model, component: ComponentId, components: slice) -> bool:
    return model.spec.id_of(component) in range(components.start, components.stop)


def _padded(
    rows: pl.DataFrame, firsts: list[dict[str, Any]]
) -> tuple[Int[Tensor, "window offset"], Int[Tensor, "window offset"]]:
    """Tokens padded with 0, and the token that came next at each place; -1 where the run does not say it."""
    width = max(len(row["token_ids"]) for row in firsts)
    tokens = torch.zeros(len(firsts), width, dtype=torch.int64)
    targets = torch.full((len(firsts), width), -1, dtype=torch.int64)
    for i, row in enumerate(firsts):
        ids = torch.tensor(row["token_ids"])
        tokens[i, : len(ids)], targets[i, : len(ids) - 1] = ids, ids[1:]
        for shown in rows.filter(pl.col("window_id") == row["window_id"]).to_dicts():
            targets[i, shown["offset"]] = shown["next_token_id"]
    return tokens, targets


def _in_sight(
    asked: tuple[Int[Tensor, " row"], Int[Tensor, " row"]], lengths: list[int]
) -> tuple[Int[Tensor, " place"], Int[Tensor, " place"]]:
    """Window and offset of every token that a context shows: 24 before, 8 after."""
    pairs = zip(*(index.tolist() for index in asked), strict=True)
    in_sight = sorted({(w, o) for w, offset in pairs for o in range(max(0, offset - 24), min(lengths[w], offset + 9))})
    windows, offsets = zip(*in_sight, strict=True)
    return torch.tensor(windows), torch.tensor(offsets)


def _attention(
    rows: Float[Tensor, "row head key_offset"] | None,
    component: ComponentId,
    asked: tuple[Int[Tensor, " row"], Int[Tensor, " row"]],
    n: int,
) -> list[dict[int, Float[Tensor, " key_offset"]]]:
    """Per window of the batch, the head's attention rows by offset."""
    by_window: list[dict[int, Tensor]] = [{} for _ in range(n)]
    if rows is not None:
        for window, offset, row in zip(*(a.tolist() for a in asked), rows, strict=True):
            by_window[window][offset] = row[component.unit].double().cpu()
    return by_window


def _known(values: list[float], stored: list[float | None]) -> list[float | None]:
    """The values, and what is stored where they are NaN: the last token of a window, whose next one is elsewhere, and
    where the component is absent."""
    return [old if new != new else new for new, old in zip(values, stored, strict=True)]


def _filled(row: dict[str, Any], position: dict[str, Any], seen: dict[int, WindowValues]) -> dict[str, Any]:
    """A row of context_tokens with every value in sight."""
    window, offset = seen[position["window_id"]], position["offset"]
    start = offset - row["shown"]
    cut = slice(start, start + len(row["tokens"]))
    values = {"activations": window.activation, "dlas": window.dla, "probabilities": window.probability}
    filled = {name: _known(column[cut].tolist(), row[name]) for name, column in values.items()}
    attention = window.attention.get(offset)
    if attention is None:
        return row | filled | {"attention": None}
    top = int(attention.argmax())
    masses = {"top_offset": offset - top, "top_weight": float(attention[top])}
    return row | filled | masses | {"attention": attention[cut].tolist()}
