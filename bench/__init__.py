"""Benchmarks of xpnet: run ``python -m bench``."""
