"""Patching in both directions: interventions on a model's own parts, and what they do to its answer.

`setting` runs a set of pairs, `sweep` runs many interventions from cached prefixes, `effects` turns them into recovered
and lost shares, `redundancy` and `attribution` ask what a single number hides, `experiment_store` writes it all into a
run. Needs torch; import what you use.
"""
