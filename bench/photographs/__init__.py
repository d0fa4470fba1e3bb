"""How well ``xpnet predict`` reads photographs, on pictures made from test images whose label is known."""

SEED = 2024
"""Of the photographs, unless another is given."""
