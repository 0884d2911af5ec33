"""Define the keys of conf/model: type, range and description."""

from ghostexp.config.key import Key, Keys, array, boolean, choice, integer, mapping, number, string

MODEL: Keys = {
    "weights": string(
        "Initial weights: a file, a run directory, https://...#sha256=HEX or timm/NAME from the Hugging Face hub."
    ).or_null(),
    "reset_head": boolean("Load all weights except those of the last linear layer, for other classes."),
    "plan": Key(
        "Convolutions that become ghost modules, each with its own ratio: a file that task=plan wrote, or a mapping.",
        ("string", "object", "null"),
        "must be a file that task=plan wrote, or a mapping such as {layers: {layer2.*: {ratio: 2}}}",
    ),
    "name": string("Name of the network in its library."),
    "num_classes": integer("Number of classes; taken from the datamodule.", least=1),
    "in_chans": integer("Channels of an image; taken from the datamodule.", least=1),
    "image_size": integer(
        "Image size in pixels; below 32, of GhostNetV2 and V3 up to 32, the first strides are 1.", least=1
    ).or_null(),
    "network": mapping("Network whose convolutions are replaced by ghost modules."),
    "backbone": mapping("Network that computes a detector's feature maps."),
    "ratio": Key(
        "s: 1/s of the output channels are convolved, the rest are ghost maps; 1, or null where allowed: no ghosts.",
        ("integer", "null"),
        "must be an integer >= 1",
        least=1,
    ),
    "dw_size": integer("d: kernel size of the cheap operations, odd.", least=1, odd=True),
    "width": number("alpha: factor of the channels of every layer except the head.", above=0),
    "se_ratio": number("Reduction ratio of squeeze-and-excitation; 0: none.", least=0),
    "num_branches": integer("Parallel convolutions in training, merged into one for inference.", least=1),
    "exclude": array("Convolutions that are not replaced: first, 1x1, or patterns such as layer1.*.", also=["string"]),
    "norm_act": choice(
        "What follows each convolution of a ghost module: none, bn or bn_relu.", "none", "bn", "bn_relu"
    ),
    "shortcut": choice("A: slice and pad, no parameters; B: 1x1 convolution with BatchNorm.", "A", "B"),
    "head": choice("mlp: dropout, 512, ReLU, dropout, linear; linear: dropout, linear.", "mlp", "linear"),
    "bias": boolean("Biases of the convolutions; redundant before BatchNorm, but in the published count."),
    "drop_rate": number("Dropout probability before the last layer.", least=0, below=1),
    "kwargs": mapping("Other arguments of the library's builder.").or_null(),
    "strides": array("Strides of the backbone's feature maps that a detector uses."),
    "fpn_channels": integer("Channels of every pyramid level.", least=1),
    "p6": boolean("Add a proposal level at twice the last stride."),
    "anchor_scale": number("Size of a level's smallest anchors, in strides.", least=1),
    "anchor_ratios": array("Height / width of the anchors.", needed="must be a list of numbers > 0"),
    "freeze_stages": integer("Number of finest feature maps whose layers are frozen.", least=0),
    "freeze_batchnorm": boolean("Freeze the backbone's BatchNorms."),
    "head_norm": boolean("GroupNorm in RetinaNet's heads, for training on few images without pretrained weights."),
    "head_channels": integer("Channels of the two linear layers of the box head.", least=1),
    "rpn_pre_nms_top_n": integer("Anchors of a level kept before non-maximum suppression.", least=1),
    "rpn_post_nms_top_n": integer("Proposals of an image kept after non-maximum suppression.", least=1),
    "box_batch_size_per_image": integer("Proposals sampled per image in training.", least=1),
    "box_score_thresh": number("Minimum score of a detection.", least=0, most=1),
    "box_nms_thresh": number(
        "IoU above which the lower-scored of two detections of a class is removed.", least=0, most=1
    ),
    "box_detections_per_img": integer("Maximum number of detections per image.", least=1),
}
