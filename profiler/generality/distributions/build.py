"""The distributions: distributions for one circuit, nested from the prompts it was found on to the whole corpus.

| distribution | what | measured by |
|---|---|---|
| discovery, fresh prompts | the pairs the circuit was found on; new ones like them | pairs |
| held-out names, held-out templates, variants | one thing changed (`variants`) | pairs |
| natural text | places in the corpus where the question arises by itself (`triggers`), as pairs | pairs |
| repeated random tokens | the question of induction | pairs |
| distributions of the user's own, from a file | pairs | pairs |
| triggers in the corpus, each domain, conditions of the user's own, corpus | positions of running text | positions |

No prompt of the others is a discovery prompt; of distributions of the user's own, and of running text, the share that
is stands beside their numbers. Distributions are in order from narrow to wide; a distribution with too few prompts or
positions stays in the check, refused with its count.
What nodes outside the circuit write is what the circuit's scope says, as where it was found: the corrupted prompt's
values, zeros, or means. Means are over other prompts of the same distribution, of the pair's template and length; over
its own pairs where none are spare.
Cost: two forward passes over the pairs of each distribution; reading documents until enough triggers are found, at most
  SCANNED characters.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool

from profiler.config import RunConfig
from profiler.errors import CorpusError, PairError, QueryError
from profiler.generality.distributions import corpus as texts
from profiler.generality.distributions import triggers
from profiler.generality.distributions.subject import (
    CheckSettings,
    CorpusDistribution,
    Distributions,
    PromptDistribution,
    RunText,
)
from profiler.generality.distributions.variants import Variant, repeats, variants
from profiler.generality.evidence.distributions import (
    CORPUS,
    DISCOVERY,
    DOMAIN,
    FRESH,
    MARKED,
    NATURAL,
    REPEATS,
    TRIGGERS,
    Distribution,
    DistributionKind,
)
from profiler.generality.evidence.thresholds import DEFAULT
from profiler.model.load import Model
from profiler.model.steps.as_network import longest
from profiler.model.steps.network import Network
from profiler.patching import setting as settings_of
from profiler.patching import values
from profiler.patching.batch import SITES, Trace
from profiler.patching.metrics import LOGIT_DIFF, Metric
from profiler.patching.setting import PairRuns, PatchSettings
from profiler.prompts import pairs as pair_sets
from profiler.prompts.pairs import Encoded, Pair, TokenPair
from profiler.prompts.tasks.prompt import Split
from profiler.text.corpus import Document, documents
from profiler.text.token_classes import ordinary_ids, token_texts

SCANNED = 60_000_000
SPARE = 4
"""Pairs drawn for each one that is used, where means are taken over those that are not."""
PER_DOCUMENT = 3


def build(
    model: Model,
    net: Network,
    run: Path,
    task: PatchSettings | None,
    text: RunText,
    settings: CheckSettings,
    outside: str = "resample",
    metric: Metric = LOGIT_DIFF,
) -> Distributions:
    """All distributions of a circuit whose discovery pairs are drawn by `task`; only running text where that is None.

    Args:
        outside: what nodes outside the circuit write, as in the scope of the circuit.
        metric: what judges.

    Raises:
        PairError: a file of the user's own cannot be used.
        QueryError: a condition of the user's own cannot be used.
    """
    number = count()
    own = [parse(given) for given in settings.distributions]
    maker = PromptMaker(model, net, outside, settings.thresholds.fewest, metric)
    prompts = [] if task is None else _task_distributions(maker, run, task, settings, number)
    prompts.append(_repeats(maker, settings, next(number)))
    prompts += [_file_distribution(maker, name, value, next(number)) for name, kind, value in own if kind == "file"]
    conditions = [(name, value) for name, kind, value in own if kind == "sql"]
    corpus = _corpus_distributions(model, run, task, text, conditions, number, settings.thresholds.fewest)
    return Distributions(tuple(prompts), tuple(corpus))


def parse(given: str) -> tuple[str, str, str]:
    """Name, kind (`file` or `sql`) and value of a distribution of the user's own.

    Raises:
        QueryError: it is neither.
    """
    name, equals, value = given.partition("=")
    kind = "sql" if value.startswith("sql:") else "file" if value.endswith(pair_sets.FILES) else ""
    if not (name.strip() and equals and kind):
        raise QueryError(
            f'--distribution {given!r} cannot be read: write NAME=FILE.jsonl with pairs, or "NAME=sql:CONDITION" over'
            ' the columns of position_facts, such as "quoted=sql:in_quotes"'
        )
    return name.strip(), kind, value.removeprefix("sql:")


def left_out(distributions: Distributions, task: PatchSettings | None, settings: CheckSettings) -> list[str]:
    """A sentence for each distribution from a user's file of which some pairs could not be used."""
    own = {name for name, kind, _ in map(parse, settings.distributions) if kind == "file"}
    if task is not None and task.is_file:
        own |= {DISCOVERY, FRESH, MARKED}
    chosen = [
        prompts for prompts in distributions.prompts if prompts.distribution.name in own and prompts.setting is not None
    ]
    sentences = [
        prompts.setting.encoded.left_out(prompts.distribution.name) for prompts in chosen if prompts.setting is not None
    ]
    return [sentence for sentence in sentences if sentence]


def vocabulary_of(model: Model) -> tuple[int, ...]:
    """Ordinary token ids."""
    return ordinary_ids(model.tokenizer)


# --- distributions of pairs ---


@dataclass(frozen=True, eq=False)
class PromptMaker:
    """What all distributions of prompts of one check are made with.

    Attributes:
        model, net: the model.
        outside: what nodes outside the circuit write: resample, mean or zero.
        fewest: prompts below which a distribution is refused.
        metric: what judges.
    """

    model: Model
    net: Network
    outside: str = "resample"
    fewest: int = DEFAULT.fewest
    metric: Metric = LOGIT_DIFF

    @property
    def spare(self) -> int:
        """Pairs to draw for each one that is used: the others are what means are over."""
        return SPARE if self.outside == "mean" else 1

    def __call__(
        self,
        name: str,
        description: str,
        pairs: Sequence[Pair],
        ordinal: int,
        most: int,
        kind: DistributionKind = "prompts",
        *,
        references: Sequence[TokenPair] = (),
    ) -> PromptDistribution:
        """A distribution of pairs: the first `most` that the tokenizer can encode; refused where they are too few.

        Args:
            references: prompts that means are over, before those of `pairs` that are not used.
        """
        model = self.model
        try:
            made = pair_sets.encode(pairs, model.tokenizer, model.bos_id, longest(model))
        except PairError as error:
            made, description = Encoded((), ()), f"{description}; {error}" if pairs else description
        usable = Encoded(made.pairs[:most], made.dropped, made.example)
        documents = {pair.pair.stratum("document") for pair in usable.pairs} - {None}
        n_tokens = sum(len(pair.clean) for pair in usable.pairs)
        n = len(usable.pairs)
        few = n < self.fewest
        why = f"{n} usable prompt{'s' * (n != 1)}; at least {self.fewest} are needed" if few else ""
        if usable.n_dropped:
            description += (
                f"; {usable.n_dropped} of {usable.n_dropped + len(made.pairs)} drawn could not be encoded alike"
            )
        distribution = Distribution(name, ordinal, kind, description, n, n_tokens, len(documents), why)
        if few:
            return PromptDistribution(distribution, None)
        runs = slim(settings_of.prepare(name, self.net, usable, self.metric))
        return PromptDistribution(distribution, with_outside(runs, self.outside, [*references, *made.pairs[most:]]))


def with_outside(runs: PairRuns, outside: str, references: Sequence[TokenPair] = ()) -> PairRuns:
    """The pairs with what nodes outside a circuit write, as its scope says.

    Args:
        references: prompts that means are over; the pairs' own after them.
    """
    if outside == "resample":
        return runs
    if outside == "zero":
        return replace(runs, outside=values.zeros(runs.corrupted))
    known = [*references, *runs.batch.pairs]
    means = values.means(runs.net, runs.corrupted, runs.batch, known)
    return replace(runs, outside=means.trace, redrawn=means.redrawn)


def _task_distributions(
    maker: PromptMaker, run: Path, task: PatchSettings, settings: CheckSettings, number: Iterator[int]
) -> list[PromptDistribution]:
    model, what = maker.model, "the prompts that the circuit was found on"
    drawn = settings_of.draw(model, task, task.split, task.seed)
    known = {pair.clean for pair in drawn}
    made = [
        maker(DISCOVERY, what, drawn, next(number), task.pairs, references=_references(maker, task, drawn, task.split)),
        *(
            maker(
                v.name,
                v.description,
                [pair for pair in v.pairs if pair.clean not in known],
                next(number),
                settings.pairs,
                references=_references(maker, task, v.pairs[: settings.pairs], _wording(task, v)),
            )
            for v in _variants(maker, task, settings)
        ),
    ]
    if task.name in triggers.FINDERS:
        made.append(_natural(maker, run, task, settings, next(number)))
    return made


def _variants(maker: PromptMaker, task: PatchSettings, settings: CheckSettings) -> Sequence[Variant]:
    """What lies beyond the discovery prompts: variants of a built-in task, the other parts of a user's file."""
    if not task.is_file:
        return variants(task, settings.pairs * maker.spare, vocabulary_of(maker.model))
    parts = settings_of.parts_of_file(task)
    named = (
        (FRESH, "pairs of the file that the circuit was not found on", parts.test),
        (MARKED, "pairs that the file marks with another split", parts.held_out),
    )
    return [Variant(name, text, pairs) for name, text, pairs in named if pairs]


def _references(
    maker: PromptMaker, task: PatchSettings, drawn: Sequence[Pair], split: Split | None
) -> Sequence[TokenPair]:
    """The prompts that `profiler patch` takes means over for such pairs; none where no means are asked for.

    Args:
        split: whose wordings the pairs have; None where they are in no wording of the task.
    """
    if maker.outside != "mean" or split is None or task.is_file:
        return ()
    try:
        return settings_of.references(maker.model, task, settings_of.encoded(maker.model, drawn), split).pairs
    except PairError:  # none of the pairs can be asked
        return ()


def _wording(task: PatchSettings, variant: Variant) -> Split | None:
    """Whose wordings a variant has, unchanged; None where it changes them."""
    if variant.name in (FRESH, "held-out names"):
        return task.split
    other: Split = "train" if task.split != "train" else "held_out"
    return other if variant.name in ("held-out templates", "held-out words and templates") else None


def slim(runs: PairRuns) -> PairRuns:
    """The pairs with only what circuits are judged by: logits of both runs, and what the corrupted one's nodes wrote.

    A dozen distributions with every site of both runs take some GB.
    """
    clean = Trace({site: [] for site in SITES}, runs.clean.logits)
    corrupted = Trace(
        {site: runs.corrupted[site] if site in values.NODES else [] for site in SITES}, runs.corrupted.logits
    )
    return replace(runs, clean=clean, corrupted=corrupted)


def _repeats(maker: PromptMaker, settings: CheckSettings, ordinal: int) -> PromptDistribution:
    drawn = repeats(settings.seed, settings.pairs * maker.spare, vocabulary_of(maker.model))
    text = "random tokens that stand twice: whoever does this, does induction"
    return maker(REPEATS, text, drawn, ordinal, settings.pairs, "repeats")


def _file_distribution(maker: PromptMaker, name: str, file: str, ordinal: int) -> PromptDistribution:
    drawn = pair_sets.read(file)
    return maker(name, f"pairs of {Path(file).name}", drawn, ordinal, len(drawn))


def _natural(
    maker: PromptMaker, run: Path, task: PatchSettings, settings: CheckSettings, ordinal: int
) -> PromptDistribution:
    """The distribution of natural text: pairs made where the task's question arises in the run's corpus."""
    text = f"places in the corpus where the question of {task.name} arises by itself"
    config, _ = texts.config_of(run, settings.reread)
    try:
        nowhere: tuple[list[Pair], str] = ([], "the run has no corpus")
        drawn, note = nowhere if config is None else natural_pairs(maker.model, config, task, settings)
    except CorpusError as error:
        drawn, note = [], f"the corpus cannot be read: {error}"
    return maker(NATURAL, f"{text}; {note}", drawn, ordinal, settings.pairs)


def natural_pairs(
    model: Model, config: RunConfig, task: PatchSettings, settings: CheckSettings
) -> tuple[list[Pair], str]:
    """Pairs of natural text, at most PER_DOCUMENT of a document, and what was searched.

    The whole corpus is searched, not only what the run read of it: such places are rare.
    """
    scheme = task.scheme or pair_sets.find_task(task.name).schemes[0]
    vocabulary, words, occurrences = token_texts(model.tokenizer, model.spec.n_vocab), set(), []
    scanned = n_documents = 0
    for document in documents(config, Counter(), model.tokenizer):
        of_document = _triggers_of(document, model, task.name, vocabulary)
        words |= {
            tuple(ids[a:b].tolist()) for ids, trigger in of_document for a, b in trigger.changes[_any(trigger)][0]
        }
        rng = random.Random(f"{settings.seed} {document.place}")
        occurrences += [
            (ids, trigger, document.place)
            for ids, trigger in rng.sample(of_document, min(PER_DOCUMENT, len(of_document)))
        ]
        scanned, n_documents = scanned + len(document.text), n_documents + 1
        if len(occurrences) >= 2 * settings.pairs or scanned > SCANNED:
            break
    pool, rng = triggers.pool_of(sorted(words)), random.Random(f"natural {settings.seed}")
    made = [
        triggers.pair_of(trigger, ids, task.name, scheme, pool, rng, source) for ids, trigger, source in occurrences
    ]
    pairs = [pair for pair in made if pair]
    follows = sum(pair.stratum("follows") == "answer" for pair in pairs) / max(1, len(pairs))
    return pairs, f"{n_documents:,} documents searched; the answer follows at {follows:.0%} of them"


def _any(trigger: triggers.Trigger) -> str:
    return next(iter(trigger.changes))


def _triggers_of(
    document: Document, model: Model, task: str, vocabulary: Sequence[str]
) -> list[tuple[np.ndarray, triggers.Trigger]]:
    """Triggers of a document; those of overlapping pieces once."""
    occurrences = []
    for piece in triggers.pieces(task, document.text):
        ids = np.asarray(model.encode(piece), dtype=np.int64)
        of_window = triggers.FINDERS[task](triggers.passage(ids, vocabulary))
        occurrences += [(ids, trigger) for trigger in (of_window[-1:] if task == "ioi" else of_window)]
    return occurrences


# --- distributions of running text ---


def _corpus_distributions(
    model: Model,
    run: Path,
    task: PatchSettings | None,
    text: RunText,
    conditions: Sequence[tuple[str, str]],
    number: Iterator[int],
    fewest: int,
) -> list[CorpusDistribution]:
    where = f" ({text.note})" if text.note else ""
    made = []
    if task is not None and task.name in triggers.FINDERS:
        what = f"positions of the corpus where the question of {task.name} arises"
        asked = questions(model, text, task.name)
        chosen = np.zeros(len(text.position_ids), dtype=bool)
        chosen[[position for position, _, _ in asked]] = True
        distribution = _corpus_distribution(TRIGGERS, what + where, text, chosen, next(number), fewest)
        made.append(replace(distribution, questions=asked))
    everywhere = np.ones(len(text.position_ids), dtype=bool)
    made += [
        _corpus_distribution(
            f"{DOMAIN}{name}", f"all of domain {name}{where}", text, text.domain_ids == i, next(number), fewest
        )
        for i, name in enumerate(text.domains)
    ]
    for name, condition in conditions:
        chosen = texts.where(run, text, model, condition) if text.batches else everywhere
        made.append(
            _corpus_distribution(name, f"positions where {condition}{where}", text, chosen, next(number), fewest)
        )
    made.append(_corpus_distribution(CORPUS, f"the whole corpus{where}", text, everywhere, next(number), fewest))
    return made


def _corpus_distribution(
    name: str,
    description: str,
    text: RunText,
    chosen: Bool[np.ndarray, " position"],
    ordinal: int,
    fewest: int,
) -> CorpusDistribution:
    n, n_documents = int(chosen.sum()), len(np.unique(text.documents[chosen]))
    why = "" if n >= fewest else f"{n} position{'s' * (n != 1)}; at least {fewest} are needed"
    why = text.note if not len(chosen) else why
    return CorpusDistribution(Distribution(name, ordinal, "corpus", description, 0, n, n_documents, why), chosen)


def questions(model: Model, text: RunText, task: str) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """Triggers of a task among the text's positions: place in the flat arrays, answer and distractors."""
    vocabulary, asked = token_texts(model.tokenizer, model.spec.n_vocab), []
    for batch, part in text.parts():
        flat = torch.full(batch.tokens.shape, -1)
        flat[batch.ordinary] = torch.arange(part.start, part.stop)
        for row, window in enumerate(batch.windows):
            ids = window.token_ids if window.following is None else np.append(window.token_ids, window.following)
            read = triggers.passage(np.asarray(ids, dtype=np.int64), vocabulary)
            by_end = {trigger.end: trigger for trigger in triggers.FINDERS[task](read)}
            asked += [
                (int(flat[row, end]), trigger.answer, trigger.distractors)
                for end, trigger in by_end.items()
                if flat[row, end] >= 0
            ]
    return tuple(asked)
