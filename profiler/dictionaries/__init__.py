"""Dictionaries of features, directions and subspaces: their files read, encoded and decoded. No model here."""
