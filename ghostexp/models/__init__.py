"""Networks of the GhostNet family and their baselines; torch and torchvision suffice (and safetensors for such files).

Every classifier is a `base.Network`:

    network(x)                        images (N, in_chans, H, W) -> logits (N, num_classes): the next two in a row
    network.forward_features(x)       images -> the last feature map (N, C, H', W')
    network.forward_head(features)    that map -> logits
    network.feature_maps(x)           images -> {stride: the last map at that resolution}, the input of a detector's FPN
    network.feature_channels          {stride: channels of that map}
    network.min_size                  the smallest image side that works; a smaller image raises ValueError
    network.reparameterize()          folds, in place, the branches that only training needs (GhostNetV3)

Every detector is a `detection.base.DetectionModel` on such a network: losses in training mode, else boxes.

Arguments have the same names in all ghost networks: ratio (the paper's s) and dw_size (d); those of `ghostnet.py`,
`ghostnetv2.py` and `ghostnetv3.py` have width (alpha) and se_ratio too; `ghostnet_replication`, a fixed network, has
none. A bad value raises ValueError in one line that names the config key: `model.ratio=2.5: must be an integer >= 1`.

`fuse(network)` returns a copy for inference in which BatchNorms are folded into their convolutions (one after a ghost
module with norm_act=none stays); `load_weights(network, file)` loads released or own weights.

Read `ghost_module.py` first, then `ghostnet.py` and `ghostify.py`. `ghostnetv2.py` and `ghostnetv3.py` add the next two
generations, `resnet_cifar.py` and `vgg_cifar.py` are the baselines for 32 x 32 images, `torchvision_timm.py` builds the
networks of torchvision, and of timm if that is installed, by name, and `traced_network.py` finds the feature maps of
these and of any other module. To add a network, add one file here and one YAML in
conf/model.
"""
