"""The stages of a check that look for where a role is wrong: counter-examples, edits and swaps of every member.

A member's claim is what its role's words say (profiler.generality.evidence.claims); a member whose words claim nothing
known is refused and named. Texts are the run's corpus, the discovery prompts, and repeated random tokens. Prompts ask
at their last token; a role that acts elsewhere (an earlier token attends to the one before it) is tested at any token
of them.

Cost: a query a member; per member and distribution some 1,500 forward passes of about 60 tokens, 10 to 20 s on one core
with the bundled model.
"""

from dataclasses import replace

from profiler.circuits.circuit import Member
from profiler.generality.counterexamples import find
from profiler.generality.distributions.subject import CheckSubject
from profiler.generality.edits import edits, swaps
from profiler.generality.edits.sites import CARRIERS
from profiler.generality.edits.texts import EditText, Vocabulary, texts_of, vocabulary_of
from profiler.generality.evidence.claims import Claim, claim_of
from profiler.generality.evidence.distributions import DISCOVERY, REPEATS, Distribution
from profiler.generality.evidence.finding import Finding, Question, StageResult, joined
from profiler.patching.sites import parse_target

TEXTS, SWAPPED, LONGEST = 48, 40, 80
"""Documents that are edited, documents that are searched for swaps, and most tokens of each text."""
TRIED = 8


def claims_of(subject: CheckSubject) -> tuple[tuple[Member, Claim | None], ...]:
    """Each head and neuron of the circuit, with its claim in the circuit's words."""
    members = [m for m in subject.general.members if parse_target(m.component).site in ("head", "neuron")]
    claims = [(member, claim_of(member.role, member.component)) for member in members]
    return tuple((member, None if claim is None else replace(claim, called=member.role)) for member, claim in claims)


def wrong_positions(subject: CheckSubject) -> StageResult:
    """Rates and CounterExample rows of every member."""
    results = []
    for member, claim in claims_of(subject):
        question = subject.question("counter-examples", subject.corpus, member.component, member.role)
        if claim is None:
            results.append(StageResult((_unknown(question, "silent share"),)))
            continue
        wrong = find.find(subject.run, question, claim)
        results.append(StageResult(wrong.findings, wrong.examples))
    return joined(results)


def edited(subject: CheckSubject) -> StageResult:
    """Rates and Edit rows of edits and swaps, of every member on each distribution."""
    results = []
    vocabulary, sources = vocabulary_of(subject.run), texts(subject)
    for member, claim in claims_of(subject):
        subject.report(f"edits and swaps of {member.component}")
        if claim is None:
            question = subject.question("edits", subject.corpus, member.component, member.role)
            results.append(StageResult((_unknown(question, edits.RATE),)))
            continue
        for distribution, some in sources:
            question = subject.question("edits", distribution, member.component, member.role)
            results.append(_both(subject, question, claim, some, vocabulary))
    return joined(results)


def texts(subject: CheckSubject) -> list[tuple[Distribution, tuple[EditText, ...]]]:
    """Texts to edit, by distribution."""
    texts_of_role = []
    for name in (DISCOVERY, REPEATS):
        setting = subject.distributions.setting(name)
        if setting is not None:
            some = tuple(EditText(p.pair.name, p.clean, p.answers[0]) for p in setting.batch.pairs)
            texts_of_role.append((Distribution(name, 0, "prompts", ""), some[:TEXTS]))
    corpus = texts_of(subject.run, TEXTS, LONGEST)
    return [*texts_of_role, (subject.corpus, corpus)] if corpus else texts_of_role


def _both(
    subject: CheckSubject, question: Question, claim: Claim, some: tuple[EditText, ...], vocabulary: Vocabulary
) -> StageResult:
    """Edits on any distribution, swaps on text that was not made to a pattern."""
    net, seed, of_prompts = subject.net, subject.settings.seed, question.unit == "prompts"
    fixed_end = of_prompts and claim.role in (*CARRIERS, "S-inhibition")
    vocabulary = vocabulary.of_texts(some) if of_prompts else vocabulary
    done = edits.check(net, question, claim, some, vocabulary, seed=seed, fixed_end=fixed_end)
    result = StageResult(done.findings, done.edits)
    if of_prompts:
        return result
    swapped = swaps.check(net, question.using("swaps"), claim, some[:SWAPPED], vocabulary, seed=seed, tried=TRIED)
    return joined((result, StageResult(swapped.findings, swapped.edits)))


def _unknown(question: Question, statistic: str) -> Finding:
    role = question.role
    what = f"the words {role!r} claim nothing that can be tested" if role else "no role is claimed"
    why = f"{what}: give a role such as `induction`, `previous token`, `name mover` or `fires on numbers`"
    return question.refused(statistic, 0, why)
