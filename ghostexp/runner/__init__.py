"""Run the task of a composed configuration in one or more processes."""
