"""Behaviour scores of any causal language model: induction, previous token, indirect object, docstring, language.

Why: before asking whether a component does X everywhere, one must know that the model does X at all. Computed with
plain `transformers`, on held-out data, each with an interval.

    from profiler.bundled.scores import load_scored_model, score
    for row in score(load_scored_model("path/or/name")):
        print(row.behaviour, row.measure, row.estimate.value)
"""

from profiler.bundled.scores.scored_model import ScoredModel, as_scored_model, load_scored_model
from profiler.bundled.scores.table import Score, Size, score
from profiler.statistics import Estimate

__all__ = ["Estimate", "Score", "ScoredModel", "Size", "as_scored_model", "load_scored_model", "score"]
