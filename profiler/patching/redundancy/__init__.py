"""Components that stand in for each other: gates, self-repair."""
