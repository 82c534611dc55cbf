"""How the bundled model is made: tokenizer, mixture of windows, plan, loop, export."""
