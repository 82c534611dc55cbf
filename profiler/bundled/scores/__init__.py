"""Behaviour scores of any causal language model: induction, previous token, indirect object, docstring, language.

Why: before asking whether a component does X everywhere, one must know that the model does X at all. Computed with
plain `transformers`, on held-out data, each with an interval.

    from profiler.bundled.scores import load_subject, score
    for row in score(load_subject("path/or/name")):
        print(row.behaviour, row.measure, row.estimate.value)
"""

from profiler.bundled.scores.subject import Subject, load_subject, subject_of
from profiler.bundled.scores.table import Score, Size, score
from profiler.statistics import Estimate

__all__ = ["Estimate", "Score", "Size", "Subject", "load_subject", "score", "subject_of"]
