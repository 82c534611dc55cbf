"""How much of the model a circuit keeps: on prompts, on running text, on other tasks."""
