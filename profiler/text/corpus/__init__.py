"""Documents from a corpus, streaming, in seeded shuffled order, with their ids kept.

A corpus is named `stdlib` (the bundled one), by local files, a pattern of them or a folder
(profiler.text.corpus.names), or as a dataset of the hub, `hf:name[:config][:split]` (profiler.text.corpus.hub), each
optionally with a name of its own before it (`plays=shakespeare.txt`). Several corpora take turns, document by document,
and each is a domain unless --domain-field says otherwise.

    names (what was written) -> formats (a file's rows) or hub -> fields (a row's text) -> stream (shuffled documents)
                                   decoding (bytes to text)       chat (conversations to text)
"""

from profiler.text.corpus.names import is_stdlib
from profiler.text.corpus.stream import Document, check, documents

__all__ = ["Document", "check", "documents", "is_stdlib"]
