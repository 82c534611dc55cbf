"""The stages of a check that look for where a role is wrong: counter-examples, edits, swaps, for every member.

A member's claim is what its role's words say (profiler.generality.evidence.claims); a member whose words claim nothing
known is refused and named. Texts are the run's corpus, the discovery prompts, and repeated random tokens. Prompts ask
at their last token; a role that acts elsewhere (an earlier token attends to the one before it) is asked at any token of
them.

Cost: a query a member; per member and distribution some 1,500 forward passes of about 60 tokens, 10 to 20 s on one core
with the bundled model.
"""

from dataclasses import replace
from typing import Any

from profiler.generality.counterexamples import find
from profiler.generality.distributions.subject import Subject
from profiler.generality.edits import edits, swaps
from profiler.generality.edits.sites import CARRIERS
from profiler.generality.edits.texts import Text, Vocabulary, texts_of, vocabulary_of
from profiler.generality.evidence.claims import Claim, claim_of
from profiler.generality.evidence.distributions import CORPUS, DISCOVERY, REPEATS
from profiler.generality.evidence.finding import Finding, Technique, Unit, refused
from profiler.patching.sites import parse_target

TEXTS, SWAPPED, LONGEST = 48, 40, 80
"""Documents that are edited, documents that are searched for swaps, and most tokens of each text."""
TRIED = 8


def claims_of(subject: Subject) -> tuple[tuple[str, Claim | None, str], ...]:
    """Component, claim in the circuit's words, and role of each head and neuron of the circuit."""
    members = [m for m in subject.general.members if parse_target(m.component).site in ("head", "neuron")]
    found = [(m.component, claim_of(m.role, m.component), m.role) for m in members]
    return tuple((label, None if claim is None else replace(claim, called=role), role) for label, claim, role in found)


def wrong_places(subject: Subject) -> tuple[Any, ...]:
    """Findings and CounterExample rows of every member."""
    rows: list[Any] = []
    for label, claim, role in claims_of(subject):
        if claim is None:
            rows.append(_unknown(label, role, "counter-examples", "silent share"))
            continue
        found = find.find(subject.run, label, claim)
        rows += [*found.findings, *found.examples]
    return tuple(rows)


def edited(subject: Subject) -> tuple[Any, ...]:
    """Findings and Edit rows of edits and swaps, of every member on each distribution."""
    rows: list[Any] = []
    vocabulary, sources = vocabulary_of(subject.run), texts(subject)
    for label, claim, role in claims_of(subject):
        subject.report(f"edits and swaps of {label}")
        if claim is None:
            rows.append(_unknown(label, role, "edits", edits.RATE))
            continue
        for distribution, (some, unit) in sources.items():
            rows += _both(subject, label, claim, some, vocabulary, distribution, unit)
    return tuple(rows)


def texts(subject: Subject) -> dict[str, tuple[tuple[Text, ...], Unit]]:
    """Texts to edit by distribution, and what their documents are."""
    found: dict[str, tuple[tuple[Text, ...], Unit]] = {}
    for distribution in (DISCOVERY, REPEATS):
        setting = subject.distributions.setting(distribution)
        if setting is not None:
            some = tuple(Text(p.pair.name, p.clean, p.answers[0]) for p in setting.batch.pairs)
            found[distribution] = (some[:TEXTS], "prompts")
    corpus = texts_of(subject.run, TEXTS, LONGEST)
    return found | ({CORPUS: (corpus, "documents")} if corpus else {})


def _both(
    subject: Subject,
    label: str,
    claim: Claim,
    some: tuple[Text, ...],
    vocabulary: Vocabulary,
    distribution: str,
    unit: Unit,
) -> list[Any]:
    """Edits on any distribution, swaps on text that was not made to a pattern."""
    asked_at_end = unit == "prompts" and claim.role in (*CARRIERS, "S-inhibition")
    shares = ("data corpus",) if distribution == CORPUS else (f"data {distribution}",)
    seed = subject.settings.seed
    vocabulary = vocabulary if distribution == CORPUS else vocabulary.of_texts(some)
    done = edits.check(subject.net, label, claim, some, vocabulary, distribution, unit, seed, asked_at_end, shares)
    if distribution != CORPUS:
        return [*done.findings, *done.edits]
    swapped = swaps.check(
        subject.net, label, claim, some[:SWAPPED], vocabulary, distribution, unit, seed, tried=TRIED, shares=shares
    )
    return [*done.findings, *done.edits, *swapped.findings, *swapped.edits]


def _unknown(label: str, role: str, technique: Technique, statistic: str) -> Finding:
    what = f"the words {role!r} claim nothing that can be tested" if role else "no role is claimed"
    why = f"{what}: give a role such as `induction`, `previous token`, `name mover` or `fires on numbers`"
    return refused(label, role, technique, CORPUS, statistic, 0, "documents", why)
