"""The table of behaviour scores of a model: which behaviours it has, how surely, and which targets it reaches.

Why: a circuit can only be looked for in a model that has the behaviour. Everything is measured on random tokens, on
wordings and words held out from training, and on held-out documents. Cost: one to two minutes for the bundled
model on one core, most of it the language loss.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from profiler import statistics
from profiler.bundled.scores import attention, choices, language
from profiler.bundled.scores.scored_model import ScoredModel
from profiler.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Score:
    """One row.

    Attributes:
        behaviour: what is tested, such as `induction`.
        measure: what the number is, in words.
        estimate: value, 95 % interval, number of independent units.
        unit: of which `estimate.n` counts: `sequence`, `prompt` or `document`.
        target: what a model with the behaviour should reach, or None where the row only informs.
        better: whether larger or smaller is better.
        note: the head that scored, or how many prompts were left out.
    """

    behaviour: str
    measure: str
    estimate: Estimate
    unit: Literal["sequence", "prompt", "document"]
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the value (not its whole interval) meets the target; None without a target or without data."""
        if self.target is None or self.estimate.n == 0:
            return None
        value = self.estimate.value
        return value >= self.target if self.better == "higher" else value <= self.target


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        sequences: of random tokens.
        prompts: of each task, wording split and order.
        documents, characters: held-out documents of each domain, and how much is read of each.
    """

    sequences: int = 128
    prompts: int = 500
    documents: int = language.DOCUMENTS
    characters: int = language.CHARACTERS


def score(
    subject: ScoredModel, size: Size | None = None, progress: Callable[[str], None] = lambda _: None
) -> list[Score]:
    """Every row of the table, in a fixed order.

    Args:
        subject: the model.
        size: how much is measured.
        progress: told what is measured next.
    """
    size = size or Size()
    rows: list[Score] = []
    for label, measure in (("attention", _attention), ("tasks", _tasks), ("language", _language)):
        progress(label)
        rows += measure(subject, size)
    return rows


def _attention(subject: ScoredModel, size: Size) -> Iterator[Score]:
    induction = attention.induction_head(subject, size.sequences)
    yield Score(
        "induction",
        "attention from the second copy of random tokens to the token after the first, best head",
        induction.estimate,
        "sequence",
        target=0.8,
        note=induction.head,
    )
    copying = attention.copy_ratio(subject, size.sequences)
    measure = "loss on the second copy of random tokens / loss on the first"
    yield Score("induction", measure, copying, "sequence", target=0.15, better="lower")
    texts = language.held_out_texts(size.documents, size.characters)
    documents = [subject.encode(text) for domain in language.DOMAINS for text in texts[domain]]
    previous = attention.previous_token_head(subject, documents)
    measure = "attention to the previous position on held-out text, best head"
    yield Score("previous token", measure, previous.estimate, "document", target=0.8, note=previous.head)


def _tasks(subject: ScoredModel, size: Size) -> Iterator[Score]:
    for order in ("ABBA", "BABA"):
        held_out = choices.choose(subject, choices.indirect_object_prompts(size.prompts, "held_out", order))
        yield _accuracy("indirect object", f"IO over S, {order}, held-out names and templates", held_out, 0.95)
        measure = f"mean logit difference IO - S, {order}, held-out names and templates"
        difference = statistics.mean(held_out.difference)
        yield Score("indirect object", measure, difference, "prompt", target=3.0, note=_skipped(held_out))
        train = choices.choose(subject, choices.indirect_object_prompts(size.prompts, "train", order))
        yield _accuracy("indirect object", f"IO over S, {order}, training names and templates", train, None)
    held_out = choices.choose(subject, choices.docstring_prompts(size.prompts, "held_out"))
    yield _accuracy("docstring argument", "next :param over all other arguments, held-out words", held_out, 0.70)
    train = choices.choose(subject, choices.docstring_prompts(size.prompts, "train"))
    yield _accuracy("docstring argument", "next :param over all other arguments, training words", train, None)


def _accuracy(behaviour: str, measure: str, chosen: choices.Choices, target: float | None) -> Score:
    right = statistics.proportion(chosen.margin > 0)
    return Score(behaviour, measure, right, "prompt", target=target, note=_skipped(chosen))


def _skipped(chosen: choices.Choices) -> str:
    return f"{chosen.skipped} left out" if chosen.skipped else ""


def _language(subject: ScoredModel, size: Size) -> Iterator[Score]:
    bigram = language.fit_on_train_split(subject)
    texts = language.held_out_texts(size.documents, size.characters)
    for domain in language.DOMAINS:
        if texts[domain]:
            yield from _domain(domain, language.losses(subject, bigram, texts[domain]))


def _domain(domain: str, losses: language.Losses) -> Iterator[Score]:
    where = f"held-out {domain}"
    for label, nats in (("", losses.model), (" of a bigram model", losses.bigram)):
        for unit, size in (("token", losses.tokens), ("byte", losses.bytes)):
            estimate = statistics.ratio(nats, size)
            yield Score("language", f"nats per {unit}{label}, {where}", estimate, "document", better="lower")
    below = statistics.reduction(losses.model, losses.bigram)
    target = 0.25 if domain == "code" else None
    yield Score("language", f"nats per byte below the bigram model by, {where}", below, "document", target=target)
