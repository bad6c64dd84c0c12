"""What tools/bench measures, and what it measures with."""
