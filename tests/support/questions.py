"""Questions about one component, as a check asks them, for tests of a single technique."""

from typing import Any

from profiler.generality.evidence.finding import Question, Technique


def question(component: str, role: str, technique: Technique, distribution: str = "corpus", **fields: Any) -> Question:
    """A question on running text, unless `fields` says otherwise."""
    given = {"unit": "documents", "shares": ("data corpus",), **fields}
    return Question(component, role, technique, distribution, **given)
