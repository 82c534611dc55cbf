"""Circuits: sets of components or edges with the role claimed for each, what they were found on, and how well they do.

`circuit` and `files` hold no torch: a circuit is a record that is read and written as YAML. `mask` runs any set of
edges in one forward pass, `choose` finds a circuit from patches in both directions, `scores` says how good it is,
`null` how good a random one of the same size would be. Import what you use.
"""
