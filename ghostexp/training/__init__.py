"""Train networks: LightningModules, optimizers, learning-rate schedules, callbacks, loggers."""
