"""Where chunks are read when not in this process. An engine is a function from a pass to pieces of it, in order."""
