"""Benchmarks that ``bench/on_gpu.sh`` runs beside the other commands, and the table at its end."""
