"""Code shared by tasks; `instantiate` builds the objects of a configuration, with `nodes` and the `build_` modules."""
