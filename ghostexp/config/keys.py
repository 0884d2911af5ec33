"""Define every config key of conf/: its type, range and description; larger groups have a file of their own."""

from ghostexp.config.datamodule_keys import DATAMODULE
from ghostexp.config.key import Key, Keys, array, boolean, choice, integer, mapping, number, string
from ghostexp.config.model_keys import MODEL
from ghostexp.config.training_keys import CALLBACKS, LOGGER, OPTIMIZER, SCHEDULER, TRAINER

ROOT: Keys = {
    "seed": integer("Seed of weight initialisation, shuffling and augmentation.", least=0),
    "name": string("Run directory is OUTPUT_DIR/NAME/TIME; null: the recipe's name, or MODEL_DATAMODULE.").or_null(),
    "model": mapping("Network: python -m ghostexp model=ghostnet."),
    "datamodule": mapping("Data set, batches and augmentation: python -m ghostexp datamodule=cifar10."),
    "optimizer": mapping("Optimizer: python -m ghostexp optimizer=adamw."),
    "scheduler": mapping("Learning-rate schedule: python -m ghostexp scheduler=cosine."),
    "trainer": mapping("Arguments of Lightning's Trainer."),
    "callbacks": mapping("Checkpoints, early stopping, weight averaging and progress bar."),
    "logger": mapping("Where metrics are logged: python -m ghostexp logger=wandb."),
    "task": mapping("What to run: python -m ghostexp task=test run=DIR."),
    "loss": mapping("Loss of a classifier."),
    "metrics": mapping("More metrics of a classifier: python -m ghostexp metrics.f1._target_=..."),
    "monitor": string(
        "Metric that selects the best epoch and compares runs; null: acc1, or map of a detector."
    ).or_null(),
    "lightning_module": mapping("LightningModule; null: that of a classifier or a detector.").or_null(),
    "channels_last": boolean("Memory format of images and weights: changes speed, not results."),
    "tf32": boolean("TensorFloat-32 in float32 convolutions and products on a GPU: faster, rounds to 10 bits."),
    "compile": choice(
        "Compile the network with torch.compile: false, true or a mode of it; changes speed, not results.",
        "default",
        "reduce-overhead",
        "max-autotune",
        "max-autotune-no-cudagraphs",
        also=["boolean"],
        needed="must be true, false, default, reduce-overhead, max-autotune or max-autotune-no-cudagraphs",
    ),
    "threads": integer(
        "CPU threads of this run; null: torch's default, divided among the processes of one machine.", least=1
    ).or_null(),
    "n_jobs": integer(
        "Jobs of a sweep in parallel; null: one per GPU, core or trainer.devices of them, or slurm_array_parallelism.",
        least=1,
    ).or_null(),
    "fail_fast": boolean("Stop a sweep at its first failed job."),
    "dry_run": boolean("List the jobs of a sweep with their directories, costs and status, without running them."),
    "search": mapping("Search for hyperparameters: python -m ghostexp -m search=tpe ...").or_null(),
    "output_dir": string("Directory of all runs."),
    "data_dir": string("Directory of the data sets, and of their downloads."),
    "run": string("Directory of an earlier run, whose configuration and weights are used.").or_null(),
    "resume": string("Directory of a run to continue.").or_null(),
    "allow": array(
        "Packages that the configuration of run= or resume= may call, beside ghostexp and those that it is built on.",
        also=["string"],
    ),
    "traceback": boolean("Show errors with their traceback instead of in one line."),
}

LOSS: Keys = {
    "_target_": string("Class of a loss of logits and targets, called with the keys beside it."),
    "label_smoothing": number("Fraction of the target distributed over all classes.", least=0, below=1),
    "distill": mapping("Knowledge distillation from a trained teacher (arXiv 1503.02531)."),
}
DISTILL: Keys = {
    "teacher": Key(
        "Run directory of the teacher, or a model with weights; null: no distillation.",
        ("string", "object", "null"),
        "must be a run directory, a model with weights or null",
    ),
    "temperature": number("Divisor of the logits of teacher and student.", above=0),
    "weight": number("Weight of the distillation loss; the loss on the labels has 1 - weight.", least=0, most=1),
}

SWEEPER: Keys = {
    "params": mapping("Grid of a study: values by key, as typed after -m."),
    "baseline_grid": mapping("Grid of the baseline."),
    "report_baseline": mapping("Default of task.baseline in a report on the study.").or_null(),
}

LAUNCHER: Keys = {
    "backend": choice("Local processes, submitit on this machine, or SLURM.", "local", "submitit", "slurm"),
    "gpus": boolean("One GPU per process; false: run on CPUs."),
    "timeout_min": integer("Time limit of a job in minutes.", least=1),
    "cpus_per_task": integer("Cores per process.", least=1),
    "mem_gb": number("Memory of a job in GB; null: SLURM's default.", above=0).or_null(),
    "slurm_partition": string("SLURM partition; null: the default.").or_null(),
    "slurm_array_parallelism": integer("Maximum number of jobs that run at the same time.", least=1),
    "slurm_signal_delay_s": integer("Seconds before the time limit, to save and requeue.", least=0),
    "slurm_additional_parameters": mapping("Other parameters of sbatch.").or_null(),
    "slurm_srun_args": array("Arguments of srun."),
    "slurm_setup": array("Shell commands that run before the job.").or_null(),
}

GROUPS: dict[str, Keys] = {
    "model": MODEL,
    "datamodule": DATAMODULE,
    "optimizer": OPTIMIZER,
    "scheduler": SCHEDULER,
    "trainer": TRAINER,
    "callbacks": CALLBACKS,
    "logger": LOGGER,
}

# Arguments of a group's targets that the program sets itself, and what to use instead.
SET_HERE: dict[str, dict[str, str]] = {
    "trainer": {
        "callbacks": "use callbacks.ema, callbacks.patience and the others of conf/callbacks",
        "logger": "use logger=csv, wandb, tensorboard or none",
        "plugins": "use trainer.precision and trainer.strategy",
        "default_root_dir": "use output_dir= and name=, or hydra.run.dir=",
        "num_sanity_val_steps": "no validation runs before the training; use debug=default for a quick check",
        "use_distributed_sampler": "the datamodules divide their batches among the devices themselves",
        "enable_checkpointing": "use callbacks.save_every_n_epochs, _steps or _minutes",
        "enable_progress_bar": "use callbacks.progress",
        "enable_model_summary": "use task=profile",
    },
    "callbacks": {
        "folder": "checkpoints are written to the run directory; use output_dir= and name=, or hydra.run.dir=",
        "monitor": "use monitor=NAME",
        "mode": "it is that of the metric, monitor=NAME",
        "pause_after": "use search.rungs",
    },
    "logger": {"run": "use output_dir= and name=, or hydra.run.dir="},
    "optimizer": {"network": "it is model", "params": "they are those of model"},
    "scheduler": {
        "optimizer": "it is optimizer",
        "epochs": "use trainer.max_epochs",
        "steps_per_epoch": "use datamodule.batch_size",
    },
}
