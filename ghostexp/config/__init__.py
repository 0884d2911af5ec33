"""Compose and validate the configuration of a command line, and overlay it on an earlier run."""
