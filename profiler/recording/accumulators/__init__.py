"""Mergeable statistics. Each accumulator is a monoid: it starts empty, takes batches, and merges with another; merging
equals having seen everything. Memory depends on components, classes, bins and sample sizes, never on the corpus."""
