"""The pass: read pipeline.py first."""
