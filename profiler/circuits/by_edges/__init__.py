"""Circuits by edges: chosen, judged, compared at fixed fractions, and single paths."""
