"""What a role's words claim: where a component should act, what it should do there, and how strongly it does. No torch.

Why: a circuit names its members by words ("induction head", "name mover", "fires on numbers"). Before a claim can be
wrong it must be falsifiable, so each role is three things that a position can be asked: a trigger (the role says that
it should act here), what counts as acting, and a number that says how much. All three are SQL over the columns of
`head_facts` or `neuron_facts` (profiler/database/views.sql) and the columns of MORE below, so that they can be asked of
every kept position of a run; `mass` names the same thing for a forward pass (profiler.model.attention.MASSES).

Sources of the roles: Olsson et al. 2022, "In-context Learning and Induction Heads" (induction, previous token); Wang et
al. 2022, "Interpretability in the Wild", section 3 (duplicate token, name mover, S-inhibition, backup and negative name
mover); Heimersheim and Janiak 2023, "A circuit for Python docstrings" (argument mover); McDougall et al. 2023, "Copy
Suppression".
Cost: none, plain data.
"""

import re
from dataclasses import dataclass, replace

from profiler.behaviours.library import EFFECT, MOST, Kind
from profiler.behaviours.token_properties import PROPERTIES
from profiler.circuits import positions

MORE = {
    "attended": "text of the token that the head attends to most",
    "attended_properties": "properties of that token",
    "attended_repeated": "whether that token stands a second time among the tokens up to here",
    "attended_is_next": "whether that token is the token to predict",
    "next_seen": "whether the token to predict stands in the window up to here",
    "continues": "whether what followed the last copy of this token is what follows now",
    "name_repeated": "whether a name-like token stands twice in the window up to here",
    "fires": "neurons: whether the activation reaches the component's own threshold",
    "strength_of_firing": "neurons: the activation as a share of its 99.9th percentile, between 0 and 1",
}
"""Columns that a claim may use beside those of head_facts and neuron_facts, and what they hold."""


@dataclass(frozen=True)
class Claim:
    """A role as something that can be wrong.

    Attributes:
        role: name of the role.
        kind: head or neuron: what can play it.
        trigger: SQL, true where the role says that the component should act.
        acts: SQL, true where it does.
        strength: SQL, between 0 and 1: how much of what is claimed is seen.
        expected_by: SQL, a value; positions where it is the same are expected to weigh the same.
        mass: the number of profiler.model.attention.MASSES that is the claim in a forward pass; empty where none is.
        behaviour: name of the same claim in profiler.behaviours.library; empty where there is none.
        token_property: the property of tokens that the claim is about; empty where it is about none.
        description: the claim in a sentence.
        untestable: why unedited text cannot show it; empty where it can.
        called: the words that a circuit says it in; empty for the role's own name.
    """

    role: str
    kind: Kind
    trigger: str
    acts: str
    strength: str
    description: str
    expected_by: str = "class"
    mass: str = ""
    behaviour: str = ""
    token_property: str = ""
    untestable: str = ""
    called: str = ""

    @property
    def label(self) -> str:
        """The role as findings name it: in the circuit's words where there are any."""
        return self.called or self.role

    @property
    def everywhere(self) -> bool:
        """Whether the role has the component act at every position, so that it cannot act where it should not."""
        return self.trigger == ALWAYS


ALWAYS = '"offset" >= 2'
"""Everywhere but at the first tokens, where the token before and the first token are the same."""
_NAME = "list_contains({}, 'name_like')"
_REPEATS = "least(prefix_match, 4) * 2 + continues::INTEGER"


def _attends(role: str, mass: str, what: str, trigger: str = ALWAYS, expected_by: str = "class") -> Claim:
    return Claim(role, "head", trigger, f"{mass} >= {MOST}", mass, f"attends to {what}", expected_by, mass, mass)


INDUCTION = _attends("induction", "induction", "what followed an earlier copy of the token", "repeated", _REPEATS)
PREFIX = _attends(
    "prefix induction",
    "prefix_induction",
    "what followed an earlier copy of the last two tokens",
    "prefix_match >= 2",
    _REPEATS,
)
DUPLICATE = _attends("duplicate token", "duplicate", "earlier copies of the token", "repeated")
PREVIOUS = _attends("previous token", "previous_token", "the token before")
TWO_BACK = _attends("two back", "two_back", "the token before the one before")
CURRENT = _attends("current token", "self", "the token itself")
FIRST = _attends("first token", "first_token", "the first token of the window")
NEWLINE = _attends("newline", "newline", "line ends")
DELIMITER = _attends("delimiter", "delimiter", "punctuation, brackets, quotes and operators")
NAME_MOVER = Claim(
    "name mover",
    "head",
    f"{_NAME.format('next_properties')} AND next_seen",
    f"{_NAME.format('attended_properties')} AND dla_to_attended >= {EFFECT}",
    f"CASE WHEN {_NAME.format('attended_properties')} THEN top_weight ELSE 0 END",
    "before a name that was there, attends to a name and raises its logit",
)
S_INHIBITION = Claim(
    "S-inhibition",
    "head",
    f"{_NAME.format('next_properties')} AND name_repeated",
    f"{_NAME.format('attended_properties')} AND attended_repeated AND top_weight >= {MOST}",
    f"CASE WHEN {_NAME.format('attended_properties')} AND attended_repeated THEN top_weight ELSE 0 END",
    "before a name, where a name stands twice, attends to the repeated name",
)
SUPPRESSION = Claim(
    "copy suppression",
    "head",
    "next_seen",
    f"dla_to_attended <= -{EFFECT}",
    "CASE WHEN dla_to_attended < 0 THEN top_weight ELSE 0 END",
    "where a token of the window comes again, attends to it and lowers its logit",
    behaviour="suppresses",
)
COPYING = Claim(
    "copying",
    "head",
    "next_seen",
    f"attended_is_next AND dla_to_attended >= {EFFECT}",
    "CASE WHEN attended_is_next THEN top_weight ELSE 0 END",
    "where a token of the window comes again, attends to it and raises its logit",
    behaviour="copies",
)
BACKUP = replace(
    NAME_MOVER,
    role="backup name mover",
    description="moves names where the name movers are gone",
    untestable="a backup acts where other heads are taken away; unedited text cannot show it: look at self-repair",
)


def on_token(token_property: str, *, next_token: bool = False) -> Claim:
    """The claim that a neuron fires on tokens with a property, or before them."""
    where, column = ("before", "next_properties") if next_token else ("on", "properties")
    return Claim(
        f"fires {where} {token_property}",
        "neuron",
        f"list_contains({column}, '{token_property}')",
        "fires",
        "strength_of_firing",
        f"fires {where} {token_property.replace('_', ' ')} tokens",
        "token",
        behaviour=f"{where}_{token_property}",
        token_property=token_property,
    )


_HEADS: tuple[tuple[str, Claim], ...] = (
    (r"backup", BACKUP),
    (r"negative|suppress", SUPPRESSION),
    (r"s[- ]?inhibit", S_INHIBITION),
    (r"name[- ]?mov|end attends to io\b", NAME_MOVER),
    (r"end attends to s[12]\b", S_INHIBITION),
    (r"prefix[- ]?induction|long[- ]?prefix", PREFIX),
    (r"induction|b_doc attends to a_def", INDUCTION),
    (r"duplicate|s2 attends to s1\b|b_doc attends to b_def", DUPLICATE),
    (r"two[- ]?back|two before", TWO_BACK),
    (r"previous|token before", PREVIOUS),
    (r"first token|^first$|\bbos\b|\bsink\b|resting", FIRST),
    (r"current token|itself|\bself\b", CURRENT),
    (r"argument[- ]?mov|cop(y|ies|ying)|end attends to a_def", COPYING),
    (r"newline|line ends?\b", NEWLINE),
    (r"delimiter|punctuation", DELIMITER),
)
"""Words of a role, tried in order, and the claim they make."""
_AT_POSITIONS: dict[tuple[str, str], Claim] = {
    ("end", "io"): NAME_MOVER,
    ("end", "s1"): S_INHIBITION,
    ("end", "s2"): S_INHIBITION,
    ("s2", "s1"): DUPLICATE,
    ("b_doc", "a_def"): INDUCTION,
    ("b_doc", "b_def"): DUPLICATE,
    ("end", "a_def"): COPYING,
}
"""The claim of a role that names positions of a built-in task's prompts. Names that a user gives to positions say
nothing of what a head does elsewhere, whatever words they are."""
_EVERYWHERE = {positions.ITSELF: CURRENT, positions.BEFORE: PREVIOUS, positions.FIRST: FIRST}
"""The claim of a role that attends to a position which every token has."""
HEAD_CLAIMS = tuple(dict.fromkeys(claim for _, claim in _HEADS))


def claim_of(role: str, component: str = "L0H0") -> Claim | None:
    """The claim that a role's words make; None where they make none that is known.

    Args:
        role: such as `induction head`, `name mover`, `at S2 attends to S1 (93%)`, `fires on numbers`, `year neuron`.
        component: label of the component that plays it: words mean one thing for a head and another for a neuron.
    """
    words = role.lower().strip()
    if not words:
        return None
    if "N" in component:
        return _neuron_claim(words)
    if (position_role := positions.position_role(words)) is not None:
        return _EVERYWHERE.get(position_role.to) or _AT_POSITIONS.get((position_role.at, position_role.to))
    return next((claim for pattern, claim in _HEADS if re.search(pattern, words)), None)


def _neuron_claim(words: str) -> Claim | None:
    """The longest name of a property among the words, in singular or plural."""
    names = sorted((p.name for p in PROPERTIES), key=len, reverse=True)
    plain = words.replace("_", " ").replace("-", " ")
    property_name = next((name for name in names if re.search(rf"\b{name.replace('_', ' ')}(s|es)?\b", plain)), None)
    return on_token(property_name, next_token=bool(re.search(r"\bbefore\b|\bnext\b", plain))) if property_name else None
