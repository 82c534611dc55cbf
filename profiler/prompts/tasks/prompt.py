"""What a task prompt is: text that ends just before an answer, and what the answer competes with.

Why: the same record serves training text, behaviour scores and patching, so that what a circuit was found on and
what a model was trained on can be compared word for word. Cost: none, plain data.
"""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "development", "held_out"]
"""Training; what may be looked at while a model is trained (indirect objects only); and what may not."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A stretch of training text. Pieces of one text follow one another without anything between.

    Attributes:
        text: the words, with their leading space.
        kind: `answer` to the task, `arbitrary` words that nothing predicts, or other `text`.
    """

    text: str
    kind: Literal["text", "answer", "arbitrary"] = "text"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question put to a language model.

    Attributes:
        task: the family, such as `ioi`.
        text: the prompt; it ends just before the answer and without a space.
        answer: the right continuation, leading space included where one belongs to it.
        distractors: wrong continuations of the same form, never the answer.
        template: id of the wording; the same id with other roles gives a counterfactual (`render` in the family's
            module).
        roles: (role, filler) pairs that went into the template, in reading order of the family.
        split: whether fillers and wording are those of training or those held out from it.
    """

    task: str
    text: str
    answer: str
    distractors: tuple[str, ...]
    template: str
    roles: tuple[tuple[str, str], ...]
    split: Split

    def role(self, name: str) -> str:
        """The filler of a role; `KeyError` names the roles there are."""
        roles = dict(self.roles)
        if name not in roles:
            raise KeyError(f"{self.task} prompt has no role {name!r}; it has {sorted(roles)}")
        return roles[name]
