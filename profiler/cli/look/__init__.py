"""Commands that look at components of a run: on a text, by what they do, through others, beside another run."""
