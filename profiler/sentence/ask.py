"""A text asked of a run: its model loaded, the text read, the answer as a result and a page.

What is loaded comes from the call alone (`profiler.model.of_run`). Apart from `profiler.actions`, whose modules for
patching and checks take seconds to import. Cost: loading the model, and one forward pass (two where something is
changed).
"""

from collections.abc import Sequence
from pathlib import Path

from duckdb import DuckDBPyConnection as Connection

from profiler.config import ModelChoice
from profiler.model.components import OF_DICTIONARIES
from profiler.model.load import Model
from profiler.model.of_run import load_for, with_dictionaries_of
from profiler.pages import build as pages
from profiler.pages.page import render
from profiler.recording.recompute import refuse_other
from profiler.results import TextResult
from profiler.sentence import page, reading
from profiler.sentence.answer import answer, sentences
from profiler.sentence.changes import read_changes


def try_text(
    run: Path,
    connection: Connection,
    text: str,
    component: str | None = None,
    *,
    remove: Sequence[str] = (),
    scale: Sequence[str] = (),
    set_to: Sequence[str] = (),
    after: str | None = None,
    most: int = 5,
    out: str | Path | None = None,
    model: str | Model | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    device: str = "cpu",
) -> TextResult:
    """What the model of a run does on a text, each value beside the component's spectrum in the run's corpus.

    Args:
        connection: to the run, for reading.
        component: label of the component that is asked about; None shows those of the largest |DLA| at each token.
        remove: labels of components that are removed in the pass.
        scale: components that are multiplied, as L2H1=0.5.
        set_to: neurons and channels that are set, as L1N3=5.
        after: a token that DLA is taken toward at the last token of the text; None takes the model's most probable.
        most: components at each token where none is named, and next tokens.
        out: a page is written there, too.
        model: as for `patch`.
        trust_remote_code: as for `patch`.
        allow_pickle: as for `patch`.
        device: as for `patch`.

    Raises:
        ComponentError: the run lacks a component, or it cannot be changed.
        CorpusError: the text holds no token, or `after` is no single token.
        ModelError: as for `patch`.
    """
    if out is not None:
        pages.refuse(out)
    changes = read_changes(remove, scale, set_to)  # before the model is loaded
    chosen = None if component is None else pages.find(connection, component)
    for change in changes:
        pages.find(connection, change.component.label)
    choice = ModelChoice(None if isinstance(model, Model) else model, trust_remote_code, allow_pickle, device)
    loaded = model if isinstance(model, Model) else load_for(run, choice)
    if chosen is not None and chosen.kind in OF_DICTIONARIES and loaded.described is None:
        loaded = with_dictionaries_of(run, loaded)
    refuse_other(connection, loaded)
    ids, n_left_out = reading.token_ids_of(loaded, text)
    last = None if after is None else reading.token_of(loaded, after)
    now = reading.read(loaded, ids, chosen, changes, after=last, most=most)
    before = reading.read(loaded, ids, chosen, after=int(now.targets[-1]), most=most) if changes else None
    answered = answer(connection, now, before, likeliest=most)
    result = TextResult(
        text,
        None if chosen is None else chosen.label,
        tuple(change.described for change in changes),
        answered.tokens,
        answered.components,
        answered.next_tokens,
        answered.attention,
        sentences(answered, chosen, changes, n_left_out),
    )
    if out is not None:
        pages.write(out, render(page.build(pages.Reader(connection), result)))
    return result
