"""Text to token windows: corpora, documents, windows, token classes, context."""
