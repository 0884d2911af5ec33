"""Datamodules of classification and detection: data sets, loaders, augmentation and checks.

- `datasets/`: one data set per file, each a LightningDataModule that conf/datamodule/ configures.
- `base.py`: base of all datamodules: splits, loaders, digests. Read it first.
- `classification_datamodule.py`, `detection_datamodule.py`: the base of each task's datamodules.
- `sampling.py`: which image comes when: permutations of epochs, their division among devices, random numbers.
- `in_memory.py`: small images as one tensor, batched and augmented on its device.
- `image_file_dataset.py`: large image files, loaded by workers. `resized_images.py`: a cache for them.
- `image_folders.py`, `tar_shards.py`: images of class folders and of tar files; `image_paths.py` holds many paths,
  `tar_member.py` is one file in an archive.
- `dataloader.py`, `worker_process.py`: the DataLoader of image files and detection, and its worker processes.
- `transforms.py`: augmentation of batches: crop, flip, random erasing, RandAugment, Mixup and CutMix.
- `image_files.py`, `image_check.py`, `file_lists.py`: read, check and list image files. `caches.py`: write caches.
- `coco_file.py`, `coco_boxes.py`, `coco_ids.py`: read and check COCO annotations; `coco_annotations.py`: hold them as
  arrays, transform boxes.
- `digest.py`: hashes by which a resumed run recognises its data.
"""
