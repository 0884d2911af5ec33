"""From a composed configuration to processes that run its task."""
