"""The parts of a component card."""
