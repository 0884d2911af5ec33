"""Define the keys of conf/task: type, range and description."""

from ghostexp.config.key import Key, Keys, array, boolean, choice, integer, mapping, number, string

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
RUNTIMES = ("onnxruntime", "openvino", "openvino+bf16", "openvino+int8")
RATIOS = "must be an integer >= 2, or a list of such"
DW_SIZES = "must be an odd integer >= 1, or a list of such"
TASKS: dict[str, Keys] = {
    "fit": {},
    "test": {"checkpoint": CHECKPOINT},
    "predict": {
        "input": string("Image file, folder with images (recursive), or glob."),
        "runtime": choice("Runtime: torch, or that of a file of task=export.", "torch", *RUNTIMES),
        "top_k": integer("Classification: number of classes shown per image.", least=1),
        "checkpoint": CHECKPOINT,
        "score_threshold": number("Detection: minimum score of a box in the pictures.", least=0, most=1),
    },
    "profile": {
        "modes": array(
            "Flags joined by +: eager, fused, bf16, channels_last, compiled; or a runtime; null: seven combinations.",
            also=["string"],
        ).or_null(),
        "batch_sizes": array("Images per batch.", needed=INTEGERS, also=["integer"]),
        "repeats": integer("Measurements of every mode, in turn.", least=1),
        "top_layers": integer("Number of most expensive layers shown on the terminal.", least=1),
        "show_flops": boolean("Show the counts by other conventions too."),
        "checkpoint": CHECKPOINT,
    },
    "plan": {
        "mode": choice("What is timed: training (forward and backward) or inference.", "training", "inference"),
        "goal": choice(
            "fastest, or the fewest or most MACs within time_budget.", "fastest", "fewest_macs", "most_macs"
        ),
        "time_budget": number("Time of the planned network over that of the ordinary one, at most.", above=0),
        "ratios": array("Ratios of the ghost modules that are tried.", needed=RATIOS, also=["integer"]),
        "dw_sizes": array("Kernel sizes of the cheap operations that are tried.", needed=DW_SIZES, also=["integer"]),
        "batch_size": integer("Images of one pass; null: datamodule.batch_size.", least=1).or_null(),
        "repeats": integer("Measurements of every layer and network, in turn.", least=1),
    },
    "visualize": {
        "layers": array("Layer names or patterns; null: three, spread over the depth.", also=["string"]).or_null(),
        "num_images": integer("Test images for the statistics, spread over the test set.", least=1),
        "num_shown": integer("Images in the figures.", least=1),
        "checkpoint": CHECKPOINT,
    },
    "export": {
        "formats": array("Formats: onnx, torch, safetensors, openvino, openvino+int8.", also=["string"]),
        "num_check_images": integer("Test images on which each file is compared with the network; 0: none.", least=0),
        "concat_free": choice(
            "OpenVINO's form without concatenations of ghosts: auto, true or false.",
            "auto",
            also=["boolean"],
            needed="must be auto, true or false",
        ),
        "num_test_images": integer("Test images on which each file is tested; null: all.", least=0).or_null(),
        "num_calibration_images": integer("Training images by which int8 is calibrated.", least=1),
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
