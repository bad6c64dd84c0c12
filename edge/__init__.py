"""A caching CDN edge node: it speaks HTTP, remembers answers, and tells why."""

__version__ = "0.1.0"
