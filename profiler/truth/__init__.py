"""Models written by hand whose circuits are known exactly, and what `patch` and `check` say of them.

Why: what a procedure is worth shows only where the truth is known. Every model here is a GPT-2 of Hugging Face whose
weights are set by hand so that chosen heads do one thing each and all others nothing; what it answers with any heads
silenced follows from a few lines of plain Python. Read in this order:

1. a model as named features, heads and neurons, and what it answers      sketch.py, models/
2. the same as weights: any size, any seed                                weights.py
3. model directory, tokenizer, pairs, corpus, the truth                   directory.py, circuit.py
4. patch, then check; members and word beside the truth                   evaluate.py, tables.py
5. only what decides members and word; answers kept in a file             decide.py, answer_file.py
"""
