"""The command line and its configuration: compose, check, overlay on an earlier run."""
