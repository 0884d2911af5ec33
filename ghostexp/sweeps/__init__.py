"""Run sweeps: compose the grid, check all jobs, schedule them on this machine or on SLURM."""
