"""The run's corpus, read again for distributions of running text, and the positions that a condition chooses.

Why: a run keeps statistics and samples, not its text; what a circuit does at every position needs the text. The corpus
is read as the run read it (same order, same windows, same position ids), so that everything known of a position stays
true; where fewer tokens are asked for, windows are kept by a hash of document and number: a random sample that stays
the same. Cost: the tokenizer's; token ids of the windows that are kept stay in memory (about 100 bytes a position).
"""

import json
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import torch
from jaxtyping import Bool

from profiler.behaviours.expressions import check_condition, wrapped
from profiler.config import RunConfig
from profiler.database import faults, query
from profiler.errors import CorpusError, QueryError
from profiler.generality.distributions.subject import Reread, RunText
from profiler.model.load import Model
from profiler.text.context import Marks, past_of
from profiler.text.corpus import documents, is_stdlib
from profiler.text.documents import Domains, Reading, tokenize
from profiler.text.sampling_keys import stable_hash
from profiler.text.shards import Share
from profiler.text.token_classes import special_ids, token_classes, token_offsets, token_texts
from profiler.text.windows import Batch, Layout, Window, make_batch, random_windows, windows_of

BATCH = 16
VIEW = "position_facts"


def config_of(run: Path, reread: Reread) -> tuple[RunConfig | None, int]:
    """The configuration to read a run's corpus by, and how many tokens it read; None where it has no corpus.

    Which corpora are read, and whether their code may run, is the caller's word; all else is the run's.

    Raises:
        CorpusError: the run names files or datasets, and the caller neither names them nor agrees.
    """
    row = query.run(run, "SELECT config, n_tokens FROM runs").row(0, named=True)
    try:
        given = json.loads(row["config"]).items()
        config = RunConfig(**{name: value for name, value in given if name in RunConfig.model_fields})
    except (ValueError, TypeError, AttributeError):
        return None, 0
    own = [name for name in config.corpora if not is_stdlib(name)]
    if own and not (reread.corpora or reread.agreed):
        raise CorpusError(
            f"{run} was recorded from {', '.join(own)}, which is not read on the word of a file: name it with --corpus,"
            " or add --reread to read what the run names"
        )
    rights = {"trust_remote_code": reread.remote_code, "allow_pickle": False}
    return config.model_copy(update={"corpora": reread.corpora or config.corpora} | rights), int(row["n_tokens"])


def layout_of(model: Model, config: RunConfig | None) -> Layout:
    """The windows' layout."""
    texts = token_texts(model.tokenizer, model.spec.n_vocab)
    classes = torch.tensor(token_classes(texts, special_ids(model.tokenizer)))
    seed, groups = (config.seed, config.replicate_groups) if config else (0, 2)
    return Layout(model.spec.context_length, model.bos_id, classes, seed, groups)


def read(run: Path, model: Model, limit: int | None, reread: Reread) -> RunText:
    """The corpus of a run, or a hash sample of its windows with about `limit` tokens.

    Args:
        model: the run's, with the run's context length.
        reread: what may be read again.

    Raises:
        CorpusError: see `config_of`.
    """
    config, n_corpus = config_of(run, reread)
    layout = layout_of(model, config)
    if config is None:
        return RunText((), layout, (), 0, 0, "the run has no corpus: record one with `profiler record`")
    domains = Domains(config.replicate_groups)
    rate = 1.0 if limit is None or limit >= n_corpus else limit / n_corpus
    try:
        windows = _windows(config, model, layout, domains, rate)
    except CorpusError as error:
        return RunText((), layout, (), 0, n_corpus, f"the corpus cannot be read again: {error}")
    ordered = sorted(windows, key=lambda window: (-len(window.token_ids), window.window_id))
    batches = tuple(make_batch(ordered[i : i + BATCH], layout) for i in range(0, len(ordered), BATCH))
    n_tokens = sum(len(window.token_ids) - (layout.bos_id is not None) for window in ordered)
    text = RunText(batches, layout, tuple(domains.names), n_tokens, n_corpus)
    note = "; ".join(part for part in (_sampled(text, rate), _changed(run, text)) if part)
    return RunText(batches, layout, text.domains, n_tokens, n_corpus, note)


def _windows(config: RunConfig, model: Model, layout: Layout, domains: Domains, rate: float) -> list[Window]:
    """Windows of the run, each kept with probability `rate`, by hash."""
    choose = random_windows(layout, config.windows_per_document) if config.windows_per_document else None
    reading, share = Reading(), Share.parse(config.shard)
    stream = tokenize(
        documents(config, reading.dropped, model.tokenizer),
        model.encode,
        domains,
        config.tokens,
        reading,
        choose,
        layout.stride,
        share,
        offsets=partial(token_offsets, model.tokenizer),
    )
    return [
        window
        for document in stream
        for window in windows_of(document, layout)
        if stable_hash(f"check {config.seed} {document.place} {window.number}") % 2**32 < rate * 2**32
    ]


def _sampled(text: RunText, rate: float) -> str:
    if rate == 1.0:
        return ""
    return f"{text.n_tokens:,} of the run's {text.n_corpus:,} tokens, windows chosen by hash"


def _changed(run: Path, text: RunText) -> str:
    """Whether the corpus still holds the tokens that the run found in it."""
    known = query.run(run, "SELECT position_id, token_id FROM position_rows")
    tokens = np.concatenate([b.tokens[b.ordinary].numpy() for b in text.batches]) if text.batches else np.zeros(0, int)
    here = pl.DataFrame({"position_id": text.position_ids, "now": tokens})
    both = known.join(here, on="position_id", how="inner")
    same = int((both["token_id"] == both["now"]).sum())
    if same == both.height:
        return ""
    return f"the corpus has changed since the run: {same:,} of {both.height:,} kept positions hold the same token"


def where(run: Path, text: RunText, model: Model, condition: str) -> Bool[np.ndarray, " position"]:
    """Which positions of the text a SQL condition over the columns of `position_facts` holds at.

    Every position of the text is asked, not only those that the run kept; so columns that only kept positions have
    (loss, rank, entropy, target_logit) cannot be used.

    Raises:
        QueryError: the condition is no true-or-false expression over these columns.
    """
    frame = facts(text, model)
    with query.open_run(run) as connection:
        check_condition(condition, VIEW, connection)
        connection.register("text_positions", frame.to_arrow())
        try:
            matching = connection.execute(FACTS.format(condition=wrapped(condition))).fetchnumpy()["position_id"]
        except faults.FAULTS as error:
            raise faults.fault_error(error, f"asking {condition!r} of the text", "The run is as it was.") from None
        except duckdb.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise QueryError(
                f"the condition {condition!r} cannot be asked of every position ({reason}): leave out what only kept "
                "positions have (loss, rank, entropy, target_logit)"
            ) from None
    return np.isin(text.position_ids, np.asarray(matching))


FACTS = f"""
WITH {VIEW} AS (
SELECT position_id, doc_id, group_id, domain, pos, "offset"
    , own.token, own.class, own.properties
    , preceding.token AS token_before, preceding.class AS class_before, preceding.properties AS properties_before
    , following.token AS next_token, following.class AS next_class, following.properties AS next_properties
    , distance > 0 AS repeated, nullif(distance, 0) AS distance, prefix_match
    , bracket_depth, in_quotes, role
FROM text_positions
JOIN token_property_lists AS own ON own.token_id = text_positions.token_id
JOIN token_property_lists AS following ON following.token_id = text_positions.next_token_id
LEFT JOIN token_property_lists AS preceding ON preceding.token_id = text_positions.previous_token_id
)
SELECT position_id FROM {VIEW} WHERE {{condition}}
"""


def facts(text: RunText, model: Model) -> pl.DataFrame:
    """The columns of position_facts that follow from the tokens, a row per position of the text."""
    marks = Marks.of(token_texts(model.tokenizer, model.spec.n_vocab))
    return pl.concat([_batch_facts(batch, text, marks) for batch in text.batches])


def _batch_facts(batch: Batch, text: RunText, marks: Marks) -> pl.DataFrame:
    chosen, width = batch.ordinary, batch.tokens.shape[1]
    past = past_of(batch.tokens, marks, batch.windows, bos=text.layout.bos_id is not None)
    previous = torch.nn.functional.pad(batch.tokens[:, :-1], (1, 0), value=-1)
    starts = torch.tensor([w.start - (text.layout.bos_id is not None) for w in batch.windows])[:, None]
    offset = torch.arange(width).expand_as(chosen)
    columns = {
        "position_id": batch.position_ids,
        "token_id": batch.tokens,
        "next_token_id": batch.targets,
        "previous_token_id": previous,
        "offset": offset,
        "pos": offset + starts,
        "distance": past.distance,
        "prefix_match": past.prefix_match,
        "bracket_depth": past.bracket_depth,
        "in_quotes": past.in_quotes,
        "doc_id": batch.position_ids >> 32,
        "group_id": batch.groups[:, None].expand_as(chosen),
        "domain_id": batch.domains[:, None].expand_as(chosen),
    }
    frame = pl.DataFrame({name: value[chosen].numpy() for name, value in columns.items()})
    names = np.array(text.domains)
    roles = pl.Series(batch.roles, dtype=pl.String).filter(pl.Series(chosen[batch.valid].numpy()))
    return frame.with_columns(domain=pl.Series(names[frame["domain_id"].to_numpy()]), role=roles)
