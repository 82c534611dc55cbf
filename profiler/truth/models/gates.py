"""Heads that read a signal word and answer yes, alone, together, or in each other's stead.

A prompt is fillers with signal words among them and a question word at the end. A signal word is on (s1, s2) or off
(s0). Heads attend from every position to the signal and write to the feature `yes`, which the answers y0 to y3 read
with different gains; the distractors n0 to n3 read nothing.

| model | heads | answer |
|---|---|---|
| and | left reads p words, right reads q words | a neuron fires where both are on |
| or | two equal heads | two neurons pass on at most 1 of their sum |
| sum | two heads | half of it each |
| serial-backup | a reader; in the next layer a head that reads the signal where `yes` is not yet written | 1 |
| crowd | a reader among heads that attend alike and write what nobody reads | 1 |
| one-template | formal acts before `?`, casual before `!` | 1; discovery asks with `?` alone |
| over-recovers | a reader, and a doubter that takes 0.6 back at a doubt word | discovery has no doubt words |
| half-elsewhere | the same with half of the answer each, and a head that writes the other half always | 1 |
| false-claim | a reader; the circuit that is claimed is another head | 1 |
| false-role | a reader of s words; it is claimed to read the t word | 1 |
| part-of-sum | two heads, three quarters and one; the smaller is claimed | 1 |
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random

from profiler.truth.circuit import DISCOVERY_PROMPTS
from profiler.truth.sketch import (
    CONSTANT,
    HandModel,
    PromptDraw,
    Sketch,
    SketchHead,
    SketchLayer,
    SketchNeuron,
    Vector,
    attends,
    rests,
)

FILLERS = tuple("abcdefghijklmnop")
YES, NO = ("y0", "y1", "y2", "y3"), ("n0", "n1", "n2", "n3")
GAINS = {"y0": 3.0, "y1": 4.0, "y2": 5.0, "y3": 6.0}
FORMAL, CASUAL = "?", "!"
OTHER_WORDS, LONGER = "other words", "longer"
N_FILLERS, N_LONGER = (4, 9), (14, 20)
"""Fewest and most fillers of a prompt."""
DOUBT, SMALLER = 0.6, 0.25
"""Shares of the answer: what a doubt word takes back, and what the smaller part of a sum makes."""
CROWD = 16
ECHOES = 6
"""Heads of the crowd that attend as the reader does."""
END = (FORMAL,)


# --- words and weights that the models have in common ---


def family(letter: str) -> dict[str, Vector]:
    """Embeddings of an off word and two on words, such as s0, s1, s2."""
    return {f"{letter}{i}": {f"is:{letter}": 1.0} | ({f"on:{letter}": 1.0} if i else {}) for i in range(3)}


def embeddings(*families: str) -> dict[str, Vector]:
    """Fillers, question words, answers and distractors, and families of signal words."""
    plain: dict[str, Vector] = {word: {f"word:{word}": 1.0} for word in FILLERS}
    plain |= {FORMAL: {"formal": 1.0}, CASUAL: {"casual": 1.0}} | {word: {} for word in (*YES, *NO)}
    for letter in families:
        plain |= family(letter)
    return plain


def answers_of(yes: float) -> dict[str, float]:
    """Logits where the feature `yes` is so large."""
    return {word: gain * yes for word, gain in GAINS.items()}


def reader(name: str, letter: str, writes: Vector) -> SketchHead:
    """A head that attends to the signal word of a family, and copies whether it is on."""
    return SketchHead(
        name, (attends({CONSTANT: 1.0}, {f"is:{letter}": 1.0}), rests()), (({f"on:{letter}": 1.0}, writes),)
    )


def reads(letter: str) -> str:
    """The role of a head that attends to the signal word of a family."""
    return f"at end attends to signal-{letter}"


def is_on(words: Sequence[str], letter: str) -> float:
    """Share of the words of a family that are on: what a head that attends to them reads; 0 where there is none."""
    seen = [word for word in words if word in family(letter)]
    return sum(word != f"{letter}0" for word in seen) / len(seen) if seen else 0.0


def sketch(families: str, *layers: SketchLayer, least_heads: int = 1) -> Sketch:
    """A model of these layers whose answers read `yes`."""
    return Sketch(
        embeddings(*families), layers, {word: {"yes": gain} for word, gain in GAINS.items()}, least_heads=least_heads
    )


# --- prompts ---


def prompt(
    rng: Random,
    signals: Mapping[str, str],
    *,
    fillers: Sequence[str] = FILLERS[:8],
    n: tuple[int, int] = N_FILLERS,
    end: Sequence[str] = END,
) -> PromptDraw:
    """Fillers with signal words among them; `signals` gives each clean word its corrupted one."""
    words = rng.choices(fillers, k=rng.randint(*n))
    for signal in signals:
        words.insert(rng.randint(0, len(words)), signal)
    words += end
    corrupted = [signals.get(word, word) for word in words]
    roles = {f"signal-{signal[0]}": words.index(signal) for signal in signals}
    return PromptDraw(tuple(words), tuple(corrupted), rng.choice(YES), rng.choice(NO), roles)


def three_distributions(*letters: str) -> dict[str, Callable[[Random], PromptDraw]]:
    """Discovery; other signal words and fillers; longer prompts. Every family is on, and off in the corrupted one."""

    def signals(i: int) -> dict[str, str]:
        return {f"{letter}{i}": f"{letter}0" for letter in letters}

    return {
        DISCOVERY_PROMPTS: partial(prompt, signals=signals(1)),
        OTHER_WORDS: partial(prompt, signals=signals(2), fillers=FILLERS[8:]),
        LONGER: partial(prompt, signals=signals(1), n=N_LONGER),
    }


# --- the models ---


def both() -> HandModel:
    """AND: a neuron that needs two heads, each of which reads a word of its own."""
    heads = (reader("left", "p", {"left": 1.0}), reader("right", "q", {"right": 1.0}))
    gate = SketchNeuron({"left": 1.0, "right": 1.0}, -1.0, {"yes": 1.0})

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        left, right = ((name not in silent) * is_on(words, letter) for name, letter in (("left", "p"), ("right", "q")))
        return answers_of(max(0.0, left + right - 1.0))

    return HandModel(
        "and",
        sketch("pq", SketchLayer(heads, (gate,))),
        answers,
        three_distributions("p", "q"),
        ("left", "right"),
        (),
        {"left": reads("p"), "right": reads("q")},
        "generalises",
        "the neuron needs both heads on every prompt",
    )


def either() -> HandModel:
    """OR: two equal heads, of whose sum at most 1 is passed on."""
    heads = tuple(reader(name, "s", {"said": 1.0}) for name in ("first", "second"))
    gates = (SketchNeuron({"said": 1.0}, 0.0, {"yes": 1.0}), SketchNeuron({"said": 1.0}, -1.0, {"yes": -1.0}))

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        return answers_of(min(1.0, sum(name not in silent for name in ("first", "second")) * is_on(words, "s")))

    return HandModel(
        "or",
        sketch("s", SketchLayer(heads, gates)),
        answers,
        three_distributions("s"),
        ("first", "second"),
        (),
        {"first": reads("s"), "second": reads("s")},
        "generalises",
        "either head is enough on every prompt, and the answer is gone only without both",
    )


def added() -> HandModel:
    """SUM: two heads write half of the answer each."""
    heads = tuple(reader(name, "s", {"yes": 0.5}) for name in ("first", "second"))

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        return answers_of(0.5 * sum(name not in silent for name in ("first", "second")) * is_on(words, "s"))

    return HandModel(
        "sum",
        sketch("s", SketchLayer(heads)),
        answers,
        three_distributions("s"),
        ("first", "second"),
        (("first", "logits"), ("second", "logits")),
        {"first": reads("s"), "second": reads("s")},
        "generalises",
        "each head writes half of the answer on every prompt",
    )


def serial() -> HandModel:
    """Serial backup: a head of the next layer reads the signal where the first head has not written the answer."""
    backup = SketchHead(
        "backup",
        (attends({CONSTANT: 1.0, "yes": -1.0}, {"is:s": 1.0}), rests()),
        (({"on:s": 1.0}, {"yes": 1.0}),),
    )

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        return answers_of(is_on(words, "s") * (not silent >= {"reader", "backup"}))

    return HandModel(
        "serial-backup",
        sketch("s", SketchLayer((reader("reader", "s", {"yes": 1.0}),)), SketchLayer((backup,))),
        answers,
        three_distributions("s"),
        ("reader", "backup"),
        (("reader", "backup.q"), ("reader", "logits"), ("backup", "logits")),
        {"reader": reads("s")},
        "generalises",
        "the reader answers on every prompt, and the backup wherever the reader is silenced",
    )


def crowd() -> HandModel:
    """One head that answers, among many that attend as it does and write what nobody reads."""
    echoes = tuple(reader(f"echo{i}", "s", {f"dead:{i}": 3.0}) for i in range(ECHOES))
    return HandModel(
        "crowd",
        sketch("s", SketchLayer((reader("reader", "s", {"yes": 1.0}), *echoes)), least_heads=CROWD),
        _read,
        three_distributions("s"),
        ("reader",),
        (("reader", "logits"),),
        {"reader": reads("s")},
        "generalises",
        "one head answers on every prompt; the heads that look like it write what nobody reads",
    )


def _read(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
    """Answers of a model whose head `reader` does everything."""
    return answers_of(("reader" not in silent) * is_on(words, "s"))


def one_template() -> HandModel:
    """A circuit valid on one template only: another head does the same before another question word."""
    return _by_template(
        "one-template", {"formal": 1.0, "casual": 1.0}, ("formal",), "on the other template another head does all of it"
    )


def half_elsewhere() -> HandModel:
    """A circuit of which half is valid on one template only."""
    return _by_template(
        "half-elsewhere",
        {"formal": 0.5, "casual": 0.5, "always": 0.5},
        ("formal", "always"),
        "on the other template another head does half of it",
    )


def _by_template(name: str, shares: Mapping[str, float], members: tuple[str, ...], why: str) -> HandModel:
    """Heads that act before one question word each (`always` before both), and write a share of the answer."""
    heads = tuple(
        SketchHead(
            head,
            (attends({CONSTANT if head == "always" else head: 1.0}, {"is:s": 1.0}), rests()),
            (({"on:s": 1.0}, {"yes": share}),),
        )
        for head, share in shares.items()
    )

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        acting = {{FORMAL: "formal", CASUAL: "casual"}[words[-1]], "always"} - silent
        return answers_of(sum(shares.get(head, 0.0) for head in acting) * is_on(words, "s"))

    signals = {"s1": "s0"}
    return HandModel(
        name,
        sketch("s", SketchLayer(heads)),
        answers,
        {
            DISCOVERY_PROMPTS: partial(prompt, signals=signals),
            LONGER: partial(prompt, signals=signals, n=N_LONGER),
            "other template": partial(prompt, signals=signals, end=(CASUAL,)),
        },
        members,
        tuple((head, "logits") for head in members),
        {head: reads("s") for head in members},
        "narrows",
        why,
    )


def over() -> HandModel:
    """Over-recovery: a head takes part of the answer back at a word that discovery does not have."""
    heads = (reader("reader", "s", {"yes": 1.0}), reader("doubter", "d", {"yes": -DOUBT}))

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        yes = ("reader" not in silent) * is_on(words, "s")
        return answers_of(yes - DOUBT * ("doubter" not in silent) * is_on(words, "d"))

    return HandModel(
        "over-recovers",
        sketch("sd", SketchLayer(heads)),
        answers,
        {
            DISCOVERY_PROMPTS: partial(prompt, signals={"s1": "s0"}),
            LONGER: partial(prompt, signals={"s1": "s0"}, n=N_LONGER),
            "doubt": partial(prompt, signals={"s1": "s0", "d1": "d0"}),
        },
        ("reader",),
        (("reader", "logits"),),
        {"reader": reads("s")},
        "over-recovers",
        "at doubt words the model keeps 0.4 of the answer and the circuit all of it",
    )


def false_claim() -> HandModel:
    """A claimed circuit that has nothing to do with the answer."""
    heads = (reader("reader", "s", {"yes": 1.0}), reader("echo", "s", {"dead:0": 3.0}))
    return HandModel(
        "false-claim",
        sketch("s", SketchLayer(heads)),
        _read,
        three_distributions("s"),
        ("reader",),
        (("reader", "logits"),),
        {"reader": reads("s")},
        "does something else",
        "the head that is claimed writes what nobody reads",
        {"echo": ""},
    )


def false_role() -> HandModel:
    """The true circuit with a role that it does not have: it is claimed to read another word."""
    words = {"s1": "s0", "t1": "t1"}
    return HandModel(
        "false-role",
        sketch("st", SketchLayer((reader("reader", "s", {"yes": 1.0}),))),
        _read,
        {
            DISCOVERY_PROMPTS: partial(prompt, signals=words),
            OTHER_WORDS: partial(prompt, signals=words, fillers=FILLERS[8:]),
            LONGER: partial(prompt, signals=words, n=N_LONGER),
        },
        ("reader",),
        (("reader", "logits"),),
        {"reader": reads("s")},
        "does something else",
        "the head answers everywhere, but not by the word that it is claimed to read",
        {"reader": reads("t")},
    )


def part_of_sum() -> HandModel:
    """A claimed circuit that is the smaller part of the true one."""
    shares = {"larger": 1.0 - SMALLER, "smaller": SMALLER}
    heads = tuple(reader(name, "s", {"yes": share}) for name, share in shares.items())

    def answers(words: Sequence[str], silent: frozenset[str]) -> dict[str, float]:
        return answers_of(sum(share for name, share in shares.items() if name not in silent) * is_on(words, "s"))

    return HandModel(
        "part-of-sum",
        sketch("s", SketchLayer(heads)),
        answers,
        three_distributions("s"),
        tuple(shares),
        tuple((name, "logits") for name in shares),
        {name: reads("s") for name in shares},
        "does something else",
        "the head that is claimed makes a quarter of the answer, on discovery prompts too",
        {"smaller": reads("s")},
    )


MODELS: dict[str, Callable[[], HandModel]] = {
    "and": both,
    "or": either,
    "sum": added,
    "serial-backup": serial,
    "crowd": crowd,
    "one-template": one_template,
    "half-elsewhere": half_elsewhere,
    "over-recovers": over,
    "false-claim": false_claim,
    "false-role": false_role,
    "part-of-sum": part_of_sum,
}
