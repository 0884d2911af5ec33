"""The configuration of a run: what each key may be. Imports nothing of the package, and no torch."""
