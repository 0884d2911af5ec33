"""Datamodules, one data set per file; conf/datamodule/ configures them."""
