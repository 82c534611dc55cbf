"""Choice scores: does the model prefer the right continuation to the wrong ones?

Why: the indirect-object and docstring tasks ask for one of a few words that all stand in the prompt (Wang et al.
2022, section 2; Heimersheim and Janiak 2023). Compared are the logits of the first token of each continuation, so
the measure works with any tokenizer; prompts whose answer begins with the same token as a distractor cannot be
decided by it and are left out and counted. Cost: one forward pass a prompt.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from profiler.bundled.scores.scored_model import BATCH, ScoredModel, logits, padded
from profiler.prompts.tasks import Prompt, docstring, indirect_object
from profiler.prompts.tasks.prompt import Split


@dataclass(frozen=True)
class Choices:
    """What the model preferred, prompt by prompt.

    Attributes:
        margin: logit of the answer minus the largest logit among the distractors; positive is right.
        difference: logit of the answer minus the mean logit of the distractors.
        skipped: prompts left out because the answer shares its first token with a distractor, or because they are
            longer than the window.
    """

    margin: Float[np.ndarray, "prompt"]
    difference: Float[np.ndarray, "prompt"]
    skipped: int


def indirect_object_prompts(n: int, split: Split, order: indirect_object.Order, seed: int = 0) -> list[Prompt]:
    """`n` random prompts with names and wordings of a split, in one order."""
    rng = random.Random(f"ioi/{split}/{order}/{seed}")
    return [indirect_object.prompt(rng, split, order=order) for _ in range(n)]


def docstring_prompts(n: int, split: Split, seed: int = 0) -> list[Prompt]:
    """`n` random prompts with argument names and wordings of a split."""
    rng = random.Random(f"docstring/{split}/{seed}")
    return [docstring.prompt(rng, split) for _ in range(n)]


def choose(subject: ScoredModel, prompts: Sequence[Prompt]) -> Choices:
    """Compare the continuations of each prompt.

    Args:
        subject: the model.
        prompts: any; those that cannot be decided, or do not fit the window, are counted as skipped.
    """
    decidable = [(ids, first) for ids, first in map(_encoder(subject), prompts) if first[0] not in first[1:]]
    decidable = [(ids, first) for ids, first in decidable if len(ids) <= subject.context]
    margins, differences = [], []
    for begin in range(0, len(decidable), BATCH):
        batch = decidable[begin : begin + BATCH]
        ids, lengths = padded([row for row, _ in batch], subject.start)
        last = logits(subject, ids)[torch.arange(len(batch)), lengths - 1].double()
        for scores, (_, first) in zip(last, batch, strict=True):
            answer, wrong = scores[first[0]], scores[first[1:]]
            margins.append((answer - wrong.max()).item())
            differences.append((answer - wrong.mean()).item())
    return Choices(np.array(margins), np.array(differences), len(prompts) - len(decidable))


def _encoder(subject: ScoredModel) -> Callable[[Prompt], tuple[list[int], list[int]]]:
    """Prompt to (ids with the start token, first token of the answer and of each distractor)."""

    def encode(prompt: Prompt) -> tuple[list[int], list[int]]:
        firsts = [subject.encode(option)[0] for option in (prompt.answer, *prompt.distractors)]
        return [subject.start, *subject.encode(prompt.text)], firsts

    return encode
