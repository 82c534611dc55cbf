"""Counterfactual edits that a role's claim says matter, each beside a control edit that it says does not. No torch.

| operation | claims |
|---|---|
| remove, plant the copy | induction, prefix induction, duplicate token |
| move the copy | induction, duplicate token, where there is one copy |
| remove, plant the repeated name | S-inhibition |
| replace the source | previous token, two back, current token |
| replace what is copied | name mover, copying |
| remove, plant a mark | newline, delimiter |
| leave, enter the class | neurons |

* remove the copy: every earlier copy becomes another token (prefix induction: the token before each copy); attention to
  the targets falls. Control: as many tokens nearby.
* plant a copy: an earlier token becomes a copy of the last one (prefix induction: of the last two); attention to the
  new target rises. Control: that token becomes another one (prefix induction: a copy of the last alone).
* move the copy: the copy goes to another position, and attention goes along. Control: that position and a token nearby
  change.
* remove the repeated name: earlier mentions become other names; attention to the last mention falls. Control: as many
  tokens nearby.
* plant a repeated name: another name becomes the last one named; attention to the last mention rises. Control: it
  becomes a third name.
* replace the source: the token attended to becomes another, and the change of its value arrives. Control: a token
  nearby.
* replace what is copied: the token to predict becomes another wherever it stands, and the new token's logit moves.
  Control: as many tokens nearby.
* remove a mark, plant a mark: the last mark becomes a word, a word becomes a mark; attention there falls, rises.
  Control: a token nearby, or another word.
* leave the class, enter the class: the token becomes one outside the class, or inside; the activation falls, rises.
  Control: one that is like it in that.

A control edit changes as many tokens, nearby or at the same positions, each for one of the same frequency band and
class where the claim does not ask for a class; of a role about names, other names where there are some. Cost:
microseconds a plan.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool

from profiler.generality.edits.sites import CARRIERS, STEPS, UNEDITABLE, Expectation, expectation
from profiler.generality.edits.texts import EditText, Vocabulary
from profiler.generality.evidence.claims import Claim

MOST_REPLACED = 4
"""Triggers with more causes than this are not edited: the text would be another."""
NEAR = 12
"""Most tokens between an edit and its control."""
FEWEST_MENTIONS = 2
"""Names that a text must hold so that one can repeat another."""
Watch = Literal["attention", "arrival", "logit", "activation"]


@dataclass(frozen=True)
class EditPlan:
    """One text with an edit that the claim says matters and a control edit that it says does not.

    Attributes:
        operation: of the module docstring.
        text, edited, control: of equal length, read at their last token.
        changed, control_changed: offsets at which they differ from `text`.
        watch: what is measured: attention to `rises` and `falls`, the arrival of the changed value, the logit written
            for `token`, or the activation.
        token: whose logit is measured; 0 otherwise.
        sign: of the claimed move of logit or activation.
    """

    operation: str
    text: EditText
    edited: tuple[int, ...]
    control: tuple[int, ...]
    watch: Watch
    rises: tuple[int, ...] = ()
    falls: tuple[int, ...] = ()
    token: int = 0
    sign: int = 1

    @property
    def changed(self) -> tuple[int, ...]:
        """Offsets that the edit changes."""
        return _differences(self.text.tokens, self.edited)

    @property
    def control_changed(self) -> tuple[int, ...]:
        """Offsets that the control edit changes."""
        return _differences(self.text.tokens, self.control)


def _differences(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    return tuple(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)


@dataclass(frozen=True, eq=False)
class _Desk:
    """What a plan is made with: a text, what the claim says of it, tokens to put in, and chance."""

    claim: Claim
    text: EditText
    here: Expectation
    vocabulary: Vocabulary
    rng: np.random.Generator

    def other(self, token: int, inside: np.ndarray | None = None, avoid: tuple[int, ...] = ()) -> int | None:
        """A token like this one that the text does not hold."""
        return self.vocabulary.like(self.rng, token, {*self.text.tokens, self.text.next_token, *avoid}, inside)

    def nearby(self, offsets: Sequence[int], keep: Sequence[int]) -> tuple[int, ...] | None:
        """For each offset the nearest that may change as a control, for roles about names a name; None without one."""
        taken = {*offsets, *keep, self.text.end, self.text.end - 1, *self.here.targets, *self.here.causes}
        tokens: list[int] = []
        for offset in offsets:
            free = [i for i in range(self.text.end) if i not in taken and self.replaceable(i)]
            near = [i for i in free if abs(i - offset) <= NEAR]
            if not near:
                return None
            tokens.append(min(near, key=lambda i: (not self.named[i], abs(i - offset), i)))
            taken.add(tokens[-1])
        return tuple(tokens)

    @cached_property
    def named(self) -> Bool[np.ndarray, " offset"]:
        """Which tokens are names, for a role about names; none otherwise."""
        if self.claim.role not in ("name mover", "S-inhibition"):
            return np.zeros(len(self.text.tokens), dtype=bool)
        return self.vocabulary.with_property("name_like")[list(self.text.tokens)]

    def replaceable(self, offset: int) -> bool:
        """Whether the token there is an ordinary one."""
        return bool(self.vocabulary.ordinary[self.text.tokens[offset]])

    def put(self, changes: dict[int, int | None]) -> tuple[int, ...] | None:
        """The text with other tokens put in; None where one is missing or may not be replaced."""
        if any(token is None or not self.replaceable(i) for i, token in changes.items()):
            return None
        return tuple(changes.get(i, token) for i, token in enumerate(self.text.tokens))  # type: ignore[misc]

    def control_of(
        self, offsets: Sequence[int], keep: Sequence[int] = (), avoid: tuple[int, ...] = ()
    ) -> tuple[int, ...] | None:
        """As many tokens nearby replaced by tokens like them, names by names."""
        near, names = self.nearby(offsets, keep), self.vocabulary.with_property("name_like")
        inside = {i: names if self.named[i] else None for i in near or ()}
        return None if near is None else self.put({i: self.other(self.text.tokens[i], inside[i], avoid) for i in near})

    def plan(
        self,
        operation: str,
        edited: tuple[int, ...] | None,
        control: tuple[int, ...] | None,
        watch: Watch,
        **more: object,
    ) -> EditPlan | None:
        """The plan, if both edits could be made."""
        if edited is None or control is None:
            return None
        return EditPlan(operation, self.text, edited, control, watch, **more)  # type: ignore[arg-type]


Maker = Callable[[_Desk], EditPlan | None]


def _remove_copy(desk: _Desk) -> EditPlan | None:
    """Induction, duplicates, repeated names: what makes the trigger true becomes something else."""
    causes = desk.here.causes
    if not desk.here.trigger or not 0 < len(causes) <= MOST_REPLACED:
        return None
    if desk.claim.mass == "prefix_induction":
        causes = tuple(i - 1 for i in causes)
    names = desk.vocabulary.with_property("name_like") if desk.claim.role == "S-inhibition" else None
    edited = desk.put({i: desk.other(desk.text.tokens[i], names) for i in causes})
    what = "name" if names is not None else "copy"
    return desk.plan(_remove(what), edited, desk.control_of(causes), "attention", falls=desk.here.targets)


def _remove(what: str) -> str:
    return f"remove the {'repeated name' if what == 'name' else 'copy'}"


def _step(desk: _Desk) -> int:
    return 0 if desk.claim.mass == "duplicate" else 1


def _free_offset(desk: _Desk, avoid: Sequence[int] = ()) -> int | None:
    """A random offset for a copy: clear of the last tokens and of those to avoid, its neighbours ordinary."""
    taken = {*avoid, *(i + s for i in avoid for s in (-1, 1))}
    free = [
        i for i in range(2, desk.text.end - 3) if i not in taken and all(desk.replaceable(i + s) for s in (-1, 0, 1))
    ]
    return int(desk.rng.choice(free)) if free else None


def _plant_copy(desk: _Desk) -> EditPlan | None:
    offset = _free_offset(desk)
    if desk.here.trigger or offset is None:
        return None
    tokens, end = desk.text.tokens, desk.text.end
    if desk.claim.mass == "prefix_induction":
        edited = desk.put({offset - 1: tokens[end - 1], offset: tokens[end]})
        control = desk.put({offset - 1: desk.other(tokens[end - 1]), offset: tokens[end]})
    else:
        edited, control = desk.put({offset: tokens[end]}), desk.put({offset: desk.other(tokens[end])})
    return desk.plan("plant a copy", edited, control, "attention", rises=(offset + _step(desk),))


def _move_copy(desk: _Desk) -> EditPlan | None:
    causes, tokens = desk.here.causes, desk.text.tokens
    if len(causes) != 1 or desk.claim.mass == "prefix_induction":
        return None
    (old,) = causes
    new, near = _free_offset(desk, causes), desk.nearby(causes, ())
    if new is None or near is None or new in near or new == near[0]:
        return None
    edited = desk.put({old: desk.other(tokens[old]), new: tokens[old]})
    control = desk.put({near[0]: desk.other(tokens[near[0]]), new: desk.other(tokens[old])})
    return desk.plan("move the copy", edited, control, "attention", rises=(new + _step(desk),), falls=desk.here.targets)


def _plant_name(desk: _Desk) -> EditPlan | None:
    names = desk.vocabulary.with_property("name_like")
    mentions = [i for i, token in enumerate(desk.text.tokens) if names[token]]
    if desk.here.trigger or len(mentions) < FEWEST_MENTIONS or not names[desk.text.next_token]:
        return None
    *before, last = mentions
    offset = int(desk.rng.choice(before))
    edited = desk.put({offset: desk.text.tokens[last]})
    control = desk.put({offset: desk.other(desk.text.tokens[offset], names)})
    return desk.plan("plant a repeated name", edited, control, "attention", rises=(last,))


def _replace_source(desk: _Desk) -> EditPlan | None:
    if not desk.here.trigger:
        return None
    (source,) = desk.here.targets
    edited = desk.put({source: desk.other(desk.text.tokens[source])})
    return desk.plan("replace the source", edited, desk.control_of((source,), (0,)), "arrival")


def _replace_copied(desk: _Desk) -> EditPlan | None:
    targets = desk.here.targets
    if not desk.here.trigger or not 0 < len(targets) <= MOST_REPLACED or desk.text.end in targets:
        return None
    names = desk.vocabulary.with_property("name_like") if desk.claim.role == "name mover" else None
    new = desk.other(desk.text.next_token, names)
    edited = desk.put(dict.fromkeys(targets, new))
    control = desk.control_of(targets, avoid=() if new is None else (new,))
    return desk.plan("replace what is copied", edited, control, "logit", token=new or 0, sign=CARRIERS[desk.claim.role])


def _remove_mark(desk: _Desk) -> EditPlan | None:
    marks = [i for i in desk.here.targets if 0 < i < desk.text.end]
    if not marks:
        return None
    outside = ~desk.vocabulary.with_property(desk.claim.mass)
    edited = desk.put({marks[-1]: desk.other(desk.text.tokens[marks[-1]], outside)})
    return desk.plan("remove a mark", edited, desk.control_of(marks[-1:]), "attention", falls=(marks[-1],))


def _plant_mark(desk: _Desk) -> EditPlan | None:
    offset, marked = _free_offset(desk, desk.here.targets), desk.vocabulary.with_property(desk.claim.mass)
    if offset is None:
        return None
    token = desk.text.tokens[offset]
    mark = desk.vocabulary.like(desk.rng, token, (), marked)
    control = desk.put({offset: desk.other(token, ~marked)})
    return desk.plan("plant a mark", desk.put({offset: mark}), control, "attention", rises=(offset,))


def _leave(desk: _Desk) -> EditPlan | None:
    return _change_class(desk, inside=True)


def _enter(desk: _Desk) -> EditPlan | None:
    return _change_class(desk, inside=False)


def _change_class(desk: _Desk, *, inside: bool) -> EditPlan | None:
    """The token becomes one of the other side; the control one of its own side."""
    if desk.here.trigger != inside:
        return None
    own = desk.vocabulary.with_property(desk.claim.token_property) == inside
    end, token = desk.text.end, desk.text.tokens[-1]
    edited, control = (desk.put({end: desk.other(token, side)}) for side in (~own, own))
    operation = "leave the class" if inside else "enter the class"
    return desk.plan(operation, edited, control, "activation", sign=-1 if inside else 1)


def makers(claim: Claim) -> tuple[Maker, ...]:
    """The operations for a claim; none where its trigger lies in the next token, which a component does not see."""
    if claim.role in UNEDITABLE:
        return ()
    if claim.kind == "neuron":
        return () if claim.role.startswith("fires before") else (_leave, _enter)
    if claim.mass in ("induction", "duplicate"):
        return (_remove_copy, _plant_copy, _move_copy)
    if claim.mass == "prefix_induction":
        return (_remove_copy, _plant_copy)
    if claim.mass in STEPS:
        return (_replace_source,)
    if claim.mass in ("newline", "delimiter"):
        return (_remove_mark, _plant_mark)
    return (_remove_copy, _plant_name) if claim.role == "S-inhibition" else (_replace_copied,)


def plans(
    claim: Claim,
    texts: Sequence[EditText],
    vocabulary: Vocabulary,
    *,
    seed: int = 0,
    fixed_end: bool = False,
    tries: int = 24,
) -> tuple[EditPlan, ...]:
    """For each operation and text one plan, at a random token of the text where the operation can be made.

    Args:
        fixed_end: only the text's own last token will do (prompts that ask there).
        tries: tokens of a text that are tried.
    """
    rng = np.random.default_rng(seed)
    made = []
    for maker in makers(claim):
        for text in texts:
            ends = [] if fixed_end else rng.permutation(np.arange(4, text.end))[:tries].tolist()
            for cut in [text] if fixed_end else [text.upto(int(end)) for end in ends]:
                plan = maker(_Desk(claim, cut, expectation(claim, cut, vocabulary), vocabulary, rng))
                if plan is not None:
                    made.append(plan)
                    break
    return tuple(made)
