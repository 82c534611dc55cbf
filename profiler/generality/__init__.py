"""Tests of a circuit off the prompts it was found on: distributions, roles, replacement, counter-examples, edits."""
