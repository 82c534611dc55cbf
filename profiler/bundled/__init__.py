"""The bundled model: its files, the script that trained it, and the scores on its card."""
