"""Fetching: connections to what stands behind this node."""
