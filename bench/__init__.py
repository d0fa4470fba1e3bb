"""What it costs: run ``python -m bench``."""
