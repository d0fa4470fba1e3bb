"""A book's API for data, models, optimizers and training loops."""
