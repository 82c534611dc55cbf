"""What a run knows of its components, in files that other programs read.

`profiles` reads components from the run, `neuronpedia`, `circuit_tracer` and `tables` spell them, `texts` makes tokens
fit for each format, and `write` writes the folder whole.
"""
