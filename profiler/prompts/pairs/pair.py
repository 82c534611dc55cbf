"""A prompt pair: what was kept and what was changed, with the positions that play a part.

Why: patching compares two runs of a model that differ in one thing. A pair says what differs (`scheme`), what is asked
(`answers` against `distractors`), and which positions play which part (`roles`), so that effects of many pairs can be
added up by role. Prompts are texts, or token ids where no text says the same (repeated random tokens).
Cost: none, plain data, no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.errors import PairError
from profiler.prompts.tasks.prompt import Split

Prompt = str | tuple[int, ...]
Span = tuple[int, int]
Roles = tuple[tuple[str, Span], ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A clean and a corrupted prompt and the question put to both.

    Attributes:
        name: unique among the pairs of one set; errors and tables name the pair by it.
        task: family of the pair, such as `ioi`.
        scheme: what was changed, such as `swapped`.
        clean, corrupted: the prompts; each ends just before the answer.
        answers: right continuations of the clean prompt; more than one only where all count (years above a year).
        distractors: wrong continuations of the same form; the logit difference is taken to their mean.
        roles: (role, (first, last + 1)) in characters of the clean prompt, or in tokens where the prompt is ids.
        template: wording; mean ablation takes means per template.
        strata: (name, value) of what may have been controlled by accident: order, name frequency, length.
        split: whether fillers and wording are those of training or held out from it.
        symmetric: whether the corrupted prompt is as good a prompt of the same task with a distractor as its answer;
            half of the effect then comes from making the model know nothing.
    """

    name: str
    task: str
    scheme: str
    clean: Prompt
    corrupted: Prompt
    answers: tuple[str | int, ...]
    distractors: tuple[str | int, ...]
    roles: Roles = ()
    template: str = ""
    strata: tuple[tuple[str, str], ...] = ()
    split: Split = "train"
    symmetric: bool = False

    def stratum(self, name: str) -> str | None:
        """The value of a stratum, None where the pair has none of this name."""
        return dict(self.strata).get(name)


def spans_of(text: str, parts: Sequence[tuple[str, str, int]]) -> Roles:
    """Roles of a text from (role, word, which occurrence, from 0; -1 is the last one).

    Raises:
        PairError: the word does not stand there so often.
    """
    return tuple((role, _span(text, role, word, which)) for role, word, which in parts)


def _span(text: str, role: str, word: str, which: int) -> Span:
    starts = [i for i in range(len(text)) if text.startswith(word, i)]
    if not -len(starts) <= which < len(starts):
        raise PairError(
            f"role {role!r}: {word!r} stands {len(starts)} times in {text!r}, and occurrence {which} was asked for: "
            "give a word that stands in the prompt"
        )
    return starts[which], starts[which] + len(word)
