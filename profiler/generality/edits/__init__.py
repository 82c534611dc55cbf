"""Edits of the text that a role says matter, beside control edits, and token swaps that break a role."""
