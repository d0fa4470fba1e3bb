"""Shared code of the operations: geometry, tiling, memory layout, checks, and launching."""
