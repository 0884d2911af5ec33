"""Searches for hyperparameters: trials by Optuna, successive halving, seeds as instances."""
