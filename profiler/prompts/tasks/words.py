"""Word lists of the tasks, each in a train and a held-out part.

Why: a behaviour counts as general only where the words were not trained on in that role. Every word here is made a
single token (with its leading space) of the bundled model's vocabulary by `profiler.bundled.training.tokenizer`, so
that prompts of one template have equal length. Cost: none, plain data.
"""

import random
from collections.abc import Sequence


def listed(text: str) -> tuple[str, ...]:
    """The words of a text, one after another."""
    return tuple(text.split())


NAMES_TRAIN = listed(
    "Mary John Alice Bob Tom Sarah Emma James Anna Peter Laura David Kate Paul Lucy Jane Henry Rose Jack Ruth "
    "Adam Clara Simon Helen Frank Nina Oscar Leo Amy Andrew Arthur Ben Brian Carl Carol Charlie Chris Claire "
    "Daniel Diana Donna Edward Ella Emily Eric Eva Fiona Fred Gary George Gina Hannah Harry Ian Irene Isaac "
    "Ivan Jason Jenny Jessica Jim Joan Joe Julia Karen Keith Kevin Larry Lily Linda Lisa Luke Maria Martin Max "
    "Megan Michael Mike Nancy Neil Nick Olivia Patrick Phil Rachel Rebecca Richard Robert Ryan Sam Scott "
    "Sophie Steve Susan Victor William"
)
NAMES_DEVELOPMENT = listed(
    "Aaron Albert Angela Barbara Bruce Cindy Dean Dennis Elena Felix Gloria Hugo Jacob Janet Jordan Judy Kyle Lauren "
    "Lewis Marcus Molly Monica Nathan Pamela Ralph Roger Sandra Sean Stella Teresa Tina Walter"
)
NAMES_HELD_OUT = listed(
    "Adrian Alan Brenda Carmen Derek Donald Doris Edgar Ellen Ernest Esther Florence Gerald Gordon Grace Harold Howard "
    "Joyce Leonard Louise Margaret Marion Maurice Norman Philip Raymond Rita Shirley Sylvia Vera Vincent Wendy"
)
PLACES = listed(
    "store park school office garden library market station beach museum house farm hospital kitchen theatre church "
    "harbour hotel cafe village"
)
OBJECTS = listed(
    "drink book ring key letter ticket basket flower lamp map ball box card coat cup bone necklace computer kiss "
    "picture"
)
ARGUMENTS_TRAIN = listed(
    "load size files last new path data mode value start stop limit count user host port buffer offset label color "
    "width height depth parent child source target token query table column row index items cache driver event "
    "filter format handler image length level lock message model node number option order owner page pattern prefix "
    "queue rate record region result rule scale schema scope section server signal state status step stream style "
    "timeout"
)
ARGUMENTS_HELD_OUT = listed(
    "angle batch body branch budget channel client clock field first group header job key line margin matrix output "
    "phase pixel plan price score shape task vector volume weight window zone"
)
WEEKDAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listed("January February March April May June July August September October November December")

_ONSETS = listed("b br c ch d dr f g gr h j k kl l m n p pr qu r s sh st t tr v w z")
_VOWELS = listed("a e i o u ai ee ou")
_CODAS = listed("l m n r s t x nd rk") + ("",) * 4


def names(split: str) -> tuple[str, ...]:
    """The first names of a split (`train`, `development` or `held_out`)."""
    return {"train": NAMES_TRAIN, "development": NAMES_DEVELOPMENT, "held_out": NAMES_HELD_OUT}[split]


def untrained() -> tuple[str, ...]:
    """Every name and parameter name that no task text of the training may hold."""
    return (*NAMES_DEVELOPMENT, *NAMES_HELD_OUT, *ARGUMENTS_HELD_OUT)


def arguments(split: str) -> tuple[str, ...]:
    """The parameter names of a split (`train` or `held_out`)."""
    return ARGUMENTS_TRAIN if split == "train" else ARGUMENTS_HELD_OUT


def made_up(rng: random.Random) -> str:
    """A pronounceable word of one or two syllables that is in no list, in lower case."""
    syllables = rng.choice((1, 2, 2))
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))


def loosened(rng: random.Random, template: str, fillers: Sequence[str], share: float) -> str:
    """A template with some of its words replaced by arbitrary ones, and arbitrary ones put between.

    Why: a model trained on fixed wordings learns the wordings. Where any word may stand anywhere, only the structure
    (who was named, who acts again, what comes next) predicts the answer.

    Args:
        rng: source of every choice.
        template: words divided by single spaces; words with a brace, and the last word, are kept.
        fillers: words to put in.
        share: probability that a word is replaced; half of it is the probability that one is put in front of it.
    """
    *words, last = template.split(" ")
    changed = []
    for word in words:
        if rng.random() < share / 2:
            changed.append(rng.choice(fillers))
        replaced = "{" not in word and rng.random() < share
        changed.append(_like(word, rng.choice(fillers)) if replaced else word)
    return " ".join([*changed, last])


def _like(word: str, other: str) -> str:
    """The other word with the first word's capital and closing punctuation."""
    closing = word[-1] if word and not word[-1].isalnum() else ""
    return (other.capitalize() if word[:1].isupper() else other) + closing
