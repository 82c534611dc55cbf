"""The indirect-object task: "When Mary and John went to the store, John gave a drink to" is followed by " Mary".

Why: the best studied circuit task (Wang et al. 2022, "Interpretability in the Wild", section 2). Two people are
introduced, one of them acts again, and the other receives. Both orders of introduction are made: ABBA (the
indirect object stands first) and BABA (the subject stands first), so that position alone never tells the answer.

A template is a setting (who is where) and an act (who gives what). The splits share no setting, no act and no name.
The development split may be looked at while a model is trained; the held-out split is for the finished model.
No sentence begins with a name, so every name carries its leading space. Cost: microseconds a prompt.
"""

import random
import re
from collections.abc import Sequence
from typing import Literal

from profiler.prompts.tasks import words
from profiler.prompts.tasks.prompt import Prompt, Split, TextPiece

Order = Literal["ABBA", "BABA"]
ORDERS: tuple[Order, ...] = ("ABBA", "BABA")

SETTINGS_TRAIN = (
    "When {first} and {second} went to the {place},",
    "Then, {first} and {second} went to the {place}.",
    "Then {first} and {second} were at the {place}.",
    "After {first} and {second} left the {place},",
    "While {first} and {second} were working at the {place},",
    "Yesterday {first} and {second} had a long day at the {place}, and",
    "Once {first} and {second} were done at the {place},",
    "Last week {first} and {second} met at the {place}, where",
    "At the {place}, {first} and {second} sat down and",
    "Because {first} and {second} liked the {place}, they stayed, and",
    "In the morning {first} met {second} near the {place}. Later",
    "That day {first} was waiting for {second} at the {place}. In the end",
    "Afterwards {first} and {second} walked to the {place} together.",
    "Friends such as {first} and {second} often visit the {place}. Today",
    "Later {first} found {second} in the {place}, so",
    "It was late when {first} and {second} reached the {place}.",
    "As soon as {first} and {second} came back from the {place},",
    "We saw {first} talking with {second} at the {place}. Then",
    "One day {first} called {second} from the {place}. Soon",
    "Nobody but {first} and {second} came to the {place}, so",
    "Some time ago {first} invited {second} to the {place}. There",
    "Because of the rain {first} stayed with {second} in the {place}, and",
    "Each week {first} helps {second} at the {place}. Once",
    "After work {first} saw {second} close to the {place}. At last",
    "Not far from the {place} lived {first} and {second}. Every day",
    "Both {first} and {second} know the {place} well. Often",
    "A neighbour of {first} brought {second} to the {place}. That night",
    "The {place} was full when {first} noticed {second} there. After a while",
    "Around noon {first} and {second} sat in the {place}. Suddenly",
    "All week {first} and {second} had been busy at the {place}, but",
    "On the way to the {place} {first} talked to {second}, and",
    "Last night {first} took {second} to the {place}. Before long",
    "By the {place} {first} waited with {second} until",
    "Perhaps {first} and {second} were bored at the {place}, for",
    "Every morning {first} wakes {second} and they walk to the {place}. Sometimes",
    "Today {first} followed {second} into the {place}. A minute later",
    "Though {first} had never liked {second}, the {place} was warm, and",
    "If {first} and {second} go to the {place},",
    "So {first} and {second} ran to the {place}. Out of breath,",
    "In the old {place} {first} hid from {second}, but soon",
    "For an hour {first} and {second} looked around the {place}. Finally",
    "Only {first} knew that {second} owned the {place}, so",
    "There was nobody in the {place} except {first} and {second}. Slowly",
    "Rain fell on the {place} while {first} read to {second}. Then",
    "Next to {first}, in the {place}, stood {second}. With a smile",
    "Two friends, {first} and {second}, built a {place}. First",
    "Outside the {place} {first} thanked {second}, because",
    "Whenever {first} and {second} meet in the {place},",
    "It is known that {first} and {second} share the {place}, and that",
    "Years ago {first} taught {second} how to run the {place}. Now",
    "They say {first} married {second} in the {place}. Later on",
    "Both of them, {first} and {second}, came from the {place}. Once more",
    "Very early {first} and {second} crossed the {place}. At the door",
    "Near the end of the day {first} lost {second} in the {place}. By luck",
    "Dear {first} and {second}, the {place} is yours. Please see that",
    "Where was {first}? Close to {second}, in the {place}. After that",
    "The owner of the {place} saw {first} and {second}, and then",
    "Without {first} the {place} would be empty for {second}, so",
    "Far above the {place} {first} and {second} climbed. On the top",
    "New at the {place}, {first} asked {second} for help. In return",
)
ACTS_TRAIN = (
    "{subject} gave a {object} to",
    "{subject} handed the {object} to",
    "{subject} passed a {object} to",
    "{subject} decided to give the {object} to",
    "{subject} wanted to send a {object} to",
    "{subject} offered a {object} to",
    "{subject} sold the old {object} to",
    "{subject} brought a {object} for",
    "{subject} showed the new {object} to",
    "{subject} said something about a {object} to",
    "{subject} threw the {object} to",
    "{subject} found a {object} and took it to",
    "{subject} mailed a {object} to",
    "{subject} kept the {object} for",
    "{subject} pushed a heavy {object} over to",
    "{subject} made a {object} just for",
    "{subject} tried to explain the {object} to",
    "{subject} went back with a {object} for",
    "{subject} carried the wooden {object} to",
    "{subject} took the {object} and gave it to",
    "{subject} would like to give a {object} to",
    "{subject} had to hand over the {object} to",
    "{subject} could not give the {object} to",
    "{subject} is going to offer the {object} to",
    "{subject} gives a {object} to",
    "{subject} read a letter and gave the {object} to",
    "{subject} stood up and passed the {object} to",
    "{subject} asked for a {object} and showed it to",
    "{subject} wrote about the {object} to",
    "{subject} left a {object} for",
    "{subject} saved one {object} for",
    "{subject} fixed the broken {object} for",
    "{subject} paid for the {object} and sent it to",
    "{subject} was asked to bring the {object} to",
    "{subject} spoke of a {object} to",
    "{subject} laughed and threw a small {object} to",
    "{subject} opened the box with the {object} for",
    "{subject} put the {object} next to",
    "{subject} hid the {object} from",
    "{subject} took the {object} from",
    "{subject} got a {object} from",
    "{subject} stole the large {object} from",
    "{subject} talked about the {object} with",
    "{subject} shared the {object} with",
    "{subject} left the {object} with",
    "{subject} looked at the {object} and then at",
    "{subject} placed the {object} in front of",
    "{subject} dropped the {object} right behind",
    "{subject} forgot the {object} and called",
    "{subject} smiled and kissed",
    "{subject} lost the {object} that belonged to",
)
SETTINGS_DEVELOPMENT = (
    "During the holidays {first} and {second} stopped by the {place}, and",
    "Before {first} and {second} drove home from the {place},",
    "This summer {first} joined {second} at a small {place}. One evening",
    "On Sunday {first} and {second} spent an hour inside the {place}.",
    "Since {first} and {second} were alone in the {place},",
)
ACTS_DEVELOPMENT = (
    "{subject} lent a {object} to",
    "{subject} quietly returned the {object} to",
    "{subject} chose a lovely {object} as a present for",
    "{subject} promised another {object} to",
)
SETTINGS_HELD_OUT = (
    "Before dinner {first} and {second} wandered around the {place}, and",
    "On Friday {first} bumped into {second} outside the {place}. Eventually",
    "Although {first} and {second} disliked the {place}, neither went away, and",
    "During a storm {first} and {second} slept inside the {place}.",
    "Right beside the {place} {first} greeted {second}, and",
    "This spring {first} and {second} painted a {place} downtown, where",
    "Since the {place} was closed, {first} drove {second} home. Meanwhile",
    "Having entered the {place}, {first} and {second} rested until",
    "Over lunch {first} told {second} a story about the {place}. Next",
    "With {first} and {second} alone in the {place},",
)
ACTS_HELD_OUT = (
    "{subject} loaned a {object} to",
    "{subject} gently slipped the {object} to",
    "{subject} bought a cheap {object} for",
    "{subject} delivered the missing {object} to",
    "{subject} picked the green {object} as a surprise for",
    "{subject} presented another {object} to",
    "{subject} reached out and granted the {object} to",
    "{subject} fetched a clean {object} for",
)


def templates(split: Split) -> list[str]:
    """Ids of all wordings of a split, such as `train/3/7` (setting 3, act 7)."""
    settings, acts = _parts(split)
    return [f"{split}/{s}/{a}" for s in range(len(settings)) for a in range(len(acts))]


def held_out_words() -> set[str]:
    """Words of the development and held-out wordings that no train wording has; never drawn as fillers."""
    names = {split: set(re.findall("[a-z]+", " ".join(sum(_parts(split), ())).lower())) for split in _WORDINGS}
    return (names["held_out"] | names["development"]) - names["train"]


def render(template: str, roles: dict[str, str]) -> str:
    """The prompt text of a template id with the roles first, second, subject, place and object filled in."""
    return _wording(template).format(**roles)


def _wording(template: str) -> str:
    split, setting, act = template.split("/")
    settings, acts = _parts(split)
    return f"{settings[int(setting)]} {acts[int(act)]}"


def prompt(
    rng: random.Random,
    split: Split,
    *,
    names: Sequence[str] | None = None,
    order: Order | None = None,
    template: str | None = None,
) -> Prompt:
    """One random prompt.

    Args:
        rng: source of every choice.
        split: whose wordings (and names) are used.
        names: other names to draw from instead of the split's own; at least two different ones.
        order: `ABBA` or `BABA`; either at random by default.
        template: the wording; one of the split's at random by default.
    """
    recipient, subject = rng.sample(names or words.names(split), 2)
    chosen: Order = rng.choice(ORDERS) if order is None else order
    first, second = (recipient, subject) if chosen == "ABBA" else (subject, recipient)
    fill = {"place": rng.choice(words.PLACES), "object": rng.choice(words.OBJECTS)}
    roles = {"first": first, "second": second, "subject": subject, **fill}
    template = template or rng.choice(templates(split))
    listed = (*roles.items(), ("indirect_object", recipient), ("order", chosen))
    return Prompt("ioi", render(template, roles), f" {recipient}", (f" {subject}",), template, listed, split)


def story(
    rng: random.Random, pools: Sequence[Sequence[str]], fillers: Sequence[str] = (), loose: float = 0.0
) -> list[TextPiece]:
    """Training text of one to four sentences, most of them indirect-object sentences, in the train wordings.

    Args:
        rng: source of every choice.
        pools: name pools; each sentence draws its names from one pool chosen at random.
        fillers, loose: words to put into wordings, and how often (see `words.loosened`); by default never.
    """
    pieces: list[TextPiece] = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        pool = rng.choice(pools)
        question = prompt(rng, "train", names=pool)
        text = _loose(rng, question, fillers, loose) if loose else question.text
        ending = rng.choice((".", ".", ".", " again.", ", who smiled."))
        if rng.random() < _WITH_ASIDE:
            ending += f" {_aside(rng, pool)}"
        space = " " if pieces else ""
        pieces += [
            TextPiece(space + text, "arbitrary" if loose else "text"),
            TextPiece(question.answer, "answer"),
            TextPiece(ending),
        ]
    return pieces


def _loose(rng: random.Random, question: Prompt, fillers: Sequence[str], share: float) -> str:
    """The prompt's text in a wording that was changed at random."""
    names = (question.role("subject"), question.role("indirect_object"))
    rest = [word for word in fillers if word not in names]
    return words.loosened(rng, _wording(question.template), rest, share).format(**dict(question.roles))


def _aside(rng: random.Random, pool: Sequence[str]) -> str:
    a, b = rng.sample(pool, 2)
    location, thing = rng.choice(words.PLACES), rng.choice(words.OBJECTS)
    return rng.choice(
        (
            f"For years {a} lived near the {location}.",
            f"So {a} thanked {b}, and {b} thanked {a}.",
            f"In {rng.randint(1900, 2029)}, {a} bought {rng.randint(2, 60)} {thing}s at the {location}.",
            f'"Where is the {thing}, {a}?" asked {b}.',
        )
    )


def _parts(split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _WORDINGS[split]


_WITH_ASIDE = 0.35
"""Share of training sentences that another follows, which is no question."""
_WORDINGS = {
    "train": (SETTINGS_TRAIN, ACTS_TRAIN),
    "development": (SETTINGS_DEVELOPMENT, ACTS_DEVELOPMENT),
    "held_out": (SETTINGS_HELD_OUT, ACTS_HELD_OUT),
}
