"""What the operations share: geometry, tiling, memory layout, checks, and launching."""
