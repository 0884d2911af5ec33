"""What tasks share; `instantiate` is the only place that builds objects from a configuration."""
