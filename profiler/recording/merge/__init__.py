"""Runs over the shards of a corpus become the run of one pass."""
