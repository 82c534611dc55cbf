"""Circuits: sets of components or edges with the role claimed for each, what they were found on, and how well they do.

`circuit` and `yaml_files` hold no torch: a circuit is a record that is read and written as YAML. `edge_mask` runs any
set of edges in one forward pass, `choose` finds a circuit from patches in both directions, `scoring` says how good it
is, and how good a random circuit of the same size would be; `experiment` does all of it. Import what you use.
"""
