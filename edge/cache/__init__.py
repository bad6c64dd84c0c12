"""Remembering: what may be stored and reused (RFC 9111), and the tiers that hold it."""
