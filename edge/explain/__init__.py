"""Explaining: what a node would do with a request, and why, without doing it."""
