"""One thin file per verb: `run(config, run_dir) -> dict`. The only place where model, data and training meet."""
