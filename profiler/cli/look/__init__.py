"""Commands that look at components of a run: on a text, and by what they do."""
