"""Every setting, with its default, meaning and unit.

`pixels` are pixels of the canvas, the network's input.
"""
from dataclasses import dataclass, field
from typing import Optional, Union

from src.config.transforms import default_transforms, read_eval_transforms, read_train_transforms
from src.config.values import setting

FRACTION = {"low": 0, "high": 1}
# Upper limits are far beyond use: they keep a slip of the finger from asking for all memory, and numbers within fp32.
MAX_CHANNELS = 4096


@dataclass
class FPN:
    """The feature pyramid."""

    num_outs: int = setting(5, "number of pyramid levels; those beyond level_index come from stride-2 pooling", low=1, high=10)
    level_index: list[int] = setting([0, 1, 2, 3], "backbone stages used: 0 has stride 4, 3 has stride 32",
                                     low=0, high=3, ascending=True)
    norm: str = setting("none", "normalisation in the pyramid", choices=("none",))
    act: str = setting("none", "activation in the pyramid", choices=("none",))
    upsample_mode: str = setting("bilinear", "how the top-down path is scaled up", choices=("bilinear", "nearest"))


@dataclass
class Backbone:
    """The network that computes the features, and what of it is trained."""

    name: str = setting("det_resnet50", "det_resnet18, 34, 50, 101 or 152, or a mindcv model with strides 4 to 32")
    pretrained: Union[bool, str] = setting(True, "True: mindcv's ImageNet weights; False: none; or a checkpoint file")
    in_channels: Optional[list[int]] = setting(None, "channels of the four stages; None: ask the backbone",
                                               length=4, low=1)
    out_channels: int = setting(256, "channels of every pyramid level", low=1, high=MAX_CHANNELS)
    frozen_2stage: bool = setting(True, "keep the stem and the first stage as they are")
    frozen_bn: bool = setting(False, "keep BatchNorm's statistics and weights as they are")
    frozen: bool = setting(False, "keep the whole backbone as it is")
    bn_eps: Optional[float] = setting(None, "BatchNorm's epsilon (ResNets only); None: the backbone's own, 1e-5", low=1e-12,
                                      high=1)
    stem_pool: str = setting("mindcv", "padding of the stem's max-pooling", choices=("mindcv", "torchvision"))
    fpn: FPN = setting(FPN, "the feature pyramid")


@dataclass
class AnchorGenerator:
    """Anchors by pyramid level."""

    aspect_ratios: list[float] = setting([0.5, 1.0, 2.0], "height / width", low=0.01, high=100)
    anchor_sizes: list[list[float]] = setting([[32], [64], [128], [256], [512]],
                                              "by level: square roots of anchor areas, in pixels", low=1, high=100_000)
    strides: list[int] = setting([4, 8, 16, 32, 64], "by level: pixels between anchors", low=1, ascending=True)
    rounded: bool = setting(False, "move the corners of each size and ratio to whole pixels, as torchvision does")
    strides_from_canvas: bool = setting(False, "pixels between anchors are the canvas // the level's cells, as in torchvision; "
                                        "differs from strides where these do not divide target_size")


@dataclass
class RPNLabelAssignment:
    """Which anchors carry loss."""

    rnp_sample_batch: int = setting(256, "anchors sampled an image (spelt as in the older files)", low=1)
    fg_fraction: float = setting(0.5, "largest share of positive anchors in the sample", **FRACTION)
    negative_overlap: float = setting(0.3, "IoU below which an anchor is negative", **FRACTION)
    positive_overlap: float = setting(0.7, "IoU from which on an anchor is positive", **FRACTION)
    use_random: bool = setting(True, "sample at random; False: take the first ones, for tests")


@dataclass
class Proposal:
    """How proposals are chosen from the anchors."""

    min_size: float = setting(1.0, "shortest side of a proposal, in pixels", low=0)
    nms_thresh: float = setting(0.7, "IoU above which the lower-scored proposal of a level is dropped", **FRACTION)
    pre_nms_top_n: int = setting(2000, "best anchors of each level that enter NMS", low=1)
    post_nms_top_n: int = setting(1000, "proposals an image, over all levels", low=1)


@dataclass
class RPNHead:
    """The region proposal network."""

    feat_channel: int = setting(256, "channels of its 3x3 convolution", low=1, high=MAX_CHANNELS)
    smooth_l1_beta: float = setting(1 / 9, "where its smooth L1 turns from square to straight", low=1e-6)
    anchor_generator: AnchorGenerator = setting(AnchorGenerator, "anchors by pyramid level")
    rpn_label_assignment: RPNLabelAssignment = setting(RPNLabelAssignment, "which anchors carry loss")
    train_proposal: Proposal = setting(Proposal, "how proposals are chosen in training")
    test_proposal: Proposal = setting(lambda: Proposal(pre_nms_top_n=1000), "how proposals are chosen in evaluation")


@dataclass
class BoxFCHead:
    """The two fully connected layers."""

    name: str = setting("RCNNBBoxTwoFCHead", "kind of head", choices=("RCNNBBoxTwoFCHead",))
    in_channel: int = setting(256, "channels of the pooled features; equals backbone.out_channels", low=1, high=MAX_CHANNELS)
    out_channel: int = setting(1024, "width of the two layers", low=1, high=65_536)


@dataclass
class RoIExtractor:
    """Pooling of features for each proposal."""

    featmap_strides: list[int] = setting([4, 8, 16, 32], "strides of the levels that are pooled from, in pixels",
                                         low=1, ascending=True)
    sampling_ratio: int = setting(2, "samples along each side of a pooled cell", low=1, high=16)
    aligned: bool = setting(True, "shift by half a pixel so that cell centres meet pixel centres")


@dataclass
class BBoxAssigner:
    """Which proposals carry the box head's loss."""

    name: str = setting("BBoxAssigner", "kind of assigner", choices=("BBoxAssigner",))
    rois_per_batch: int = setting(512, "proposals sampled an image", low=1)
    bg_thresh: float = setting(0.5, "IoU below which a proposal is background", **FRACTION)
    fg_thresh: float = setting(0.5, "IoU from which on a proposal is foreground", **FRACTION)
    fg_fraction: float = setting(0.25, "largest share of foreground in the sample", **FRACTION)
    use_random: bool = setting(True, "sample at random; False: take the first ones, for tests")


@dataclass
class BBoxHead:
    """The second stage: classes and boxes of proposals."""

    resolution: int = setting(7, "cells along each side of the pooled features", low=1, high=64)
    add_gt_as_proposals: bool = setting(True, "add the annotated boxes to the proposals in training")
    smooth_l1_beta: float = setting(1.0, "where its smooth L1 turns from square to straight", low=1e-6)
    bbox_weights: list[float] = setting([10.0, 10.0, 5.0, 5.0], "factors of the deltas dx, dy, dw, dh",
                                        length=4, low=0.01, high=1000)
    head: BoxFCHead = setting(BoxFCHead, "the two fully connected layers")
    roi_extractor: RoIExtractor = setting(RoIExtractor, "pooling of features for each proposal")
    bbox_assigner: BBoxAssigner = setting(BBoxAssigner, "which proposals carry loss")


@dataclass
class TrainTransforms:
    """What happens to a training image."""

    item_transforms: list[dict] = setting(lambda: default_transforms(True), "list of one-key mappings, in order",
                                          parse=read_train_transforms)


@dataclass
class EvalTransforms:
    """What happens to an image in evaluation."""

    item_transforms: list[dict] = setting(lambda: default_transforms(False), "list of one-key mappings, in order",
                                          parse=read_eval_transforms)


@dataclass
class DrawShapes:
    """The data set of coloured shapes that the program draws itself."""

    train_images: int = setting(600, "training images", low=1, high=1_000_000)
    val_images: int = setting(100, "validation images", low=1, high=1_000_000)
    height: int = setting(160, "height of an image, in pixels", low=32, high=4096)
    width: int = setting(160, "width of an image, in pixels", low=32, high=4096)
    seed: int = setting(0, "seed of the drawing", low=0, high=2**32 - 1)


@dataclass
class Data:
    """Where the images are, and what happens to them. Paths are relative to dataset_dir unless absolute."""

    dataset_dir: str = setting("", "folder of the data set")
    train_img_dir: str = setting("train2017", "folder of the training images")
    train_anno_path: str = setting("annotations/instances_train2017.json", "annotation file for training")
    val_img_dir: str = setting("val2017", "folder of the validation images")
    val_anno_path: str = setting("annotations/instances_val2017.json", "annotation file for evaluation")
    nc: Optional[int] = setting(None, "number of classes; None: as many as the annotation file has", low=1)
    names: Optional[list[str]] = setting(None, "class names; None: those of the annotation file")
    target_size: list[int] = setting([768, 1280], "canvas (height, width) in pixels, multiples of 32", length=2, low=1,
                                     high=16_384)
    draw_shapes: Optional[DrawShapes] = setting(None, "draw this data set into dataset_dir; None: it is there")
    train_transforms: TrainTransforms = setting(TrainTransforms, "what happens to a training image")
    eval_transforms: EvalTransforms = setting(EvalTransforms, "what happens to an image in evaluation")


@dataclass
class Optimizer:
    """How weights are updated."""

    type: str = setting("momentum", "stochastic gradient descent with momentum, under either name", choices=("momentum", "sgd"))
    weight_decay: float = setting(5e-5, "factor of the L2 penalty", **FRACTION)
    momentum: float = setting(0.9, "share of the last update that is kept", **FRACTION)
    nesterov: bool = setting(False, "Nesterov's form of momentum")
    filter_bias_and_bn: bool = setting(True, "no weight decay on biases and BatchNorm")


@dataclass
class LearningRate:
    """The schedule; the rate itself is lr_init."""

    warmup_step: int = setting(500, "steps of the linear ramp at the start", low=0)
    warmup_ratio: float = setting(0.001, "the ramp starts at this fraction; 1: no ramp", **FRACTION)
    decay_rate: float = setting(0.1, "factor at each milestone", above=0, high=1)
    milestones: list[int] = setting([8, 11], "epochs after which the rate drops", low=1, ascending=True, shortest=0)
    base_batch_size: int = setting(16, "images a step that lr_init is meant for; 0: never scale lr_init", low=0)


@dataclass
class Infer:
    """From the network's output to detections."""

    conf_threshold: float = setting(0.05, "detections below this probability are dropped", **FRACTION)
    nms_threshold: float = setting(0.5, "IoU above which the lower-scored box of a class is dropped", **FRACTION)
    max_box_num: int = setting(100, "detections kept an image", low=1)


@dataclass
class Config:
    """All settings of a run."""

    net: str = setting("FasterRCNN", "name of the detector, first part of checkpoint names", choices=("FasterRCNN",))
    device_target: str = setting("Ascend", "where to run", choices=("Ascend", "GPU", "CPU"))
    ms_mode: int = setting(0, "0: compiled graph; 1: PyNative, operator by operator", choices=(0, 1))
    mix: bool = setting(True, "fp16 mixed precision")
    seed: int = setting(1234, "seed of weights, shuffling and sampling", low=0, high=2**32 - 1)
    batch_size: int = setting(2, "images a step and device", low=1, high=1024)
    lr_init: float = setting(0.02, "learning rate for lr.base_batch_size images a step", above=0, high=1000)
    epochs: int = setting(12, "passes over the training images", low=1)
    ms_loss_scaler: str = setting("static", "loss scaling", choices=("static", "dynamic", "none"))
    ms_loss_scaler_value: float = setting(256.0, "loss scale (dynamic: the first one)", low=1, high=2**30)
    clip_grads: Union[bool, float] = setting(False, "largest global norm of the gradients; False: off; True: 10",
                                             above=0, high=1_000_000)
    log_interval: int = setting(100, "steps between two log lines", low=1)
    run_eval: bool = setting(False, "evaluate during training")
    tensorboard: bool = setting(False, "write TensorBoard's event files into <save_dir>/tensorboard (needs tensorboardX)")
    save_interval_steps: int = setting(0, "steps between two checkpoints inside an epoch; 0: only at its end", low=0)
    keep_checkpoint_max: int = setting(5, "checkpoints kept, the newest ones; the best is kept besides", low=1)
    eval_interval: int = setting(1, "epochs between two evaluations", low=1)
    save_dir: str = setting("output", "folder of checkpoints, logs and results")
    compile_cache: str = setting("", "folder of compiled graphs that later runs with the same settings take up; empty: none")
    num_workers: int = setting(2, "processes that read images", low=1)
    prefetch_size: int = setting(4, "depth of the pipeline's queues, in batches", low=1, high=1024)
    max_rowsize: int = setting(64, "shared memory that a batch of the pipeline, or a row of it where a batch "
                               "takes more, may take, in MB", low=1)
    resume_ckpt: str = setting("", "checkpoint to continue from; auto: the newest intact one in save_dir, or none")
    checkpoint_path: str = setting("", "checkpoint file to use, or folder of them to evaluate")
    image: list[str] = setting([], "images to detect on: files, folders or patterns such as 'folder/*.jpg'", shortest=0)
    file_format: str = setting("MINDIR", "exported file: MindSpore's MINDIR, or ONNX", choices=("MINDIR", "ONNX"))
    output: str = setting("", "exported file to write; its name ends with .mindir or .onnx")
    run_profiler: bool = setting(False, "profile a few steps of training with MindSpore's profiler")
    enable_modelarts: bool = setting(False, "run on Huawei Cloud's ModelArts: copy data in and outputs out")
    data_url: str = setting("", "ModelArts: where the data set is, obs://...; empty: it is in place")
    train_url: str = setting("", "ModelArts: where the outputs go, obs://...")
    ckpt_url: str = setting("", "ModelArts: checkpoint to start from or to evaluate, obs://...")
    data_dir: str = setting("/cache/data", "ModelArts: folder on the machine that the data set is copied to")
    skip_bad_images: bool = setting(False, "count unreadable images in evaluation instead of stopping")
    backbone: Backbone = setting(Backbone, "the network that computes the features")
    rpn_head: RPNHead = setting(RPNHead, "the region proposal network")
    bbox_head: BBoxHead = setting(BBoxHead, "the second stage")
    data: Data = setting(Data, "where the images are, and what happens to them")
    optimizer: Optimizer = setting(Optimizer, "how weights are updated")
    lr: LearningRate = setting(LearningRate, "the learning rate's schedule")
    infer: Infer = setting(Infer, "from the network's output to detections")
    config_file: str = field(default="", metadata={})  # set by load_config; no file or flag can set it
