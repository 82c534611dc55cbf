"""The distributions of text on which a circuit is asked, nearest to its discovery prompts first."""
