"""The time of a training step, measured, and the least that it must cost."""
