"""The processes of a node: its parent, its keeper, its workers, and what they are given."""
