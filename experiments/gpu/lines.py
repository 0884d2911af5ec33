"""The lines of the battery: each measures or checks one thing, and returns a note for the table."""

import csv
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from runner import Battery

HERE = Path(__file__).parent
TINY = ("model=resnet20", "datamodule=digits", "callbacks.progress=false")


def machine(battery: Battery) -> str:
    """Name the machine: GPU, driver, shared memory, compiler, versions, TF32."""
    print(battery.finish(battery.start(["bash", "-c", "nvidia-smi; df -h /dev/shm; nproc; gcc --version"]), None))
    code = "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version(), "
    code += "torch.cuda.is_available() and torch.cuda.get_device_name())"
    return battery.finish(battery.start([sys.executable, "-c", code])).strip().splitlines()[-1]


def first_run(battery: Battery) -> str:
    """Run the README's first command; name its warnings."""
    battery.run("callbacks.progress=false", "hydra.run.dir=" + str(battery.out / "first"))
    log = (battery.out / "first" / "run.log").read_text().splitlines()
    result = battery.result("first")
    warned = sum(" WARNING " in text for text in log)
    accuracy = result["metrics"]["test"]["test/acc1"]
    return f"test {accuracy:.1f} %, {result['images_per_second']:.0f} img/s, {warned} warnings"


def precisions(battery: Battery) -> str:
    """Train in every precision with and without EMA, side by side; then optimizers and compile."""
    epochs = f"trainer.max_epochs={1 if battery.is_short else 3}"
    grid = ("trainer.precision=32-true,bf16-mixed,16-mixed,bf16-true", "callbacks.ema=null,0.99")
    battery.run("-m", *TINY, *grid, epochs, "n_jobs=8", "name=precisions")
    compiled = "compile=false" if battery.is_short else "compile=false,true,reduce-overhead"
    mixed = ("datamodule.mixup_alpha=0.2", "datamodule.random_erasing=0.2", "trainer.accumulate_grad_batches=2")
    rest = ("trainer.limit_train_batches=4", "trainer.gradient_clip_val=1", "n_jobs=4", "name=optimizers", epochs)
    battery.run("-m", *TINY, "optimizer=adamw,rmsprop_tf", compiled, *mixed, *rest)
    accuracies = []
    for path in sorted((battery.out / "precisions").glob("*/result.json")):
        accuracies.append(f"{json.loads(path.read_text())['metrics']['test']['test/acc1']:.0f}")
    return f"test % of 8 runs: {' '.join(accuracies)}"


def digest(run: Path) -> str:
    """Digest the metrics and weights of a run."""
    state = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    content = b"".join(tensor.float().numpy().tobytes() for tensor in state.values())
    return hashlib.sha256((run / "metrics.csv").read_bytes() + content).hexdigest()[:8]


def exactness(battery: Battery) -> str:
    """Train whole, whole again, and stopped and resumed; by default and with deterministic algorithms."""
    notes = []
    for precision in ("32-true",) if battery.is_short else ("32-true", "16-mixed"):
        for deterministic in ("true",) if battery.is_short else ("false", "true"):
            name = f"exact-{precision}-{deterministic}"
            settings = (*TINY, f"trainer.precision={precision}", f"trainer.deterministic={deterministic}")
            settings += ("trainer.max_epochs=4", "callbacks.save_every_n_steps=2", "optimizer.lr=0.05")
            runs = [battery.out / f"{name}-{part}" for part in ("a", "b", "stopped")]
            started = [battery.start(battery.command(*settings, f"hydra.run.dir={run}")) for run in runs]
            while not (runs[2] / "metrics.csv").exists() and started[2].poll() is None:
                time.sleep(0.05)
                if time.perf_counter() > battery.deadline:
                    break
            started[2].send_signal(signal.SIGTERM)
            for process in started:
                battery.finish(process, None)
            if not (runs[2] / "result.json").exists():
                battery.run(f"resume={runs[2]}")
            first, second, resumed = (digest(run) for run in runs)
            notes.append(
                f"{precision} deterministic={deterministic}: again {first == second}, resumed {first == resumed}"
            )
    return "; ".join(notes)


def nccl(battery: Battery) -> str:
    """Train with DDP on one rank, and on two ranks that share the GPU; end both when one fails."""
    battery.run(*TINY, "trainer.strategy=ddp", "trainer.max_epochs=1", "name=ddp1")
    notes = ["one rank ok"]
    for name, more in (("two ranks", ()), ("failing rank", ("callbacks.failing._target_=failing_rank.FailingRank",))):
        folder = battery.out / name.replace(" ", "-")
        settings = (*TINY, "trainer.num_nodes=2", "trainer.devices=1", "trainer.max_epochs=1")
        settings += ("trainer.limit_train_batches=20", f"hydra.run.dir={folder}", *more)
        started = time.perf_counter()
        ranks = []
        for node in range(2):
            place = {"NODE_RANK": str(node), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
            place |= {"NCCL_HOSTID": str(node), "NCCL_SOCKET_IFNAME": "lo", "PYTHONPATH": str(HERE)}
            ranks.append(battery.start(battery.command(*settings), **place))
        for rank in ranks:
            battery.finish(rank, None if more else 0)
        codes = [rank.returncode for rank in ranks]
        if more and 0 in codes:
            raise RuntimeError(f"a failing rank did not end the run: exit codes {codes}")
        notes.append(f"{name}: {time.perf_counter() - started:.0f} s, exit codes {codes}")
    return "; ".join(notes)


def step_matrix(battery: Battery) -> str:
    """Time a training step in every setting; see step.py."""
    short = ["--short"] if battery.is_short else []
    path = battery.out / "steps.csv"
    out = battery.finish(battery.start([sys.executable, str(HERE / "step.py"), battery.accelerator, str(path), *short]))
    print(out)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    best = min((row for row in rows if row["network"] == "ghost_resnet56"), key=lambda row: float(row["ms_per_image"]))
    return (
        f"{len(rows)} settings; fastest ghost_resnet56: {best['setting']}, {float(best['ms_per_image']):.4f} ms/image"
    )


def data(battery: Battery) -> tuple[str, ...]:
    """Return the overrides of CIFAR-10, or of generated images where $CIFAR is not set."""
    root = os.environ.get("CIFAR")
    if root:
        return (f"datamodule.root={root}",)
    return ("datamodule=fake", "datamodule.num_images=5000", "datamodule.batch_size=128")


def epochs(battery: Battery) -> str:
    """Time an epoch of the CIFAR-10 recipe: plain, with EMA, and with fewer validations."""
    notes = []
    for name, more in (
        ("plain", ()),
        ("ema", ("callbacks.ema=0.999",)),
        ("val2", ("trainer.check_val_every_n_epoch=2",)),
    ):
        battery.run(
            "experiment=cifar10/ghost_resnet56",
            *data(battery),
            "trainer.max_epochs=2",
            *more,
            "callbacks.progress=false",
            f"hydra.run.dir={battery.out}/epoch-{name}",
        )
        result = battery.result(f"epoch-{name}")
        notes.append(f"{name} {result['train_seconds'] / 2:.2f} s/epoch, {result['images_per_second']:.0f} img/s")
    return "; ".join(notes)


def side_by_side(battery: Battery) -> str:
    """Train small networks side by side on one GPU: rates of 1, 4 and 8 at a time, then accuracy of four."""
    notes = []
    ghost, more = "experiment=cifar10/ghost_resnet56", (*data(battery), "callbacks.progress=false")
    for jobs in (1, 4, 8):
        started = time.perf_counter()
        seeds = ",".join(str(seed) for seed in range(jobs))
        battery.run("-m", ghost, *more, f"seed={seeds}", "trainer.max_epochs=1", f"n_jobs={jobs}", f"name=side{jobs}")
        notes.append(f"{jobs} at once: {(time.perf_counter() - started) / jobs:.1f} s a run")
    grid = (f"{ghost},cifar10/resnet56", "seed=0,1", "scheduler=onecycle", "n_jobs=4", "name=accuracy")
    battery.run("-m", *grid, *more, f"trainer.max_epochs={1 if battery.is_short else 15}")
    for path in sorted((battery.out / "accuracy").glob("*/result.json")):
        notes.append(f"{path.parent.name} {json.loads(path.read_text())['metrics']['test']['test/acc1']:.1f} %")
    return "; ".join(notes)


def detectors(battery: Battery) -> str:
    """Train both detectors on generated shapes beside each other; 58 and 49 mAP are expected of whole trainings."""
    names = ("shapes/faster_rcnn", "shapes/retinanet")
    few = ("trainer.max_epochs=1", "datamodule.num_images=64") if battery.is_short else ()
    started = [
        battery.start(
            battery.command(
                f"experiment={name}", *few, "callbacks.progress=false", f"hydra.run.dir={battery.out}/{name}"
            )
        )
        for name in names
    ]
    for process in started:
        battery.finish(process)
    return "; ".join(f"{name} {battery.result(name)['metrics']['test'].get('test/map', 0):.1f} mAP" for name in names)


def tasks(battery: Battery) -> str:
    """Test a run on this accelerator and on the CPU, and run every other task on it."""
    run = battery.out / "tasks"
    battery.run(*TINY, "trainer.max_epochs=2", f"hydra.run.dir={run}")
    figures = []
    for accelerator in (battery.accelerator, "cpu"):
        folder = battery.out / f"test-{accelerator}"
        battery.run("task=test", f"run={run}", f"trainer.accelerator={accelerator}", f"hydra.run.dir={folder}")
        figures.append(battery.result(folder.name)["metrics"]["test"]["test/acc1"])
    battery.run("task=visualize", f"run={run}", f"hydra.run.dir={battery.out}/visualize")
    battery.run("task=export", f"run={run}", "task.formats=[torch]", f"hydra.run.dir={battery.out}/export")
    modes = (
        "[eager,channels_last]" if battery.is_short else "[eager,bf16,fused,channels_last,fused+channels_last+compiled]"
    )
    one = ("datamodule.image_size=224", "datamodule=fake", f"task.modes={modes}", "task.batch_sizes=[1,16]")
    battery.run("task=profile", "model=ghostnet", *one, "task.repeats=5", f"hydra.run.dir={battery.out}/profile")
    return f"test on {battery.accelerator} {figures[0]:.2f} %, on cpu {figures[1]:.2f} %"


def workers(battery: Battery) -> str:
    """Measure images per second from files at 224 x 224 with 4 and with all workers, where $CIFAR has class folders."""
    root = os.environ.get("CIFAR")
    if not root:
        return "not measured: $CIFAR is not set"
    notes = []
    for count in (4, max(4, (os.cpu_count() or 1) - 2)):
        settings = ("model=ghostnet", "datamodule=image_folder", f"datamodule.root={root}", "datamodule.num_classes=10")
        settings += ("trainer.precision=bf16-mixed", "trainer.max_epochs=1", "callbacks.progress=false")
        settings += (f"trainer.limit_train_batches={2 if battery.is_short else 40}", f"datamodule.num_workers={count}")
        battery.run(*settings, f"hydra.run.dir={battery.out}/workers-{count}")
        notes.append(f"{count} workers {battery.result(f'workers-{count}')['images_per_second']:.0f} img/s")
    return "; ".join(notes)


def tests(battery: Battery) -> str:
    """Run the tests of this project that need a GPU."""
    environment = {"GHOSTEXP_GPU_TESTS": "cpu"} if battery.accelerator == "cpu" else {}
    chosen = ["-k", "ddp_of_one_rank"] if battery.is_short else ["-n", "8"]
    command = [sys.executable, "-m", "pytest", str(HERE.parents[1] / "tests" / "gpu"), *chosen]
    return battery.finish(battery.start(command, **environment)).strip().splitlines()[-1]


CALLS: dict[int, list[tuple[str, float, Callable[[Battery], str]]]] = {
    1: [
        ("machine", 20, machine),
        ("first run", 30, first_run),
        ("precisions, EMA, optimizers", 70, precisions),
        ("exactness", 70, exactness),
        ("NCCL", 60, nccl),
        ("step matrix", 200, step_matrix),
        ("epoch of the recipe", 70, epochs),
    ],
    2: [
        ("runs side by side", 240, side_by_side),
        ("detectors", 100, detectors),
        ("tasks", 60, tasks),
        ("workers", 50, workers),
        ("tests/gpu", 80, tests),
    ],
}
