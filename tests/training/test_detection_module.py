"""Detectors: metrics equal pycocotools'; resumed and distributed runs equal uninterrupted ones."""

import contextlib
import io
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.optim import SGD

from ghostexp.analysis.cost import backbone_macs
from ghostexp.config.compose import CONF
from ghostexp.data.datasets.shapes import CLASSES, Shapes, generate_image
from ghostexp.models.detection.base import DetectionModel
from ghostexp.models.ghostnet import ghostnet_small
from ghostexp.runs.csv_table import read_rows
from ghostexp.tasks import profile
from ghostexp.tasks.common.detection_outputs import coco_results
from ghostexp.training import schedulers
from ghostexp.training.detection_module import COCO_METRICS, DetectionModule, coco_metrics
from tests.cli import TINY_DETECTOR, command, in_directory
from tests.models.tiny_detectors import with_quick_norms
from tests.training.test_exact_resume import digests


def result_of(run: Path) -> dict[str, Any]:
    """Read a run's result.json."""
    return json.loads((run / "result.json").read_text())


class NoisyDetector(nn.Module):
    """Returns perturbed ground truth: boxes shifted, missed, mislabelled, and false positives."""

    def __init__(self, targets: dict[float, dict[str, Tensor]]) -> None:
        super().__init__()
        self.targets = targets
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [self.perturb(self.targets[float(image.double().sum())]) for image in images]

    def perturb(self, truth: dict[str, Tensor]) -> dict[str, Tensor]:
        boxes, labels = truth["boxes"].repeat(3, 1), truth["labels"].repeat(3)
        boxes = boxes + torch.randn(boxes.shape, generator=self.generator) * torch.tensor(
            [1.0, 3.0, 9.0]
        ).repeat_interleave(len(truth["boxes"])).unsqueeze(1)
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        others = torch.rand(len(labels), generator=self.generator) < 0.2
        labels = labels.where(~others, (labels + 1) % 4)
        return {"boxes": boxes, "labels": labels, "scores": torch.rand(len(labels), generator=self.generator)}


def test_coco_metrics_equal_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Shapes(batch_size=7, num_classes=4, in_chans=3, image_size=96, num_images=100)
    data.setup("test")
    assert data.images is not None
    data.images.test.annotations.ground_truth["iscrowd"][::7] = 1  # detections in a crowd are ignored
    pairs = [pair for batch in data.test_dataloader() for pair in zip(*batch, strict=True)]
    network = NoisyDetector({float(image.double().sum()): target for image, target in pairs})
    detector = DetectionModule(network, lambda _: SGD([nn.Parameter()], 0.1), schedulers.Constant, loss_names=())
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.test(detector, data.test_dataloader(), verbose=False)
    found, truth = tmp_path / "found.json", tmp_path / "truth.json"
    detections = {number: one for number, (one, _) in detector.evaluated.items()}
    found.write_text(json.dumps(coco_results(detections, data.category_ids)))
    truth.write_text(json.dumps(annotations([target for _, target in pairs], data)))
    wanted = pycocotools_metrics(truth, found)
    capsys.readouterr()
    ours = [detector.metrics.get(f"test/{name}", -100) for name in COCO_METRICS]
    assert ours == pytest.approx((100 * wanted).tolist(), abs=1e-4)  # torchmetrics has float32
    assert 10 < ours[0] < 90  # some, not all, boxes are found


def annotations(targets: list[dict[str, Any]], data: Shapes) -> dict[str, Any]:
    """Convert ground truth to the content of an annotation file."""
    images, rows = [], []
    for target in targets:
        height, width = target["original_size"].tolist()
        images.append({"id": int(target["image_id"]), "height": height, "width": width})
        columns = (target["ground_truth"][name].tolist() for name in ("boxes", "labels", "iscrowd", "area"))
        for (x1, y1, x2, y2), label, crowd, area in zip(*columns, strict=True):
            row = {"id": len(rows) + 1, "image_id": images[-1]["id"], "category_id": data.category_ids[label]}
            rows.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": crowd, "area": area})
    return {"images": images, "annotations": rows, "categories": [{"id": number} for number in data.category_ids]}


def pycocotools_metrics(truth: Path, found: Path) -> np.ndarray:
    """Compute COCO's twelve metrics, (12,), of two files."""
    annotated = COCO(str(truth))
    evaluation = COCOeval(annotated, annotated.loadRes(str(found)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return np.array(evaluation.stats)


SHARED = (*TINY_DETECTOR, "model.box_score_thresh=0")  # boxes of every class are found


@pytest.fixture(scope="module")
def detector_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Train SHARED, which no test may change; returns it with what it printed."""
    run, printed = tmp_path_factory.mktemp("detector") / "run", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert command(*SHARED, in_directory(run)) == 0
    return run, printed.getvalue()


def test_detector_fit_writes_metrics_and_detections(detector_run: tuple[Path, str], tmp_path: Path) -> None:
    run, printed = detector_run
    result = result_of(run)
    assert result["metrics"]["last"]["val/map"] == result["metrics"]["test"]["test/map"]
    assert {"train/loss", "train/loss_box", "train/loss_objectness"} <= set(result["metrics"]["last"])
    assert result["backbone_macs"] == backbone_macs(ghostnet_small(width=0.25))
    assert "test mAP" in printed
    assert (run / "boxes.png").is_file()
    assert {row["class"] for row in read_rows(run / "per_class.csv")} == {"rectangle", "ellipse", "triangle", "cross"}
    seen = {row["image_id"] for row in json.loads((run / "detections.json").read_text())}
    assert seen
    assert seen <= set(range(15))
    again = tmp_path / "again"
    assert command("task=test", f"run={run}", in_directory(again)) == 0
    assert result_of(again)["metrics"]["test"] == result["metrics"]["test"]
    assert (again / "detections.json").read_bytes() == (run / "detections.json").read_bytes()


def test_detector_default_optimizer_trains_in_small_batches(tmp_path: Path) -> None:
    small = ("datamodule.num_images=24", "datamodule.batch_size=2", "trainer.limit_train_batches=1.0")
    default = [item for item in TINY_DETECTOR if not item.startswith("optimizer.")]
    assert command(*default, *small, "trainer.max_epochs=1", in_directory(tmp_path)) == 0
    assert result_of(tmp_path)["metrics"]["last"]["train/loss"] < 4  # millions with the classifiers' default


def test_detector_optimizer_is_its_default_unless_another_is_chosen() -> None:
    assert optimizer_of("model=retinanet_ghostnet")["_target_"].endswith(".adamw")
    assert optimizer_of("model=faster_rcnn_replication", "optimizer.lr=3")["lr"] == 3
    assert optimizer_of("model=retinanet_ghostnet", "optimizer=sgd")["_target_"].endswith(".sgd")
    assert optimizer_of("experiment=coco/retinanet")["lr"] == 0.01  # a recipe's own
    assert optimizer_of("model=ghostnet") == optimizer_of("optimizer=sgd_nesterov")


def optimizer_of(*overrides: str) -> dict[str, Any]:
    """Return the optimizer in the configuration of a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", list(overrides)).optimizer)  # pyright: ignore[reportReturnType]


def test_freeze_batchnorm_keeps_loaded_statistics(tmp_path: Path) -> None:
    classifier = with_quick_norms(ghostnet_small(num_classes=4, width=0.25))
    classifier(torch.randn(8, 3, 64, 64))
    weights = classifier.state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    loaded = ("model.freeze_batchnorm=true", f"model.backbone.weights={tmp_path / 'weights.pth'}")
    assert command(*TINY_DETECTOR, *loaded, "trainer.max_epochs=1", in_directory(tmp_path / "run")) == 0
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    prefix = "network.backbone.body."
    statistics = [name for name in state if name.startswith(prefix) and "running_" in name]
    assert len(statistics) > 50
    assert all(torch.equal(state[name], weights[name.removeprefix(prefix)]) for name in statistics)
    first = "conv_stem.weight"
    assert not torch.equal(state[prefix + first], weights[first])


def test_predict_boxes_have_category_ids_and_names(detector_run: tuple[Path, str], tmp_path: Path) -> None:
    run = Path(shutil.copytree(detector_run[0], tmp_path / "run"))
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.fromarray(generate_image(1, number).image).save(tmp_path / "pictures" / f"{number}.png")
    assert command("task=predict", f"run={run}", f"task.input={tmp_path / 'pictures'}", "task.score_threshold=0") == 0
    content = json.loads((run / "predict" / "predictions.json").read_text())
    assert content["categories"] == [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    rows = read_rows(run / "predict" / "predictions.csv")
    assert [CLASSES[one["category_id"] - 1] for one in content["annotations"]] == [row["class"] for row in rows]
    assert len({row["class"] for row in rows}) > 1
    assert [one["id"] for one in content["annotations"]] == list(range(1, len(rows) + 1))
    assert all(0 <= side <= 128 for one in content["annotations"] for side in one["bbox"])  # in their own pixels
    assert max(one["bbox"][0] + one["bbox"][2] for one in content["annotations"]) > 64
    assert len(list((run / "predict" / "images").iterdir())) == 3


def test_narrow_image_is_predicted_and_one_that_jpeg_cannot_hold_loses_only_its_picture(
    detector_run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(detector_run[0], tmp_path / "run"))
    (tmp_path / "pictures").mkdir()
    for name, size in (("a", (14, 2000)), ("b", (64, 65600)), ("c", (64, 64))):
        Image.new("RGB", size).save(tmp_path / "pictures" / f"{name}.png")
    assert command("task=predict", f"run={run}", f"task.input={tmp_path / 'pictures'}", "task.score_threshold=0") == 0
    assert f"{tmp_path}/pictures/b.png: its picture with boxes cannot be written (" in capsys.readouterr().err
    content = json.loads((run / "predict" / "predictions.json").read_text())
    assert [Path(image["file_name"]).name for image in content["images"]] == ["a.png", "b.png", "c.png"]
    drawn = sorted((run / "predict" / "images").iterdir())
    assert [path.name for path in drawn] == ["00000-a.jpg", "00002-c.jpg"]
    with Image.open(drawn[0]) as narrow:
        assert narrow.size == (29, 4096)


def test_limit_test_batches_of_detector(tmp_path: Path) -> None:
    short = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_test_batches=1")
    assert command(*TINY_DETECTOR, *short, "model.box_score_thresh=1", in_directory(tmp_path / "run")) == 0
    assert json.loads((tmp_path / "run" / "detections.json").read_text()) == []
    assert "pycocotools' loadRes raises an IndexError on an empty list" in (tmp_path / "run" / "run.log").read_text()
    assert (tmp_path / "run" / "boxes.png").is_file()  # of those images that were tested


def test_resumed_detector_equals_uninterrupted_run(
    detector_run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = DetectionModule.training_step

    def stopping(self: DetectionModule, batch: Any, batch_idx: int) -> Tensor:
        if self.trainer.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "training_step", stopping)
        assert command(*SHARED, in_directory(tmp_path / "stopped")) != 0
    assert command(f"resume={tmp_path / 'stopped'}") == 0
    assert digests(tmp_path / "stopped") == digests(detector_run[0])


def test_two_devices_equal_one_for_odd_number_of_images(detector_run: tuple[Path, str], tmp_path: Path) -> None:
    run, one, two = detector_run[0], tmp_path / "one", tmp_path / "two"
    assert command("task=test", f"run={run}", in_directory(one)) == 0
    assert command("task=test", f"run={run}", "trainer.devices=2", in_directory(two)) == 0
    assert result_of(two)["devices"] == 2
    assert result_of(two)["metrics"]["test"] == pytest.approx(result_of(one)["metrics"]["test"], abs=1e-3)
    ours, theirs = (json.loads((path / "detections.json").read_text()) for path in (one, two))
    assert len(ours) == len(theirs) > 0
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]


def test_profile_detector_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = ("task=profile", "task.batch_sizes=[1,2]", "task.repeats=1")
    assert command(*TINY_DETECTOR, *profile, in_directory(tmp_path)) == 0
    result = result_of(tmp_path)
    assert [row["batch"] for row in result["module_ms"]] == [1, 2]
    for row in result["module_ms"]:
        assert row["backbone"] + row["fpn"] + row["heads"] == pytest.approx(row["total"])
        assert min(row.values()) > 0
    assert result["macs"] == sum(int(row["macs"]) for row in read_rows(tmp_path / "layers.csv"))
    assert f"{result['backbone_macs']:,}: the full backbone at 224 x 224" in capsys.readouterr().out


@pytest.mark.parametrize("frozen", ["model.freeze_batchnorm=true", "model.freeze_stages=4"])
def test_profile_fills_statistics_of_frozen_norms(frozen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[DetectionModel] = []
    measure = profile.module_latency
    monkeypatch.setattr(
        profile, "module_latency", lambda network, *rest: timed.append(network) or measure(network, *rest)
    )
    short = ("task=profile", "task.batch_sizes=1", "task.repeats=1", frozen)
    assert command(*TINY_DETECTOR, *short, in_directory(tmp_path)) == 0
    norms = [module for module in timed[0].backbone.body.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 20
    assert all(norm.running_mean is not None and norm.running_mean.any() for norm in norms)


def test_coco_metrics_without_objects_are_undefined() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    nothing |= {"iscrowd": torch.zeros(0, dtype=torch.int64), "area": torch.zeros(0)}
    found = {"boxes": torch.tensor([[0.0, 0, 5, 5]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    values = coco_metrics([(found, nothing)])
    assert all(values[name] < 0 for name in COCO_METRICS)


def test_fit_without_test_objects_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DetectionModule, "compute_eval_metrics", lambda self: {})  # COCO's metrics are undefined
    assert command(*TINY_DETECTOR, "trainer.max_epochs=1", in_directory(tmp_path / "run")) == 0
    assert result_of(tmp_path / "run")["metrics"]["test"] == {}
    assert "none: the tested images contain no annotated objects" in capsys.readouterr().out
    assert command("task=export", f"run={tmp_path / 'run'}") == 1
    assert "task=export: needs a classifier, got a detector" in capsys.readouterr().err
