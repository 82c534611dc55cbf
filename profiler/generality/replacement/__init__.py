"""A component replaced by what is said of it, and how much of its effect that explains."""
