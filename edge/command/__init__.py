"""The commands of a node: how they run it, what they ask of it, and what they print."""
