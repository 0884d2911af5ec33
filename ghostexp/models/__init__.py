"""Networks of the GhostNet family and the baselines that they are compared with; only torch and torchvision are needed.

Every network is a `contract.Network`:

    network(x)                   images (N, in_chans, H, W) -> logits (N, num_classes): the two below in a row
    network.forward_features(x)  images -> the last feature map (N, C, H', W')
    network.forward_head(map)    that map -> logits
    network.feature_maps(x)      images -> {stride: the last map at that resolution}, what a detector reads
    network.feature_channels     {stride: channels of that map}
    network.min_size             the smallest image side that works; a smaller image raises ValueError
    network.reparameterize()     folds, in place, the branches that only training needs (GhostNetV3)

Knobs have one name in every ghost network: ratio (the paper's s), dw_size (d), width (alpha), se_ratio. A bad value
raises ValueError in one line that names the configuration's key: `model.ratio=2.5: a whole number >= 1 is needed`.

`fuse(network)` is a copy for inference without BatchNorm; `load_weights(network, file)` takes released weights and own.

Read `ghost.py` first, then `ghostnet.py` and `ghostify.py`; `ghostnet_v2.py` and `ghostnet_v3.py` say what these two
generations add, `external.py` has the networks of torchvision, and of timm where that is installed, by name. To add a
network: one file here and one YAML in conf/model.
"""
