"""Define every config key of conf/: its type, range and description, written here only."""

from ghostexp.config.key import Key, array, boolean, choice, integer, mapping, number, string

Keys = dict[str, Key]

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
        "Jobs of a sweep that run in parallel; null: one per GPU, or per core, or per trainer.devices of them.", least=1
    ).or_null(),
    "fail_fast": boolean("Stop a sweep at its first failed job."),
    "dry_run": boolean("List the jobs of a sweep with their directories, costs and status, without running them."),
    "output_dir": string("Directory of all runs."),
    "data_dir": string("Directory of the data sets, and of their downloads."),
    "run": string("Directory of an earlier run, whose configuration and weights are used.").or_null(),
    "resume": string("Directory of a run to continue.").or_null(),
    "traceback": boolean("Show errors with their traceback instead of in one line."),
}

LOSS: Keys = {
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

MODEL: Keys = {
    "weights": string(
        "Initial weights: a file, a run directory, https://...#sha256=HEX or timm/NAME from the Hugging Face hub."
    ).or_null(),
    "reset_head": boolean("Load all weights except those of the last linear layer, for other classes."),
    "name": string("Name of the network in its library."),
    "num_classes": integer("Number of classes; taken from the datamodule.", least=1),
    "in_chans": integer("Channels of an image; taken from the datamodule.", least=1),
    "image_size": integer("Image size in pixels; below 32, the first strides are 1.", least=1).or_null(),
    "network": mapping("Network whose convolutions are replaced by ghost modules."),
    "backbone": mapping("Network that computes a detector's feature maps."),
    "ratio": Key(
        "s: 1/s of the output channels are convolved, the rest are ghost maps; 1, or null where allowed: no ghosts.",
        ("integer", "null"),
        "must be an integer >= 1",
        least=1,
    ),
    "dw_size": integer("d: kernel size of the cheap operations, odd.", least=1, odd=True),
    "width": number("alpha: factor of the channels of every layer except the head.", above=0),
    "se_ratio": number("Reduction ratio of squeeze-and-excitation; 0: none.", least=0),
    "num_branches": integer("Parallel convolutions in training, merged into one for inference.", least=1),
    "exclude": array("Convolutions that are not replaced: first, 1x1, or patterns such as layer1.*.", also=["string"]),
    "norm_act": choice(
        "What follows each convolution of a ghost module: none, bn or bn_relu.", "none", "bn", "bn_relu"
    ),
    "shortcut": choice("A: slice and pad, no parameters; B: 1x1 convolution with BatchNorm.", "A", "B"),
    "head": choice("mlp: dropout, 512, ReLU, dropout, linear; linear: dropout, linear.", "mlp", "linear"),
    "bias": boolean("Biases of the convolutions; redundant before BatchNorm, but in the published count."),
    "drop_rate": number("Dropout probability before the last layer.", least=0, below=1),
    "kwargs": mapping("Other arguments of the library's builder.").or_null(),
    "strides": array("Strides of the backbone's feature maps that a detector uses."),
    "fpn_channels": integer("Channels of every pyramid level.", least=1),
    "p6": boolean("Add a proposal level at twice the last stride."),
    "anchor_scale": number("Size of a level's smallest anchors, in strides.", above=0),
    "anchor_ratios": array("Height / width of the anchors.", needed="must be a list of numbers > 0"),
    "freeze_stages": integer("Number of finest feature maps whose layers are frozen.", least=0),
    "freeze_batchnorm": boolean("Freeze the backbone's BatchNorms."),
    "head_norm": boolean("GroupNorm in RetinaNet's heads, for training on few images without pretrained weights."),
    "head_channels": integer("Channels of the two linear layers of the box head.", least=1),
    "rpn_pre_nms_top_n": integer("Anchors of a level kept before non-maximum suppression.", least=1),
    "rpn_post_nms_top_n": integer("Proposals of an image kept after non-maximum suppression.", least=1),
    "box_batch_size_per_image": integer("Proposals sampled per image in training.", least=1),
    "box_score_thresh": number("Minimum score of a detection.", least=0, most=1),
    "box_nms_thresh": number(
        "IoU above which the lower-scored of two detections of a class is removed.", least=0, most=1
    ),
    "box_detections_per_img": integer("Maximum number of detections per image.", least=1),
}

DATAMODULE: Keys = {
    "root": string("Directory of the data set."),
    "download": boolean("Download the data set if it is missing."),
    "num_images": integer("Number of training images; the test set has a quarter as many.", least=1),
    "num_classes": integer("Number of classes; must match the data.", least=1),
    "in_chans": integer("Channels of an image.", least=1),
    "image_size": integer("Image size in pixels; of detection, the shorter side.", least=1),
    "mean": array("Mean of each channel, in [0, 1]; null: that of the data set.").or_null(),
    "std": array("Standard deviation of each channel, in [0, 1]; null: that of the data set.").or_null(),
    "max_size": integer("Maximum of the longer side in pixels; null: no limit.", least=1).or_null(),
    "num_workers": integer(
        "Worker processes that load images; null: as many as CPU threads, the cores of a rank or job.", least=0
    ).or_null(),
    "batch_size": integer("Images per optimizer step, over all devices, nodes and accumulation steps.", least=1),
    "eval_batch_size": integer(
        "Images per batch of a validation or test, over all devices and nodes; null: batch_size.", least=1
    ).or_null(),
    "seed": integer("Seed of shuffling and augmentation.", least=0),
    "validate_on": choice("Validate on the test set, or on a holdout part of the training set.", "test", "holdout"),
    "split_seed": integer("Seed of the holdout split and of train_fraction, independent of seed.", least=0),
    "holdout_fraction": number("Fraction of the training set held out with validate_on=holdout.", above=0, below=1),
    "train_fraction": number("Fraction of the training set used for training.", above=0, most=1),
    "keep_empty": boolean("Train on images without boxes too."),
    "aspect_ratio_grouping": boolean("Batch wide and tall images separately, which needs less padding."),
    "train_folder": string("Folder of the training images, relative to root."),
    "train_file": string("File of the training annotations, relative to root."),
    "test_folder": string("Folder of the test images, relative to root."),
    "test_file": string("File of the test annotations, relative to root."),
    "crop_padding": integer("Zero padding of random crops, in pixels.", least=0),
    "shift": integer("Maximum random translation, in pixels.", least=0),
    "hflip": boolean("Random horizontal flip."),
    "random_erasing": number("Probability of random erasing.", least=0, most=1),
    "randaugment_num_ops": integer("RandAugment operations per image.", least=0),
    "randaugment_magnitude": integer("RandAugment magnitude.", least=0),
    "mixup_alpha": number("Mixup alpha; 0: off.", least=0),
    "cutmix_alpha": number("CutMix alpha; 0: off; with Mixup, each is applied with probability 1/2.", least=0),
    "scale_jitter": number("Random scaling: 0.25 scales an image by 1/1.25 to 1.25.", least=0, most=4),
}

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
    "progress": boolean("Show the progress of a training."),
}

LOGGER: Keys = {
    "project": string("W&B project."),
    "entity": string("W&B team or user; null: your default.").or_null(),
    "group": string("W&B group; null: the name of the sweep that the run is part of.").or_null(),
    "tags": array("Additional tags; model, datamodule and study are always tags.").or_null(),
    "notes": string("W&B notes.").or_null(),
    "offline": boolean("Log to disk only; null: if there is no W&B key.").or_null(),
    "log_model": boolean("Upload the tested checkpoint as an artifact."),
}

CHECKPOINT = choice(
    "Checkpoint to load: best or last; null: the one that the run itself tested.",
    "best",
    "last",
    needed="must be best, last or null",
    also=["null"],
)
RUNS = Key(
    "Run directories, directories that contain some, or globs; null: those in OUTPUT_DIR/NAME.",
    ("array", "string", "null"),
    "must be a directory, a glob, or a list of them",
)
BASELINE = mapping(
    "Values of the baseline, with which each variant is compared by seed.",
    needed="must be a mapping such as {model.ratio:1}",
).or_null()
TITLE = string("Title of the report; null: study, network and data.").or_null()
NAME = {"name": string("Name of the task.")}
INTEGERS = "must be an integer >= 1, or a list of such"
TASKS: dict[str, Keys] = {
    "fit": {},
    "test": {"checkpoint": CHECKPOINT},
    "predict": {
        "input": string("Image file, folder with images (recursive), or glob."),
        "top_k": integer("Classification: number of classes shown per image.", least=1),
        "checkpoint": CHECKPOINT,
        "score_threshold": number("Detection: minimum score of a box in the pictures.", least=0, most=1),
    },
    "profile": {
        "modes": array("Flags joined by +: eager, fused, bf16, channels_last, compiled.", also=["string"]),
        "batch_sizes": array("Images per batch.", needed=INTEGERS, also=["integer"]),
        "repeats": integer("Measurements of every mode, in turn.", least=1),
        "top_layers": integer("Number of most expensive layers shown on the terminal.", least=1),
        "show_flops": boolean("Show the counts by other conventions too."),
        "checkpoint": CHECKPOINT,
    },
    "visualize": {
        "layers": array("Layer names or patterns; null: three, spread over the depth.", also=["string"]).or_null(),
        "num_images": integer("Test images for the statistics, spread over the test set.", least=1),
        "num_shown": integer("Images in the figures.", least=1),
        "checkpoint": CHECKPOINT,
    },
    "export": {
        "formats": array("Formats: onnx, torch, safetensors.", also=["string"]),
        "num_check_images": integer(
            "Test images on which each file is compared with the network; 0: none, no data needed.", least=0
        ),
        "license": string("License of the weights.").or_null(),
        "checkpoint": CHECKPOINT,
    },
    "report": {
        "runs": RUNS,
        "output_dir": string("Directory of the report; null: report/ beside the runs.").or_null(),
        "title": TITLE,
        "baseline": BASELINE,
    },
    "dashboard": {"runs": RUNS, "title": TITLE, "baseline": BASELINE},
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
        "monitor": "it is the validation metric",
    },
    "logger": {"run": "use output_dir= and name=, or hydra.run.dir="},
    "optimizer": {"network": "it is model"},
    "scheduler": {"epochs": "use trainer.max_epochs", "steps_per_epoch": "use datamodule.batch_size"},
}
