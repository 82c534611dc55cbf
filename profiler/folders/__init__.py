"""Folders on disk that belong to one process at a time, and that appear whole."""
