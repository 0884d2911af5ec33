"""Tasks, one file each: `run(config, directory)`. The only layer that combines models, data and training."""
