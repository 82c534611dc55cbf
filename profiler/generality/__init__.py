"""Does a circuit do off the prompts it was found on what it does on them? Distributions, replacement, counter-examples,
verdict."""
