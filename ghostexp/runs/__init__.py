"""A run's directory: its name, what it says, and how it ended. No torch here, so that reports open at once."""
