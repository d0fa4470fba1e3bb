"""Search for the settings of a training: many runs of ``xpnet train``, whose settings optuna chooses."""
