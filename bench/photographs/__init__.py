"""Measure how well ``xpnet predict`` reads photographs, with pictures drawn from labelled test images."""

SEED = 2024
"""The default seed of the photographs."""
