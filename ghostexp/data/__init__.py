"""Data: one LightningDataModule a file, for classification or for detection.

`base` is what all share and the place to start reading. Classification (`module`: `digits`, `cifar`, `image_folder`,
`fake`) has one of two paths: small images are one tensor, batched and augmented whole (`arrays`, `augment`); large ones
come from workers (`files`). Detection (`detection`: `coco`, `shapes`) takes workers too, with `boxes` for what happens
to those. `workers` is what both of these share. `sampler` says for all which image comes when; `mix`, `split` and `folder`
are Mixup and CutMix, splits, and trees of class folders.
"""
