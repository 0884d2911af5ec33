"""Code shared by tasks; `instantiate` is the only module that builds objects from a configuration."""
