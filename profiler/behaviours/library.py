"""The library of behaviours: what can be claimed of a component at a position.

A behaviour is a name and a condition in SQL over a position's columns (view `position_facts`, and for heads the columns
of `head_attention`): it holds at a position or it does not. Families:

* `attention` (heads): at least half of the head's attention goes there. Half, because then no two disjoint places can
  both have it, and what is claimed is where the head looks, not where it looks a little;
* `effect` (heads): what the head writes of the token it attends to most: copies, suppresses, or neither;
* `context` (heads and neurons): what the text before is like; repetition in the window, which is all that attention
  can reach, brackets and quotes from the start of the document (profiler.text.context);
* `token`, `next`: a property of the token there, or of the token to predict; one of each per property of the run.

`priority` settles overlaps in a mixture: of the behaviours that hold the one with the smallest takes the position. NULL
takes no part unless asked for: what comes next is what a component is about, not what it saw. A user's own comes first.
"""

from dataclasses import dataclass
from typing import Literal

from profiler.behaviours.token_properties import PROPERTIES

Family = Literal["attention", "effect", "context", "token", "next", "user"]
Kind = Literal["head", "neuron", "both"]
MOST = 0.5
EFFECT = 0.1
DIFFUSE = 3.0
USER_PRIORITY = 1


@dataclass(frozen=True)
class Behaviour:
    """One claim: `condition` is SQL over a position's columns, `kind` says which components it can be about."""

    name: str
    family: Family
    kind: Kind
    condition: str
    description: str
    priority: int | None = None


def _attends(column: str, what: str, priority: int | None) -> Behaviour:
    return Behaviour(
        column, "attention", "head", f"{column} >= {MOST}", f"at least half of its attention is on {what}", priority
    )


ATTENTION = (
    _attends("prefix_induction", "tokens that followed an earlier copy of this token and the one before", None),
    _attends("induction", "tokens that followed an earlier copy of this token", 10),
    _attends("duplicate", "earlier copies of this token", 20),
    _attends("previous_token", "the token before", 30),
    _attends("two_back", "the token before the one before", 40),
    _attends("self", "the token itself", 50),
    _attends("newline", "line ends", 60),
    _attends("delimiter", "punctuation, brackets, quotes and operators", 70),
    _attends("first_token", "the first token of the window (BOS where there is one): the attention sink", 80),
    Behaviour(
        "diffuse",
        "attention",
        "head",
        f"attention_entropy >= {DIFFUSE}",
        "attention spread over about 20 tokens or more (entropy of 3 nats)",
        90,
    ),
)
EFFECTS = (
    Behaviour(
        "copies",
        "effect",
        "head",
        f"dla_to_attended >= {EFFECT}",
        "raises the logit of the token it attends to most by 0.1 or more",
    ),
    Behaviour(
        "suppresses",
        "effect",
        "head",
        f"dla_to_attended <= -{EFFECT}",
        "lowers the logit of the token it attends to most by 0.1 or more",
    ),
    Behaviour(
        "neither",
        "effect",
        "head",
        f"abs(dla_to_attended) < {EFFECT}",
        "changes the logit of the token it attends to most by less than 0.1",
    ),
)
CONTEXT = (
    Behaviour(
        "prefix_repeated",
        "context",
        "both",
        "prefix_match >= 2",
        "the last two tokens stood together earlier in the window",
        200,
    ),
    Behaviour("repeated", "context", "both", "repeated", "the token stood earlier in the window", 260),
    Behaviour(
        "after_newline",
        "context",
        "both",
        "list_contains(properties_before, 'newline')",
        "the token before ends a line",
        210,
    ),
    Behaviour("in_quotes", "context", "both", "in_quotes", 'inside a quote opened with " or """ in the document', 230),
    Behaviour("in_brackets", "context", "both", "bracket_depth > 0", "inside a bracket opened in the document", 240),
    Behaviour("early", "context", "both", '"offset" < 16', "among the first 16 offsets of the window", 250),
    Behaviour("surprised", "context", "both", "loss >= 5", "the model's loss is 5 nats or more (uniform sample only)"),
    Behaviour(
        "certain", "context", "both", "entropy < 0.5", "the model's entropy is below 0.5 nats (uniform sample only)"
    ),
)
BEHAVIOURS = (*ATTENTION, *EFFECTS, *CONTEXT)


def of_property(name: str, description: str, priority: int) -> tuple[Behaviour, Behaviour]:
    """The two behaviours of a token property: on such a token, and before such a token."""
    return (
        Behaviour(
            f"on_{name}",
            "token",
            "both",
            f"list_contains(properties, '{name}')",
            f"the token is {description}",
            priority,
        ),
        Behaviour(
            f"before_{name}",
            "next",
            "both",
            f"list_contains(next_properties, '{name}')",
            f"the next token is {description}",
        ),
    )


def library() -> tuple[Behaviour, ...]:
    """All behaviours of a new run: fixed ones, and two per property of the library."""
    pairs = [of_property(p.name, p.description, 100 + i) for i, p in enumerate(PROPERTIES)]
    return (*BEHAVIOURS, *(behaviour for pair in pairs for behaviour in pair))
