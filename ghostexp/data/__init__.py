"""Data: one LightningDataModule a file (`digits`, `cifar`, `image_folder`, `fake`) on one of two paths.

`module` is what they share and the place to start reading. Small images take the array path (`arrays`, `augment`): one
tensor, whole batches at a time. Large ones take the worker path (`files`). `plan` says for both which image comes
when; `mix`, `split` and `folder` are Mixup and CutMix, stratified splits, and trees of class folders.
"""
