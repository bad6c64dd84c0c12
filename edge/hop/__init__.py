"""One owner for each key among the workers of a node, and the way from the others to it."""
