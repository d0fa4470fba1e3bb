"""The training loop: trainer, callbacks, evaluation, and the folder of a run."""
