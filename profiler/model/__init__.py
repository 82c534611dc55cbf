"""A network, and what is read off it: activations, attention, direct logit attribution."""
