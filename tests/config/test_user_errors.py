"""Check that errors of a command are one line that names the key or the file, with a non-zero exit code."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from PIL import Image

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.lock import locked
from tests.cli import TINY, command, in_directory, processes_with, start_cold, wait_until

# Arguments, and part of the expected message: the key as typed, and what is allowed.
KEYS = [
    (["model=ghostnt"], "model=ghostnt: not found; there are faster_rcnn_ghostnet"),
    (["model=ghostnt"], "did you mean model=ghostnet?"),
    (["datamodule=mnist"], "datamodule=mnist: not found; there are cifar10"),
    (["scheduler=cosin"], "scheduler=cosin: not found; there are constant"),
    (["optimizer=lion"], "optimizer=lion: not found; there are adamw"),
    (["task=train"], "task=train: not found; there are dashboard, export, fit"),
    (["experiment=none_such"], "experiment=none_such: not found; there are cifar10/default, "),
    (
        ["experiment=cifar10/none"],
        "experiment=cifar10/none: not found; there are cifar10/default, cifar10/ghost_resnet20",
    ),
    (["experiment=cifar10"], "experiment=cifar10: not found; there are cifar10/default, "),
    (["datamodule=_base2"], "datamodule=_base2: not found; there are cifar10, cifar100, coco, digits, fake"),
    (["model.rato=2"], "model.rato=2: model has no rato; there is weights, reset_head, plan, network, ratio, dw_size"),
    (["modle=ghostnet"], "did you mean model?"),
    (["+sed=1"], "+sed=1: the configuration has no sed; there is seed, name"),
    (
        ["+model.ratoi=2"],
        "+model.ratoi=2: model has no ratoi; there is weights, reset_head, plan, network, ratio, dw_size",
    ),
    (
        ["+model.network.shrtcut=A"],
        "model.network has no shrtcut; there is num_classes, in_chans, shortcut, width; did you mean",
    ),
    (["+loss.distil=1"], "loss has no distil; there is label_smoothing, distill; did you mean loss.distill?"),
    (["+logger.csv.path=x"], "+logger.csv.path=x: logger.csv has no path"),
    (["+task.top=3"], "+task.top=3: task has no top; there is name"),
    (
        ["-m", "seed=0,1", "model.rato=2"],
        "model.rato=2: model has no rato; there is weights, reset_head, plan, network, ratio",
    ),
    (["model=ghostnet", "model.kwargs.x=1"], "model.kwargs.x=1: model has no kwargs; there is weights, reset_head"),
    (["debug=on"], "debug=on: not found; there is default"),
    (["hydra/launcher=submitit_slurm"], "hydra/launcher=submitit_slurm: submits the jobs of a sweep; add -m"),
    (["n_jobs=2"], "n_jobs=2: is a key of sweeps; add -m, or leave it out"),
    (["fail_fast=true"], "fail_fast=True: is a key of sweeps; add -m, or leave it out"),
    (["task=plan", "task.time_budget=0.9"], "task.time_budget=0.9: needs task.goal=fewest_macs or most_macs"),
    (
        ["task=test", "model.weights=some.pt", "task.checkpoint=last"],
        "task.checkpoint=last: needs run=DIR, not model.weights",
    ),
    (["--config-dir=/none_such"], "--config-dir=/none_such: no such folder"),
    (["output_dir=/proc/none_such"], "output_dir=/proc/none_such: cannot be written (No such file or directory)"),
    (["+model.ratio=2"], "+model.ratio: already exists; leave out the plus"),
    (["seed=0,1"], "seed=0,1: several values need -m"),
    (["optimizer.lr=\u6570"], "type 'optimizer.lr=\"\u6570\"'"),
    (
        ["--config-dr", "mine"],
        "unrecognized arguments: --config-dr mine; python -m ghostexp --hydra-help shows the flags",
    ),
    (["--config-dir"], "argument --config-dir/-cd: expected one argument"),
    (["optimizer.learning_rate=1"], "optimizer has no learning_rate; there is lr, momentum"),
    (["trainer.epochs=3"], "trainer has no epochs"),
    (
        ["model=vgg16", "model.ratio=2"],
        "model.ratio=2: model has no ratio; there is weights, reset_head, plan, num_classes",
    ),
    (
        ["model=mobilenet_v2", "model.width=0.5"],
        "model.width=0.5: model has no width; there is weights, reset_head, plan, name",
    ),
    (["model=resnet20", "model.dw_size=3"], "model.dw_size=3: model has no dw_size"),
    (["model.ratio=[1"], "model.ratio=[1"),
    (["seed"], "seed"),
]
DETECTOR = ["datamodule=shapes", "model=retinanet_ghostnet"]
VALUES = [
    (["model.ratio=0"], "model.ratio=0: must be an integer >= 1"),
    (["model.ratio=2.5"], "model.ratio=2.5: must be an integer >= 1"),
    (["model.ratio=two"], "model.ratio=two: must be an integer >= 1"),
    (["model.dw_size=4"], "model.dw_size=4: must be an odd integer >= 1"),
    (["model=ghostnet", "model.width=0"], "model.width=0: must be a number > 0"),
    (["model=ghostnet", "model.width=-1"], "model.width=-1: must be a number > 0"),
    (["model=ghostnet", "model.se_ratio=-1"], "model.se_ratio=-1"),
    (["model=ghostnet", "model.drop_rate=1.5"], "model.drop_rate=1.5"),
    (["model.exclude=[no_such_layer]"], "model.exclude=no_such_layer: none of the"),
    (["model.norm_act=fancy"], "model.norm_act=fancy: must be one of"),
    (["model.network.shortcut=C"], "model.network.shortcut=C: must be one of A, B"),
    (["model=vgg16"], "32 x 32 is the smallest image that works; found 8 x 8"),
    (["model._target_=ghostexp.models.nothing"], "model._target_=ghostexp.models.nothing: not found"),
    (["model.weights=no/such/file"], "model.weights=no/such/file: no such file; must be a file, a run's directory,"),
    (["model.weights=5"], "model.weights=5: no such file"),
    (["model.reset_head=true"], "model.reset_head=true: needs model.weights"),
    (["model.weights=README.md", "model.reset_head=body"], "model.reset_head=body: must be true or false"),
    (["pretrained=ghostnet_50"], "pretrained=ghostnet_50: not found; there are ghostnet_100"),
    (
        ["model=torchvision", "model.name=resnet19"],
        "model.name=resnet19: torchvision has no such network; did you mean",
    ),
    (
        ["model=timm", "model.name=ghostnet_101"],
        "model.name=ghostnet_101: timm has no such network; did you mean ghost",
    ),
    (["model=torchvision", "+model.kwargs.x=1"], "model.kwargs={'x': 1}: torchvision's resnet18 does not accept them"),
    (
        ["model=timm", "+model.kwargs.features_only=true"],
        "model: FeatureListNet must map images (N, 1, 8, 8) to logits (N, 10); for N = 2 got list",
    ),
    (
        [*DETECTOR, "model.backbone.in_chans=1"],
        "model.backbone.in_chans=1: must be 3; detectors read images in colour",
    ),
    (["model=timm", "+model.kwargs.x=1"], "model.kwargs={'x': 1}: timm's resnet26 does not accept them"),
    (
        ["model=torchvision", "model.name=squeezenet1_1"],
        "model: must support images of 1 x 8 x 8 (datamodule.image_size)",
    ),
    (["model=torchvision", "model.ratio=0"], "model.ratio=0: must be an integer >= 1"),
    (["optimizer.lr=0"], "optimizer.lr=0: must be a number > 0"),
    (["optimizer.lr=-1"], "optimizer.lr=-1: must be a number > 0"),
    (["optimizer.momentum=1"], "optimizer.momentum=1: must be a number in [0, 1)"),
    (["optimizer.weight_decay=-1"], "optimizer.weight_decay=-1"),
    (
        ["scheduler.warmup_epochs=20"],
        "scheduler.warmup_epochs=20: must be epochs >= 0 and < trainer.max_epochs=15",
    ),
    (["scheduler.interval=hour"], "scheduler.interval=hour: must be one of step, epoch"),
    (["scheduler.pct_start=2"], "scheduler.pct_start=2"),
    (["scheduler=multistep", "scheduler.milestones=[9,3]"], "scheduler.milestones=[9, 3]: must be rising epochs"),
    (["loss.label_smoothing=1.5"], "loss.label_smoothing=1.5"),
    (["loss._target_=torch.nn.MultiMarginLoss", "+loss.reduction=sum"], "loss.reduction=sum: must be mean"),
    (["seed=-1"], "seed=-1: must be an integer >= 0"),
    (["seed=true", "datamodule.seed=0"], "seed=True: must be an integer >= 0"),
    (["seed=one"], "seed=one: must be an integer >= 0"),
    (["threads=0"], "threads=0: must be an integer >= 1 or null"),
    (["callbacks.ema=1.5"], "callbacks.ema=1.5"),
    (["callbacks.patience=0"], "callbacks.patience=0"),
    (["callbacks.save_every_n_steps=-5"], "callbacks.save_every_n_steps=-5"),
    (["trainer.max_epochs=0"], "trainer.max_epochs=0: must be an integer >= 1"),
    (["trainer.max_epochs=null"], "trainer.max_epochs=None: must be an integer >= 1"),
    (["trainer.precision=12"], "trainer.precision=12: must be one of 32-true, 16-mixed, bf16-mixed"),
    (["trainer.devices=0"], "trainer.devices=0: must be an integer >= 1, auto or a list"),
    (["trainer.devices=some"], "trainer.devices=some: must be an integer >= 1, auto or a list"),
    (["+trainer.no_such_argument=1"], "+trainer.no_such_argument=1: trainer has no no_such_argument; there is"),
    (["+trainer.max_epoch=1"], "+trainer.max_epoch=1: trainer has no max_epoch; did you mean trainer.max_epochs?"),
    (["+trainer.min_epochs=few"], "trainer.min_epochs=few: must be an integer or null"),
    (
        ["+trainer.callbacks=[a]"],
        "+trainer.callbacks=[a]: is set by the program; use callbacks.ema, callbacks.patience",
    ),
    (
        ["+trainer.logger=false"],
        "+trainer.logger=false: is set by the program; use logger=csv, wandb, tensorboard or none",
    ),
    (
        ["+callbacks.folder=here"],
        "+callbacks.folder=here: is set by the program; checkpoints are written to the run directory",
    ),
    (["+logger.csv.run=here"], "+logger.csv.run=here: is set by the program; use output_dir= and name="),
    (["compile=of"], "compile=of: must be true, false, default, reduce-overhead"),
    (["channels_last=2"], "channels_last=2: must be true or false"),
    (["optimizer.lr=fast"], "optimizer.lr=fast: must be a number > 0"),
    (["optimizer.lr=nan"], "optimizer.lr=nan: must be a number > 0"),
    (["datamodule.hflip=1"], "datamodule.hflip=1: must be true or false"),
    (["loss.distill.temperature=0"], "loss.distill.temperature=0: must be a number > 0"),
    (["optimizer.lr=${sed}"], "optimizer.lr: Interpolation key 'sed' not found"),
    (["~channels_last"], "channels_last: is required"),
    (
        ["datamodule.batch_size=63", "trainer.accumulate_grad_batches=2"],
        "datamodule.batch_size=63: must be divisible by 1",
    ),
    (["datamodule.batch_size=5000"], "datamodule.batch_size=5000: must be at most 1437, the number"),
    (["datamodule.validate_on=train"], "datamodule.validate_on=train"),
    (["datamodule.train_fraction=0"], "datamodule.train_fraction=0"),
    (["datamodule.num_classes=9"], "datamodule.num_classes=9"),
    (["datamodule.mixup_alpha=-1"], "datamodule.mixup_alpha=-1"),
    (
        ["datamodule.validate_on=holdout", "trainer.limit_val_batches=0"],
        "datamodule.validate_on=holdout: needs validation",
    ),
    (["callbacks.patience=2", "trainer.check_val_every_n_epoch=30"], "callbacks.patience: needs validation"),
    (["trainer.limit_test_batches=0"], "trainer.limit_test_batches=0"),
    (["datamodule=shapes", "datamodule.scale_jitter=-1"], "datamodule.scale_jitter=-1: must be a number in [0, 4]"),
    (["datamodule=shapes", "datamodule.num_classes=80"], "datamodule.num_classes=80: shapes has 4 classes"),
    (["datamodule=coco", "datamodule.max_size=100"], "datamodule.max_size=100: must be an integer >= 800"),
    (
        ["model=retinanet_ghostnet"],
        "datamodule=digits: must have boxes for a detector, as shapes or coco do, got",
    ),
    ([*DETECTOR, "loss.distill.teacher=none_such"], "loss.distill.teacher: must not be set for a detector"),
    (
        [*DETECTOR, "trainer.precision=bf16-true"],
        "trainer.precision=bf16-true: rounds boxes of a detector; use trainer.",
    ),
    (
        [*DETECTOR, "model@model.backbone=torchvision", "model.backbone.name=squeezenet1_1"],
        "model.backbone: SqueezeNet has no feature maps by stride, which a detector needs",
    ),
    (["datamodule=shapes"], "datamodule=shapes: must have classes for a classifier, got Shapes"),
    ([*DETECTOR, "loss.label_smoothing=0.1"], "loss.label_smoothing=0.1: must not be set for a detector"),
    ([*DETECTOR, "model.reset_head=true"], "model.reset_head=true: must be false for a detector"),
    ([*DETECTOR, "model.backbone.weights=no.pth"], "model.backbone.weights=no.pth: no such file"),
    ([*DETECTOR, "model.strides=[8,32]"], "model.strides=[8, 32]: must be some of [4, 8, 16, 32]"),
    ([*DETECTOR, "model.freeze_stages=5"], "model.freeze_stages=5: needs model.backbone.weights"),
    ([*DETECTOR, "model.freeze_batchnorm=true"], "model.freeze_batchnorm=True: needs model.backbone.weights"),
    (
        [*DETECTOR, "model@model.backbone=timm", "model.backbone.name=vit_tiny_patch16_224"],
        "model.backbone: VisionTransformer has no feature maps by stride",
    ),
    (["optimizer.momentum=0"], "optimizer.nesterov=true: needs optimizer.momentum > 0"),
    (["trainer.num_nodes=2"], "every machine needs NODE_RANK, MASTER_ADDR, MASTER_PORT, hydra.run.dir=DIR"),
    (["task=test"], "task=test: needs run=DIR"),
    (["task=predict"], "task.input: must be set; task.input=..."),
    (["task=predict", "task.input=README.md"], "task=predict: needs run=DIR"),
    (["task=predict", "task.input=no/such/*.jpg"], "task.input=no/such/*.jpg: must be an image file, a folder"),
    (
        ["task=predict", "task.input=README.md", "task.score_threshold=2"],
        "task.score_threshold=2: must be a number in [0, 1]",
    ),
    (["task=predict", "task.input=README.md", "task.top_k=0"], "task.top_k=0: must be an integer >= 1"),
    (["task=profile", "task.repeats=0"], "task.repeats=0: must be an integer >= 1"),
    (["task=profile", "task.batch_sizes=[]"], "task.batch_sizes=[]: must be an integer >= 1"),
    (["task=profile", "task.batch_sizes=[1.5]"], "task.batch_sizes=[1.5]: must be an integer >= 1, or a list of such"),
    (["task=profile", "task.modes=[fast]"], "task.modes=fast: must be flags of eager, fused, bf16, channels_last"),
    (
        ["task=profile", "model=retinanet_ghostnet", "datamodule=shapes", "task.modes=[eager,fused]"],
        "task.modes=eager,fused: must be eager, or null, for a detector",
    ),
    (["task=export"], "task=export: needs run=DIR"),
    (["task=export", "task.formats=[onxx]"], "task.formats=onxx: must be one or several of onnx, torch, safetensors"),
    (["task=export", "task.formats=[]"], "task.formats=[]: must be one or several of onnx, torch, safetensors"),
    (["task=export", "task.num_check_images=-1"], "task.num_check_images=-1: must be an integer >= 0"),
    (["task=report"], "no training runs found; set study=NAME, name=NAME or task.runs=DIR"),
    (["task=report", "task.runs=no/such/*"], "task.runs=no/such/*: must match directories of training runs"),
    (["task=report", "task.runs=[]"], "task.runs=[]: must be a directory, a glob, or a list of them"),
    (["task=report", "task.baseline=2"], "task.baseline=2: must be a mapping such as {model.ratio:1}"),
    (["task=dashboard"], "no training runs found; set study=NAME, name=NAME or task.runs=DIR"),
    (["task=dashboard", "task.runs=no/such/*"], "task.runs=no/such/*: must match directories of training runs"),
    (["logger=wandb", "logger.wandb.log_model=all"], "logger.wandb.log_model=all: must be true or false"),
    (["task=visualize"], "task=visualize: needs run=DIR"),
    (["task=visualize", "task.num_images=0"], "task.num_images=0: must be an integer >= 1"),
    (["task=visualize", "task.num_shown=all"], "task.num_shown=all: must be an integer >= 1"),
    (["run=no/such/run", "task=test"], "no/such/run: not a run directory"),
    (["resume=no/such/run"], "no/such/run: not a run directory"),
    (["datamodule=image_folder", "datamodule.root=no/such/folder"], "no/such/folder"),
]
GPU = [
    (["trainer.accelerator=gpu"], "trainer.accelerator=gpu: no GPU found"),
    (["trainer.devices=[0,1]"], "trainer.devices=[0, 1]: a list selects GPUs, but there is none"),
    (["trainer.sync_batchnorm=true"], "trainer.sync_batchnorm=true: torch synchronises BatchNorm on GPUs only"),
]


def expect_one_line(err: str, wanted: str) -> None:
    """Check standard error of a failed command."""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert wanted in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(("arguments", "wanted"), KEYS + VALUES, ids=lambda value: str(value)[:40])
def test_wrong_key_or_value_is_one_line_error(
    arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("callbacks.progress=false", *arguments) != 0
    expect_one_line(capsys.readouterr().err, wanted)
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("arguments", "wanted"), GPU, ids=lambda value: str(value)[:40])
def test_missing_gpu_is_one_line_error(arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*arguments) != 0
    expect_one_line(capsys.readouterr().err, wanted)


def truncate(run: Path) -> None:
    """Truncate the last checkpoint."""
    path = run / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:10_000])


def exchange(run: Path) -> None:
    """Replace the checkpoint by that of another network."""
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    state = checkpoint["state_dict"]
    state["network.fc.weight"] = torch.zeros(7, 64)
    state["network.extra.weight"] = state.pop("network.conv1.weight")
    torch.save(checkpoint, path)


def remove_checkpoints(run: Path) -> None:
    """Remove the weights of a run."""
    (run / "checkpoints" / "last.ckpt").unlink()


def spoil_config(run: Path) -> None:
    """Write invalid YAML to the configuration."""
    (run / "config.yaml").write_text("model: [")


@pytest.mark.parametrize(
    ("damage", "arguments", "wanted"),
    [
        (truncate, ["resume={run}"], "last.ckpt: not a whole checkpoint"),
        (truncate, ["task=test", "run={run}"], "last.ckpt: not a whole checkpoint"),
        (remove_checkpoints, ["task=test", "run={run}"], "last.ckpt: no such checkpoint"),
        (exchange, ["task=test", "run={run}"], "1 missing (network.conv1.weight); 1 unexpected (network.extra.weight)"),
        (exchange, ["resume={run}"], "network.fc.weight (7, 64) instead of (10, 64)"),
        (spoil_config, ["resume={run}"], "config.yaml: not valid YAML"),
        (None, ["resume={run}", "trainer.max_epochs=30"], "trainer.max_epochs: 2 -> 30"),
        (None, ["resume={run}", "seed=5"], "seed=5: resume= uses the seed of that run; leave it out"),
        (
            None,
            ["resume={run}", "model.shortcut=B"],
            "model.shortcut=B: resume= uses the model of that run; leave it out",
        ),
        (None, ["resume={run}", "datamodule.mixup_alpha=1"], "datamodule.mixup_alpha: 0.0 -> 1"),
        (None, ["resume={run}", "hydra.run.dir={run}-other"], "continues in that directory"),
        (None, ["-m", "resume={run}"], "cannot be used with -m"),
        (
            None,
            ["resume={run}", "callbacks.progress=true,false"],
            "callbacks.progress=true,false: must be a single value",
        ),
        (None, ["run={run}"], "must be used with another task, such as task=test; use resume= to continue"),
        (
            None,
            ["run={run}", "task=test", "data_dir=elsewhere"],
            "data_dir=elsewhere: run= uses the data_dir of that run",
        ),
        (None, ["run={run}", "task=test", "datamodule.shift=1"], "datamodule has no shift; there is mean, std"),
        (None, ["run={run}", "resume={run}"], "use either run= (test, predict, ... of a finished run) or resume="),
        (None, ["task=report", "run={run}"], "task=report reads several runs; use task.runs="),
        (None, ["task=dashboard", "resume={run}"], "task=dashboard reads several runs; use task.runs="),
        (
            None,
            ["task=test", "run={run}", "+trainer.logger=x"],
            "trainer.logger: is set by the program; use logger=csv",
        ),
        (None, ["task=test", "run={run}", "datamodule.seed=\u6570"], "type 'datamodule.seed=\"\u6570\"'"),
        (None, ["task=test", "run={run}", "compile=of"], "compile=of: must be true, false, default, reduce-overhead"),
        (None, ["task=test", "run={run}", "model=resnet56"], "model=resnet56: run= uses the model of that run"),
        (None, ["task=test", "resume={run}"], "must be used with task=fit"),
        (
            None,
            ["task=test", "run={run}", "task.checkpoint=first"],
            "task.checkpoint=first: must be best, last or null",
        ),
        (truncate, ["task=visualize", "run={run}"], "last.ckpt: not a whole checkpoint"),
        (
            None,
            ["task=visualize", "run={run}", "task.layers=[conv9]"],
            "task.layers=conv9: must be one of conv1",
        ),
        (None, ["task=visualize", "run={run}", "task.layers=fc"], "task.layers=fc: must output maps (N, C, H, W)"),
    ],
)
def test_damaged_or_different_run_is_one_line_error(
    damage: Callable[[Path], None] | None,
    arguments: list[str],
    wanted: str,
    tiny_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tiny_run
    (run / "result.json").unlink()
    if damage is not None:
        damage(run)
    assert command(*(argument.format(run=run) for argument in arguments)) != 0
    expect_one_line(capsys.readouterr().err, wanted)


def test_unwritable_directory_is_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a directory")
    assert command(*TINY, in_directory(tmp_path / "file" / "run")) != 0
    expect_one_line(capsys.readouterr().err, "file")


def test_error_names_corrupt_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number}.png")
    (tmp_path / "images" / "train" / "dog" / "2.png").write_bytes(b"no image")
    arguments = ["model=resnet20", "datamodule=image_folder", f"datamodule.root={tmp_path / 'images'}"]
    arguments += ["datamodule.num_classes=2", "datamodule.image_size=32", "datamodule.batch_size=4"]
    assert command(*arguments) != 0
    expect_one_line(capsys.readouterr().err, "train/dog/2.png")


@pytest.mark.parametrize(
    ("arguments", "wanted", "is_running"),
    [
        (
            ["task=test", "run={run}", "hydra.run.dir={run}"],
            "contains a run of task=fit; choose another directory",
            False,
        ),
        (
            ["model=resnet20", "optimizer.lr=0.7", "hydra.run.dir={run}"],
            "contains a run of another configuration",
            False,
        ),
        (["resume={run}", "threads=7"], "another process is running here", True),
    ],
)
def test_refused_command_leaves_a_run_as_it_was(
    arguments: list[str], wanted: str, is_running: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    assert command(*TINY, f"hydra.run.dir={run.path}") == 0
    if is_running:
        run.result.unlink()
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with locked(run.path, 0) if is_running else nullcontext():
        assert command(*(text.format(run=run.path) for text in arguments)) == 1
    assert wanted in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("a: [", "config.yaml: not valid YAML"),
        ("- 1", "config.yaml: contains no configuration"),
        ("a: 1", "contains a run of task=None"),
    ],
)
def test_directory_with_another_config_file_is_refused(
    content: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(content)
    assert command(*TINY, f"hydra.run.dir={tmp_path}") == 1
    expect_one_line(capsys.readouterr().err, wanted)
    assert (tmp_path / "config.yaml").read_text() == content


def test_error_leaves_directories_unchanged(tmp_path: Path) -> None:
    assert command("seed=-1") != 0
    assert not list((tmp_path / "outputs").rglob("*.yaml"))
    (tmp_path / "mine").mkdir()
    assert command(f"resume={tmp_path / 'mine'}") != 0
    assert command("resume=not/there") != 0
    assert (tmp_path / "mine").is_dir()
    assert not Path("not").exists()


@pytest.mark.parametrize(
    ("variables", "arguments", "wanted"),
    [
        ({"TORCHELASTIC_RUN_ID": "none"}, [], "torchrun: not needed"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, ["trainer.devices=2"], "srun started 4 tasks, not 2"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, ["-m", "seed=0,1"], "-m under srun"),
        (
            {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"},
            ["trainer.devices=2"],
            "devices=2: only 1 GPU found; every task has to see all GPUs of its machine: srun --gpus-per-node=2",
        ),
    ],
)
def test_processes_of_srun_and_torchrun_must_match_the_run(
    variables: dict[str, str],
    arguments: list[str],
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1 if "only 1 GPU" in wanted else 0)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert command(*arguments) != 0
    assert wanted in capsys.readouterr().err.splitlines()[0]


def test_traceback_is_shown_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("debug=default", "model.ratio=0") != 0
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["model=ghostnt"], "model=ghostnt: not found"),
        (["model.rato=2"], "model.rato=2: model has no rato; there is weights, reset_head, plan, network"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: must be an integer >= 1"),
        (["resume=no/such/run"], "no/such/run: not a run directory"),
        (["-m", "optimizer.lr=interval(0,1)"], "optimizer.lr=interval(0,1): must be single values"),
        (["trainer.devices=2", "datamodule.batch_size=63"], "datamodule.batch_size=63: must be divisible by 2 devices"),
    ],
)
def test_new_process_prints_one_line_error_and_leaves_none(arguments: list[str], wanted: str, tmp_path: Path) -> None:
    process = start_cold(*arguments)
    assert process.wait(100) == 1
    wait_until(lambda: not processes_with(str(tmp_path)), seconds=2)  # a fork server would import for longer
    expect_one_line(process.communicate()[1], wanted)
