"""What is behind a node and around it: its origins, how they stand, and where clients are."""
