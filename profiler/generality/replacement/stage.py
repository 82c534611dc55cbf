"""The stage of a check that replaces every member of a circuit by the rule that its role's words claim.

Why two versions of a rule about attention: said strictly, an induction head gives all its attention to the rule's
places; said fairly, as much as it does on average in other documents (`_calibrated`), one number fitted. The ledger's
`explained` is the fair one; the strict one stands beside it, and both have rows by percentile of importance.

Cost: see `replacement`; TOKENS and FIT_TOKENS bound it.
"""

from dataclasses import replace
from typing import Any

from profiler.circuits.circuit import Member
from profiler.errors import PatchError
from profiler.generality.distributions.subject import Subject
from profiler.generality.evidence.distributions import CORPUS
from profiler.generality.evidence.finding import Finding, refused
from profiler.generality.replacement.copy_rules import BUILT_IN
from profiler.generality.replacement.explain import examine
from profiler.generality.replacement.rows import Explained
from profiler.generality.replacement.rules import rule_of_role
from profiler.generality.replacement.text import of_windows
from profiler.generality.replacement.view import Claimed
from profiler.patching.sites import parse_target

TOKENS, FIT_TOKENS = 12_000, 5_000
STRICT = "explained, all attention on the rule's places"


def findings(subject: Subject) -> tuple[Any, ...]:
    """Findings and Replacement rows of every member; a member that no rule stands for is refused and says why."""
    members = subject.general.members
    claims = [claim for member in members for claim in claims_of(member)]
    refusals = [_refusal(member) for member in members if not claims_of(member)]
    if not claims:
        return tuple(refusals)
    texts = of_windows(subject.model, subject.text.windows, subject.text.layout, TOKENS, FIT_TOKENS)
    if not texts.n_positions or not texts.fitting:
        why = "the run has no corpus to replace components on"
        return (*refusals, *(_refused(c.target.label, c.role, why) for c in claims))
    found = examine(subject.net, texts, claims, seed=subject.settings.seed, say=subject.report)
    return (*refusals, *(row for one in found for row in rows_of(one)))


def claims_of(member: Member) -> list[Claimed]:
    """A member's role as rules: attention as calibrated first, and as said; none where the words claim nothing
    known."""
    name = rule_of_role(member.role, member.component)
    if not name:
        return []
    try:
        target = parse_target(member.component)
    except PatchError:
        return []
    if target.site not in ("head", "neuron"):
        return []
    names = [f"{name}_calibrated", name] if f"{name}_calibrated" in BUILT_IN else [name]
    return [Claimed(target, BUILT_IN[one], member.role, alone=i > 0) for i, one in enumerate(names)]


def rows_of(one: Explained) -> tuple[Any, ...]:
    """Findings and rows; of a strict rule that has a calibrated one beside it, the share alone, under a name of its
    own."""
    if f"{one.rule}_calibrated" not in BUILT_IN:
        return (*one.findings(CORPUS), *one.rows)
    first = one.findings(CORPUS)[0]
    return (replace(first, statistic=STRICT), *one.rows)


def _refusal(member: Member) -> Finding:
    what = f"the role {member.role!r}" if member.role else "a member without a role"
    return _refused(
        member.component, member.role, f"no built-in rule stands for {what}: give a function to replacement.explain"
    )


def _refused(component: str, role: str, why: str) -> Finding:
    return refused(component, role, "replacement", CORPUS, "explained", 0, "documents", why)
