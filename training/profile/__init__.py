"""Where a step's time goes, and what it must cost at least."""
