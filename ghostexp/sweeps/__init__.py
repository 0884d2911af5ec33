"""Many runs: the grid, the check before the first job, the scheduler, SLURM."""
