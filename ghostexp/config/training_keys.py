"""Define the keys of optimizer, scheduler, trainer, callbacks and logger: type, range and description."""

from ghostexp.config.key import Key, Keys, array, boolean, choice, integer, number, string

OPTIMIZER: Keys = {
    "lr": number("Peak learning rate.", above=0),
    "momentum": number("Momentum.", least=0, below=1),
    "weight_decay": number("Weight decay.", least=0),
    "nesterov": boolean("Nesterov momentum."),
    "exclude_norm_bias": boolean("No weight decay for biases and norm layers."),
    "alpha": number("Decay rate of the mean of squared gradients.", least=0, below=1),
    "beta1": number("Decay rate of the mean of gradients.", least=0, below=1),
    "beta2": number("Decay rate of the mean of squared gradients.", least=0, below=1),
    "eps": number("Term added to the denominator.", above=0),
}

SCHEDULER: Keys = {
    "warmup_epochs": number("Epochs of linear warm-up, may be a fraction.", least=0),
    "warmup_start_factor": number("Fraction of the peak rate at which the warm-up begins.", least=0, most=1),
    "interval": choice("Update the rate at every step, or once an epoch.", "step", "epoch"),
    "horizon": array(
        "Epochs at which the schedule ends, one after the other; null: at trainer.max_epochs.",
        needed="must be rising epochs that end with trainer.max_epochs",
    ).or_null(),
    "end_factor": number("Fraction of the peak rate at the end.", least=0, most=1),
    "start_factor": number("Fraction of the peak rate at the first step.", least=0, most=1),
    "pct_start": number("Fraction of the training in which the rate rises.", least=0, most=1),
    "milestones": array(
        "Where the rate is multiplied by gamma: epochs, or fractions of the training.",
        needed="must be rising epochs > 0, or fractions of the training",
    ),
    "gamma": number("Factor of the rate at each milestone or step.", least=0, most=1),
    "step_size": number("Epochs between two reductions of the rate, may be a fraction.", above=0),
}

LIMIT = "must be an integer >= 0 (batches), a fraction in [0, 1]"
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "32", "16", "bf16", "64")
PRECISIONS += ("transformer-engine", "transformer-engine-float16")
TRAINER: Keys = {
    "accelerator": string("auto: the GPU if there is one."),
    "devices": Key("Processes, one per device: a number, auto, or a list of GPUs such as [0,2]."),
    "num_nodes": integer("Number of machines.", least=1),
    "strategy": string("Strategy of distributed training.", also=["object"]),
    "precision": choice("Precision of computations and weights.", *PRECISIONS, also=["integer"]),
    "max_epochs": integer("Number of epochs, on which the learning-rate schedule depends.", least=1),
    "gradient_clip_val": number("Maximum norm of the gradient; null: no clipping.", least=0).or_null(),
    "accumulate_grad_batches": integer("Micro-batches per step; datamodule.batch_size is that of the step.", least=1),
    "sync_batchnorm": boolean("Compute BatchNorm statistics over all GPUs."),
    "check_val_every_n_epoch": integer("Epochs between two validations.", least=1).or_null(),
    "limit_train_batches": number(
        "Batches per epoch: a number, or a fraction of all.", least=0, needed=LIMIT
    ).or_null(),
    "limit_val_batches": number(
        "Batches per validation: a number, or a fraction of all.", least=0, needed=LIMIT
    ).or_null(),
    "limit_test_batches": number(
        "Batches of the test: a number, or a fraction of all.", least=0, needed=LIMIT
    ).or_null(),
    "log_every_n_steps": integer("Steps between two rows of training metrics.", least=0).or_null(),
    "deterministic": choice(
        "Deterministic algorithms on a GPU; warn: where there are such.",
        "warn",
        also=["boolean", "null"],
        needed="must be true, false or warn",
    ),
    "benchmark": boolean("Let cuDNN select the fastest algorithms; null: torch's default.").or_null(),
    "detect_anomaly": boolean("Find the operation that produces NaN."),
}

CALLBACKS: Keys = {
    "ema": number(
        "Decay of the exponential moving average of the weights, which is validated and tested; null: off.",
        above=0,
        below=1,
    ).or_null(),
    "patience": integer("Early stopping: epochs without a better validation metric; null: off.", least=1).or_null(),
    "save_every_n_epochs": integer("Epochs between two checkpoints.", least=1).or_null(),
    "save_every_n_steps": integer("Steps between two checkpoints.", least=1).or_null(),
    "save_every_n_minutes": number("Minutes between two checkpoints.", above=0).or_null(),
    "min_seconds_between_saves": number(
        "Seconds within which no second checkpoint is due by epochs; a new best and the last epoch are saved.", least=0
    ),
    "batch_timeout": number("Seconds to wait for a batch before the run ends with an error.", above=0),
    "progress": boolean("Show the progress of a training."),
}

LOGGER: Keys = {
    "project": string("W&B project."),
    "entity": string("W&B team or user; null: your default.").or_null(),
    "group": string("W&B group; null: the name of the sweep that the run is part of.").or_null(),
    "tags": array("Additional tags; model, datamodule and study are always tags.").or_null(),
    "notes": string("W&B notes.").or_null(),
    "offline": boolean("Log to disk only; null: without a W&B key or a connection.").or_null(),
    "log_model": boolean("Upload the tested checkpoint as an artifact."),
}
