"""Gradients of what a model predicts by what its units did."""
