"""The training loop's surroundings: the folder of a run, its lock, and how a run stops."""
