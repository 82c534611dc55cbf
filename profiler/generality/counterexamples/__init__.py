"""Positions of the corpus at which a role is wrong, found by importance, with rates."""
