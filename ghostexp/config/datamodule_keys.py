"""Define the keys of conf/datamodule: type, range and description."""

from ghostexp.config.key import Keys, array, boolean, choice, integer, mapping, number, string

DATAMODULE: Keys = {
    "root": string("Directory of the data set."),
    "train": mapping("Dataset of the training images."),
    "test": mapping("Dataset of the test images."),
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
    "cache_short_side": integer(
        "Resize training images to this shorter side once, and cache them as JPEG files; null: off.", least=1
    ).or_null(),
    "cache_dir": string("Folder of the cache of resized images; null: .ghostexp in root.").or_null(),
    "batch_size": integer("Images per optimizer step, over all devices, nodes and accumulation steps.", least=1),
    "eval_batch_size": integer(
        "Images per batch of a validation or test, over all devices and nodes; null: batch_size.", least=1
    ).or_null(),
    "seed": integer("Seed of shuffling and augmentation.", least=0),
    "validate_on": choice("Validate on the test set, or on a holdout part of the training set.", "test", "holdout"),
    "split_seed": integer(
        "Seed of the holdout split, train_fraction and the digits' test set; independent of seed.", least=0
    ),
    "holdout_fraction": number("Fraction of the training set held out with validate_on=holdout.", above=0, below=1),
    "train_fraction": number("Fraction of the training set, without the held-out part, that is used.", above=0, most=1),
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
    "transforms": mapping(
        "Transforms of torchvision v2 by name, of uint8 images, after crop, flip and RandAugment."
    ).or_null(),
    "scale_jitter": number("Random scaling: 0.25 scales an image by 1/1.25 to 1.25.", least=0, most=4),
}
