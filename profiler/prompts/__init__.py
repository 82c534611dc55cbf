"""Tasks and pairs: clean and corrupted prompts."""
