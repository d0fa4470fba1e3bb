"""How well ``xpnet predict`` reads photographs, on pictures made from test images whose label is known."""
