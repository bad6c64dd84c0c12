"""Content codings: which to send, where they pay, how they are made and undone (RFC 9110 §8.4)."""
