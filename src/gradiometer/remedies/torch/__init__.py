"""Remedies for a user's own model of PyTorch."""
