"""The stage of a check that replaces every member of a circuit by the rule that its role's words claim.

Why two versions of a rule about attention: said strictly, an induction head gives all its attention to the rule's
places; said fairly, as much as it does on average in other documents (`_calibrated`), one number fitted. The ledger's
`explained` is the fair one; the strict one stands beside it, and both have rows by percentile of importance.

Cost: see explain.py; TOKENS and FIT_TOKENS bound it.
"""

from profiler.circuits.circuit import Member
from profiler.errors import PatchError
from profiler.generality.distributions.subject import CheckSubject
from profiler.generality.evidence.finding import Question, StageResult, joined
from profiler.generality.replacement.copy_rules import BUILT_IN
from profiler.generality.replacement.explain import examine
from profiler.generality.replacement.rows import Explained
from profiler.generality.replacement.rules import rule_of_role
from profiler.generality.replacement.text import of_windows
from profiler.generality.replacement.view import ClaimedRule
from profiler.patching.sites import parse_target

TOKENS, FIT_TOKENS = 12_000, 5_000
STRICT = "explained, all attention on the rule's positions"


def findings(subject: CheckSubject) -> StageResult:
    """Findings and Replacement rows of every member; a member that no rule stands for is refused and says why."""
    members = subject.general.members
    claims = [claim for member in members for claim in claims_of(member)]
    refusals = [
        _question(subject, member.component, member.role).refused("explained", 0, _why_no_rule(member.role))
        for member in members
        if not claims_of(member)
    ]
    if not claims:
        return StageResult(tuple(refusals))
    questions = [_question(subject, claim.target.label, claim.role) for claim in claims]
    texts = of_windows(subject.model, subject.text.windows, subject.text.layout, TOKENS, FIT_TOKENS)
    if not texts.n_positions or not texts.fitting:
        why = "the run has no corpus to replace components on"
        return StageResult((*refusals, *(question.refused("explained", 0, why) for question in questions)))
    settings = subject.settings
    explained = examine(
        subject.net, texts, claims, seed=settings.seed, say=subject.report, thresholds=settings.thresholds
    )
    return joined((result_of(*pair) for pair in zip(questions, explained, strict=True)), refusals)


def _question(subject: CheckSubject, component: str, role: str) -> Question:
    return subject.question("replacement", subject.corpus, component, role)


def claims_of(member: Member) -> list[ClaimedRule]:
    """A member's role as rules: attention calibrated, then as said; none where the words claim nothing known."""
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
    return [ClaimedRule(target, BUILT_IN[rule], member.role, alone=i > 0) for i, rule in enumerate(names)]


def result_of(question: Question, explained: Explained) -> StageResult:
    """Findings and rows; of a strict rule that has a calibrated one beside it, the share alone, under its own name."""
    if f"{explained.rule}_calibrated" not in BUILT_IN:
        return StageResult(explained.findings(question), explained.rows)
    return StageResult((explained.share_finding(question, statistic=STRICT),), explained.rows)


def _why_no_rule(role: str) -> str:
    what = f"the role {role!r}" if role else "a member without a role"
    return f"no built-in rule stands for {what}: give a function to profiler.generality.replacement.explain"
