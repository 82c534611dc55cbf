"""Task text that the project writes itself: prompts with a known answer, and training text of the same kinds.

Why: circuits are found on such prompts, and whether they generalise is asked on others. Each family keeps wordings
and words that were never trained on. Everything is drawn from a `random.Random` that the caller seeds.
Cost: no torch, no files.

Families: `ioi` (indirect object), `docstring` (next argument), `sequences` (order and greater-than), `repeats`
(repeated random tokens).
"""

from profiler.prompts.tasks.prompt import Prompt, Split, TextPiece

__all__ = ["Prompt", "Split", "TextPiece"]
