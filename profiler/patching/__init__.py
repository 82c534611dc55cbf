"""Patching in both directions: interventions on a model's own parts, and what they do to its answer.

`bridge` reads a model's weights, `network` is a plain forward pass with a place to intervene at every site, `sweep`
runs many interventions from cached prefixes, `effects` turns them into recovered and lost shares, `redundancy`,
`repair` and `attribution` ask what a single number hides. Needs torch; import what you use.
"""
