"""Refusing: who a client is, and what it may ask."""
