"""Every key that stands in conf/: what it may be, and one sentence about it. The one place where this is written."""

from ghostexp.config.key import Key, array, boolean, choice, integer, mapping, number, string

Keys = dict[str, Key]

ROOT: Keys = {
    "seed": integer("Of weights, order and augmentation.", least=0),
    "name": string(
        "The run's directory is OUTPUT_DIR/NAME/TIME; null: the recipe's name, or MODEL_DATAMODULE."
    ).or_null(),
    "model": mapping("The network: python -m ghostexp model=ghostnet."),
    "datamodule": mapping("The data: python -m ghostexp datamodule=cifar10."),
    "optimizer": mapping("The optimizer: python -m ghostexp optimizer=adamw."),
    "scheduler": mapping("The schedule of the learning rate: python -m ghostexp scheduler=cosine."),
    "trainer": mapping("Lightning's Trainer."),
    "callbacks": mapping("What watches the training."),
    "logger": mapping("Where metrics go: python -m ghostexp logger=wandb."),
    "task": mapping("What to do: python -m ghostexp task=test run=DIR."),
    "loss": mapping("The loss of a classifier."),
    "channels_last": boolean("Memory format of images and weights: speed, not result."),
    "compile": boolean("Compile the network with torch.compile: speed, not result."),
    "threads": integer(
        "CPU threads of this run; null: torch's choice, divided among the processes of one machine.",
        least=1,
        needed="a number >= 1 is needed",
    ).or_null(),
    "n_jobs": integer(
        "Jobs of a sweep side by side; null: one for each GPU, or core, or set of trainer.devices of them.",
        least=1,
        needed="a number >= 1 is needed",
    ).or_null(),
    "fail_fast": boolean("The first job of a sweep that fails stops the others."),
    "dry_run": boolean("Show the jobs of a sweep, their directories, costs and states, and run nothing."),
    "output_dir": string("Where runs go."),
    "data_dir": string("Where data sets are, or are downloaded to."),
    "run": string("An earlier run, whose configuration and weights are taken.").or_null(),
    "resume": string("A run to continue.").or_null(),
    "traceback": boolean("Show errors with their traceback instead of one line."),
}

LOSS: Keys = {
    "label_smoothing": number("Share of the target that is spread over all classes.", least=0, below=1),
    "distill": mapping("Learning from the logits of a trained network too (arXiv 1503.02531)."),
}
DISTILL: Keys = {
    "teacher": Key(
        "A run's directory, or a model with weights.",
        ("string", "object", "null"),
        "a run's directory, a model with weights, or null, is needed",
    ),
    "temperature": number("Both networks' logits are divided by it.", above=0),
    "weight": number("Of the teacher's loss; the labels' has the rest.", least=0, most=1),
}

MODEL: Keys = {
    "weights": string(
        "Start from weights: a file, a run's directory, https://...#sha256=HEX or timm/NAME from the Hugging Face hub."
    ).or_null(),
    "reset_head": boolean("Load all weights but the last linear layer's, for other classes."),
    "name": string("The network's name in its library."),
    "num_classes": integer("Classes; the datamodule's.", least=1),
    "in_chans": integer("Channels of an image; the datamodule's.", least=1),
    "image_size": integer("Side of an image; below 32, first strides are left out.", least=1).or_null(),
    "network": mapping("The network whose convolutions become ghost modules."),
    "backbone": mapping("The network that makes a detector's feature maps."),
    "ratio": Key(
        "s: one map in `ratio` is convolved, the others are its ghosts; 1, or null where it may be: no ghosts.",
        ("integer", "null"),
        "a whole number >= 1 is needed",
        least=1,
    ),
    "dw_size": integer("d: side of the cheap filters, odd.", least=1, odd=True),
    "width": number("alpha: scales the channels of every layer but the head.", above=0),
    "se_ratio": number("Squeeze-and-excitation; 0: nowhere.", least=0),
    "num_branches": integer("Convolutions that are summed up in training for each one in inference.", least=1),
    "exclude": array("Convolutions that stay ordinary: first, 1x1, or patterns such as layer1.*.", also=["string"]),
    "norm_act": choice(
        "What follows each convolution of a ghost module: none, bn, or bn_relu.", "none", "bn", "bn_relu"
    ),
    "shortcut": choice("A: slice and pad, no parameters; B: 1x1 convolution with BatchNorm.", "A", "B"),
    "head": choice("mlp: dropout, 512, ReLU, dropout, linear; linear: dropout, linear.", "mlp", "linear"),
    "bias": boolean("Biases of the convolutions; idle before BatchNorm, but in the published count."),
    "drop_rate": number("Probability of dropout before the last layer.", least=0, below=1),
    "kwargs": mapping("What else the library's builder takes, by name.").or_null(),
    "strides": array("Strides of the backbone's maps that a detector uses."),
    "fpn_channels": integer("Channels of every level of the pyramid.", least=1),
    "p6": boolean("Proposals at twice the last stride, too."),
    "anchor_scale": number("Side of a level's smallest anchors, in strides.", above=0),
    "anchor_ratios": array("Height / width of the anchors.", needed="numbers > 0, in brackets, are needed"),
    "freeze_stages": integer("So many of the finest maps, and all that feeds them, get no gradient.", least=0),
    "freeze_batchnorm": boolean("The backbone's BatchNorms stay as they were loaded."),
    "head_norm": boolean("GroupNorm in RetinaNet's heads, to learn from few images without pretrained weights."),
    "head_channels": integer("Of the two layers that look at a proposal.", least=1),
    "rpn_pre_nms_top_n": integer("Of a level's anchors, those that may become proposals.", least=1),
    "rpn_post_nms_top_n": integer("Proposals of an image.", least=1),
    "box_batch_size_per_image": integer("Proposals of an image that training samples.", least=1),
    "box_score_thresh": number("Detections below are left out.", least=0, most=1),
    "box_nms_thresh": number("Of two detections of a class that overlap more, the better one stays.", least=0, most=1),
    "box_detections_per_img": integer("Detections of an image, at most.", least=1),
}

DATAMODULE: Keys = {
    "root": string("Directory of the data."),
    "download": boolean("Download the data if nothing is there."),
    "num_images": integer("Images to train; a quarter as many to test.", least=1),
    "num_classes": integer("Classes; has to be that of the data.", least=1),
    "in_chans": integer("Channels of an image.", least=1),
    "image_size": integer("Side of an image; of a detector, the shorter side.", least=1),
    "mean": array("Of each channel, in [0, 1]; null: the data's own.").or_null(),
    "std": array("Of each channel, in [0, 1]; null: the data's own.").or_null(),
    "max_size": integer("What the longer side is kept to; null: no limit.", least=1).or_null(),
    "num_workers": integer("Processes that read images.", least=0),
    "batch_size": integer("Over all devices, nodes and accumulation steps.", least=1),
    "seed": integer("Of order and augmentation.", least=0),
    "validate_on": choice(
        "What is validated on: the test set, or a holdout part of the training set.",
        "test",
        "holdout",
    ),
    "split_seed": integer("Where the splits lie, whatever seed is.", least=0),
    "holdout_fraction": number("Of the training set, with validate_on=holdout.", above=0, below=1),
    "train_fraction": number("Of the training set that is trained on.", above=0, most=1),
    "keep_empty": boolean("Train on images without boxes too."),
    "aspect_ratio_grouping": boolean("Batches of images that are all wide or all tall, which takes less padding."),
    "train_folder": string("Images to train on, below root."),
    "train_file": string("Annotations to train on, below root."),
    "test_folder": string("Images of the test, below root."),
    "test_file": string("Annotations of the test, below root."),
    "crop_padding": integer("Pixels of zero-padding for random crops.", least=0),
    "shift": integer("Pixels, up to which an image is moved.", least=0),
    "hflip": boolean("Left and right, at random."),
    "random_erasing": number("Probability of erasing a box.", least=0, most=1),
    "randaugment_num_ops": integer("RandAugment's operations for each image.", least=0),
    "randaugment_magnitude": integer("RandAugment's magnitude.", least=0),
    "mixup_alpha": number("Mixup's alpha.", least=0),
    "cutmix_alpha": number("CutMix's alpha; with Mixup too, either at even odds.", least=0),
    "scale_jitter": number("0.25: the scale of an image is varied from 1/1.25 to 1.25.", least=0, most=4),
}

OPTIMIZER: Keys = {
    "lr": number("Peak learning rate.", above=0),
    "momentum": number("Momentum.", least=0, below=1),
    "weight_decay": number("Weight decay.", least=0),
    "nesterov": boolean("Nesterov's momentum."),
    "exclude_norm_bias": boolean("No weight decay for biases and norms."),
    "alpha": number("Decay of the mean of squares.", least=0, below=1),
    "beta1": number("Decay of the mean of gradients.", least=0, below=1),
    "beta2": number("Decay of the mean of squares.", least=0, below=1),
    "eps": number("Added to the denominator.", above=0),
}

SCHEDULER: Keys = {
    "warmup_epochs": number("Epochs of linear warm-up, may be a fraction.", least=0),
    "warmup_start_factor": number("Fraction of the peak rate at which the warm-up begins.", least=0, most=1),
    "interval": choice("The rate moves with every step, or once an epoch.", "step", "epoch", needed="step or epoch"),
    "end_factor": number("Fraction of the peak rate at the end.", least=0, most=1),
    "start_factor": number("Fraction of the peak rate at the first step.", least=0, most=1),
    "pct_start": number("Fraction of the training in which the rate rises.", least=0, most=1),
    "milestones": array(
        "Where the rate falls: epochs, or shares of the training.", needed="rising epochs > 0 are needed"
    ),
    "gamma": number("What the rate is multiplied by when it falls.", least=0, most=1),
    "step_size": number(
        "Epochs between two falls, may be a fraction.", above=0, needed="a number of epochs > 0 is needed"
    ),
}

LIMIT = "a number of batches, or a fraction in [0, 1], is needed"
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "32", "16", "bf16", "64")
PRECISIONS += ("transformer-engine", "transformer-engine-float16")
TRAINER: Keys = {
    "accelerator": string("auto: the GPU when there is one."),
    "devices": Key("Processes, one for each device: a number, auto, or a list of GPUs such as [0,2]."),
    "num_nodes": integer("Machines.", least=1),
    "strategy": string("How processes share a training.", also=["object"]),
    "precision": choice("Of computations and weights.", *PRECISIONS, also=["integer"]),
    "max_epochs": integer("Epochs; schedules are made for them.", least=1),
    "gradient_clip_val": number("Norm to which the whole gradient is clipped; null: not.", least=0).or_null(),
    "accumulate_grad_batches": integer(
        "Micro-batches in a step; datamodule.batch_size stays that of the step.", least=1
    ),
    "sync_batchnorm": boolean("BatchNorm's statistics over all GPUs."),
    "check_val_every_n_epoch": integer("Epochs between two validations.", least=1).or_null(),
    "limit_train_batches": number(
        "Batches in an epoch: a number, or a fraction of all.", least=0, needed=LIMIT
    ).or_null(),
    "limit_val_batches": number(
        "Batches of a validation: a number, or a fraction of all.", least=0, needed=LIMIT
    ).or_null(),
    "limit_test_batches": number(
        "Batches of the test: a number, or a fraction of all.", least=0, needed=LIMIT
    ).or_null(),
    "log_every_n_steps": integer("Steps between two rows of training metrics.", least=0).or_null(),
    "deterministic": choice(
        "Algorithms whose bits do not vary on a GPU.",
        "warn",
        also=["boolean", "null"],
        needed="true, false or warn is needed",
    ),
    "benchmark": boolean("Let cuDNN try which algorithm is fastest; null: torch's choice.").or_null(),
    "detect_anomaly": boolean("Find the operation that makes NaN."),
}

CALLBACKS: Keys = {
    "ema": number(
        "Decay of a running mean of the weights, which is then what is validated and tested.",
        above=0,
        below=1,
        needed="a decay in (0, 1) is needed",
    ).or_null(),
    "patience": integer("Stop after so many epochs without a better score on the validation set.", least=1).or_null(),
    "save_every_n_epochs": integer(
        "Epochs between two checkpoints.", least=1, needed="a number > 0 is needed"
    ).or_null(),
    "save_every_n_steps": integer("Steps between two checkpoints.", least=1, needed="a number > 0 is needed").or_null(),
    "save_every_n_minutes": number("Minutes between two checkpoints.", above=0).or_null(),
    "progress": boolean("Show the progress of a training."),
}

LOGGER: Keys = {
    "project": string("W&B's project."),
    "entity": string("W&B's team or user; null: your own.").or_null(),
    "group": string("W&B's group; null: the name of the sweep that the run is of.").or_null(),
    "tags": array("Tags beside those of the network, the data and the study.").or_null(),
    "notes": string("W&B's notes.").or_null(),
    "offline": boolean("Record on disk only; null: where there is no key.").or_null(),
    "log_model": boolean("Upload the tested checkpoint as an artifact."),
}

CHECKPOINT = choice(
    "best or last; null: the one from which the run's own test metrics came.",
    "best",
    "last",
    needed="best or last",
    also=["null"],
)
RUNS = Key(
    "Directories of runs, or that hold some, or globs; null: those in OUTPUT_DIR/NAME.",
    ("array", "string", "null"),
    "a directory or a glob, or a list of such, is needed",
)
BASELINE = mapping(
    "With what each variant is compared, seed by seed.", needed="values by key are needed, such as {model.ratio:1}"
).or_null()
TITLE = string("Of the report; null: the study's name, network and data.").or_null()
NAME = {"name": string("The task.")}
WHOLES = "whole numbers >= 1 are needed"
TASKS: dict[str, Keys] = {
    "fit": {},
    "test": {"checkpoint": CHECKPOINT},
    "predict": {
        "input": string("A file, a folder with all that is in it, or a glob."),
        "top_k": integer("Of a classifier: classes to name for each image.", least=1),
        "checkpoint": CHECKPOINT,
        "score_threshold": number("Of a detector: below, boxes are in the files but in no picture.", least=0, most=1),
    },
    "profile": {
        "modes": array("Flags joined by +: eager, fused, bf16, channels_last, compiled.", also=["string"]),
        "batch_sizes": array("Images at once.", needed=WHOLES, also=["integer"]),
        "repeats": integer("Each times all modes in turn.", least=1, needed=WHOLES),
        "top_layers": integer("Layers on the terminal, the most expensive.", least=1, needed=WHOLES),
        "show_flops": boolean("Show what other ways to count would give."),
        "checkpoint": CHECKPOINT,
    },
    "visualize": {
        "layers": array("Names, or patterns of names; null: three, spread over depth.", also=["string"]).or_null(),
        "num_images": integer("Of the test set, from all over it, for the statistics.", least=1),
        "num_shown": integer("Of them, in figures.", least=1),
        "checkpoint": CHECKPOINT,
    },
    "export": {
        "formats": array("Of onnx, torch and safetensors.", also=["string"]),
        "num_check_images": integer(
            "Test images on which each file has to agree with the network; 0: no data needed.", least=0
        ),
        "license": string("Of the weights.").or_null(),
        "checkpoint": CHECKPOINT,
    },
    "report": {
        "runs": RUNS,
        "output_dir": string("Where to write; null: report/ beside the runs.").or_null(),
        "title": TITLE,
        "baseline": BASELINE,
    },
    "dashboard": {"runs": RUNS, "title": TITLE, "baseline": BASELINE},
}

SWEEPER: Keys = {
    "params": mapping("A study's grid: values by key, as they are typed after -m."),
    "baseline_grid": mapping("The grid of the ordinary network beside it."),
    "report_baseline": mapping("With what a report on the study compares each variant.").or_null(),
}

LAUNCHER: Keys = {
    "backend": choice("Processes of this machine, submitit on this machine, or SLURM.", "local", "submitit", "slurm"),
    "gpus": boolean("One GPU for each task; false: run on CPUs."),
    "timeout_min": integer("Minutes that a job may take.", least=1),
    "cpus_per_task": integer("Cores of each task.", least=1),
    "mem_gb": number("Memory of a job in GB; null: SLURM's choice.", above=0).or_null(),
    "slurm_partition": string("SLURM's partition; null: its default.").or_null(),
    "slurm_array_parallelism": integer("Jobs that run at once.", least=1),
    "slurm_signal_delay_s": integer("Seconds before the time is over, to save and to be queued again.", least=0),
    "slurm_additional_parameters": mapping("Other parameters of sbatch.").or_null(),
    "slurm_srun_args": array("Arguments of srun."),
    "slurm_setup": array("Shell lines that run before.").or_null(),
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
        "callbacks": "use callbacks.ema, callbacks.patience, callbacks.save_every_n_epochs and the others of conf/callbacks",
        "logger": "use logger=csv, wandb, tensorboard or none",
        "plugins": "use trainer.precision and trainer.strategy",
        "default_root_dir": "use output_dir= and name=, or hydra.run.dir=",
        "num_sanity_val_steps": "no validation runs before the training; use debug=default for a quick look",
        "use_distributed_sampler": "the datamodules divide their batches among the devices themselves",
        "enable_checkpointing": "use callbacks.save_every_n_epochs, callbacks.save_every_n_steps and callbacks.save_every_n_minutes",
        "enable_progress_bar": "use callbacks.progress",
        "enable_model_summary": "use task=profile",
    },
    "callbacks": {
        "folder": "checkpoints go into the run's directory; use output_dir= and name=, or hydra.run.dir=",
        "monitor": "it is the score of the validation set",
    },
    "logger": {"run": "use output_dir= and name=, or hydra.run.dir="},
    "optimizer": {"network": "it is model"},
    "scheduler": {"epochs": "use trainer.max_epochs", "steps_per_epoch": "use datamodule.batch_size"},
}
