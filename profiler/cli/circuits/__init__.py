"""Commands about circuits: prompts, patching, paths, checks, predictions, and circuits that are known."""
