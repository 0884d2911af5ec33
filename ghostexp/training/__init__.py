"""How networks are trained: LightningModules, optimizers, schedules, checkpoints, loggers."""
