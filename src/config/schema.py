"""Every setting, with its default, meaning and unit.

`pixels` are pixels of the canvas, the network's input. What a section is for stands where it is used.
"""
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import AfterValidator, Discriminator, Field, Tag

from src.config.transforms import EvalTransformList, TrainTransformList, default_transforms
from src.config.values import (
    Ascending,
    Count,
    Fraction,
    Natural,
    NotEmpty,
    Number,
    OptionalText,
    Section,
    Text,
    WholeNumber,
    length,
    null_means,
    setting,
)

# Upper limits are far beyond use: they keep a slip of the finger from asking for all memory, and numbers within fp32.
MAX_CHANNELS = 4096
CanvasSize = Annotated[list[Annotated[int, Field(ge=1, le=16_384)]], length(2)]
DefaultNorm = AfterValidator(lambda norm: 10.0 if norm is True else norm)


class FPN(Section):
    num_outs: int = setting(5, "number of pyramid levels; those beyond level_index come from stride-2 pooling", ge=1, le=10)
    level_index: Annotated[list[Annotated[int, Field(ge=0, le=3)]], NotEmpty, Ascending] = setting(
        [0, 1, 2, 3], "backbone stages used: 0 has stride 4, 3 has stride 32")
    norm: Annotated[Literal["none"], null_means("none")] = setting("none", "normalisation in the pyramid")
    act: Annotated[Literal["none"], null_means("none")] = setting("none", "activation in the pyramid")
    upsample_mode: Literal["bilinear", "nearest"] = setting("bilinear", "how the top-down path is scaled up")


class Backbone(Section):
    name: Text = setting("det_resnet50", "det_resnet18, 34, 50, 101 or 152, or a mindcv model with strides 4 to 32")
    pretrained: Union[bool, Text] = setting(True, "True: mindcv's ImageNet weights; False: none; or a checkpoint file")
    in_channels: Optional[Annotated[list[Count], length(4)]] = setting(None, "channels of the stages; None: ask the backbone")
    out_channels: int = setting(256, "channels of every pyramid level", ge=1, le=MAX_CHANNELS)
    frozen_2stage: bool = setting(True, "keep the stem and the first stage as they are")
    frozen_bn: bool = setting(False, "keep BatchNorm's statistics and weights as they are")
    frozen: bool = setting(False, "keep the whole backbone as it is")
    bn_eps: Optional[Number] = setting(None, "BatchNorm's epsilon (ResNets only); None: the backbone's own, 1e-5", ge=1e-12, le=1)
    stem_pool: Literal["mindcv", "torchvision"] = setting("mindcv", "padding of the stem's max-pooling")
    fpn: FPN = setting(FPN(), "the feature pyramid")


class AnchorGenerator(Section):
    aspect_ratios: Annotated[list[Annotated[Number, Field(ge=0.01, le=100)]], NotEmpty] = setting(
        [0.5, 1.0, 2.0], "height / width")
    anchor_sizes: Annotated[list[Annotated[list[Annotated[Number, Field(ge=1, le=100_000)]], NotEmpty]], NotEmpty] = setting(
        [[32.0], [64.0], [128.0], [256.0], [512.0]], "by level: square roots of anchor areas, in pixels")
    strides: Annotated[list[Count], NotEmpty, Ascending] = setting([4, 8, 16, 32, 64], "by level: pixels between anchors")
    rounded: bool = setting(False, "move the corners of each size and ratio to whole pixels, as torchvision does")
    strides_from_canvas: bool = setting(False, "pixels between anchors are the canvas // the level's cells, as in torchvision; "
                                        "differs from strides where these do not divide target_size")


class RPNLabelAssignment(Section):
    rnp_sample_batch: Count = setting(256, "anchors sampled an image (spelt as in the older files)")
    fg_fraction: Fraction = setting(0.5, "largest share of positive anchors in the sample")
    negative_overlap: Fraction = setting(0.3, "IoU below which an anchor is negative")
    positive_overlap: Fraction = setting(0.7, "IoU from which on an anchor is positive")
    use_random: bool = setting(True, "sample at random; False: take the first ones, for tests")


class Proposal(Section):
    min_size: Number = setting(1.0, "shortest side of a proposal, in pixels", ge=0)
    drop_small_first: bool = setting(False, "drop boxes below min_size before the best anchors are chosen; False: afterwards")
    nms_thresh: Fraction = setting(0.7, "IoU above which the lower-scored proposal of a level is dropped")
    pre_nms_top_n: Count = setting(2000, "best anchors of each level that enter NMS")
    post_nms_top_n: Count = setting(1000, "proposals an image, over all levels")
    joint_nms_thresh: Optional[Fraction] = setting(None, "IoU above which the lower-scored of these is dropped, whatever their "
                                                   "levels; None: levels do not suppress each other")
    clip_to: Literal["image", "canvas"] = setting("image", "where proposals end: at the image's border, or at the canvas's last "
                                                  "pixels, padding included")


class RPNHead(Section):
    feat_channel: int = setting(256, "channels of its 3x3 convolution", ge=1, le=MAX_CHANNELS)
    smooth_l1_beta: Number = setting(1 / 9, "where its smooth L1 turns from square to straight", ge=1e-6)
    anchor_generator: AnchorGenerator = setting(AnchorGenerator(), "anchors by pyramid level")
    rpn_label_assignment: RPNLabelAssignment = setting(RPNLabelAssignment(), "which anchors carry loss")
    train_proposal: Proposal = setting(Proposal(), "how proposals are chosen in training")
    test_proposal: Proposal = setting(Proposal(pre_nms_top_n=1000), "how proposals are chosen in evaluation")


class BoxFCHead(Section):
    name: Literal["RCNNBBoxTwoFCHead"] = setting("RCNNBBoxTwoFCHead", "kind of head")
    in_channel: int = setting(256, "channels of the pooled features; equals backbone.out_channels", ge=1, le=MAX_CHANNELS)
    out_channel: int = setting(1024, "width of the two layers", ge=1, le=65_536)


class RoIExtractor(Section):
    featmap_strides: Annotated[list[Count], NotEmpty, Ascending] = setting(
        [4, 8, 16, 32], "strides of the levels that are pooled from, in pixels")
    sampling_ratio: int = setting(2, "samples along each side of a pooled cell", ge=1, le=16)
    aligned: bool = setting(True, "shift by half a pixel so that cell centres meet pixel centres")
    operator: Optional[Literal["gather", "roi_align"]] = setting(
        None, "gather: rows of features are gathered; roi_align: MindSpore's ROIAlign on every level; None: gather on the CPU, "
        "roi_align elsewhere")


class BBoxAssigner(Section):
    name: Literal["BBoxAssigner"] = setting("BBoxAssigner", "kind of assigner")
    rois_per_batch: Count = setting(512, "proposals sampled an image")
    bg_thresh: Fraction = setting(0.5, "IoU below which a proposal is background")
    fg_thresh: Fraction = setting(0.5, "IoU from which on a proposal is foreground")
    fg_fraction: Fraction = setting(0.25, "largest share of foreground in the sample")
    use_random: bool = setting(True, "sample at random; False: take the first ones, for tests")


class BBoxHead(Section):
    resolution: int = setting(7, "cells along each side of the pooled features", ge=1, le=64)
    add_gt_as_proposals: bool = setting(True, "add the annotated boxes to the proposals in training")
    smooth_l1_beta: Number = setting(1.0, "where its smooth L1 turns from square to straight", ge=1e-6)
    bbox_weights: Annotated[list[Annotated[Number, Field(ge=0.01, le=1000)]], length(4)] = setting(
        [10.0, 10.0, 5.0, 5.0], "factors of the deltas dx, dy, dw, dh")
    clip_first: bool = setting(True, "in evaluation, clip boxes to the image before they suppress each other; False: afterwards")
    head: BoxFCHead = setting(BoxFCHead(), "the two fully connected layers")
    roi_extractor: RoIExtractor = setting(RoIExtractor(), "pooling of features for each proposal")
    bbox_assigner: BBoxAssigner = setting(BBoxAssigner(), "which proposals carry loss")


class TrainTransforms(Section):
    item_transforms: TrainTransformList = setting(default_transforms(True), "list of one-key mappings, in order")


class EvalTransforms(Section):
    item_transforms: EvalTransformList = setting(default_transforms(False), "list of one-key mappings, in order")


class DrawShapes(Section):
    train_images: int = setting(600, "training images", ge=1, le=1_000_000)
    val_images: int = setting(100, "validation images", ge=1, le=1_000_000)
    height: int = setting(160, "height of an image, in pixels", ge=32, le=4096)
    width: int = setting(160, "width of an image, in pixels", ge=32, le=4096)
    seed: int = setting(0, "seed of the drawing", ge=0, le=2**32 - 1)


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, list) and any(isinstance(part, list) for part in value) else "one"


def _list_or_text(value: Any) -> str:
    return "list" if isinstance(value, list) else "text"


# A path, or a list of them.
Paths = Annotated[Union[Annotated[Text, Tag("text")], Annotated[list[Text], NotEmpty, Tag("list")]], Discriminator(_list_or_text)]


class Data(Section):
    dataset_dir: OptionalText = setting("", "folder of the data set")
    train_img_dir: Paths = setting("train2017", "folder of the training images, or a list of one for each annotation file")
    train_anno_path: Paths = setting("annotations/instances_train2017.json", "annotation file for training, or a list of them")
    val_img_dir: Text = setting("val2017", "folder of the validation images")
    val_anno_path: Text = setting("annotations/instances_val2017.json", "annotation file for evaluation")
    nc: Optional[Count] = setting(None, "number of classes; None: as many as the annotation file has")
    names: Optional[Annotated[list[Text], NotEmpty]] = setting(None, "class names; None: those of the annotation file")
    classes: Optional[Annotated[list[Text], NotEmpty]] = setting(
        None, "names of the classes to train and score, by label; boxes of others are left out; None: all")
    unite_classes: bool = setting(False, "annotation files may have different classes, which are told apart by name")
    keep_empty_images: bool = setting(False, "train on images without boxes as well, as background")
    repeat_threshold: Fraction = setting(0.0, "images of classes that fewer than this share of the images have are repeated in "
                                         "an epoch (repeat-factor sampling); 0: none is")
    target_size: Annotated[
        Union[Annotated[CanvasSize, Tag("one")], Annotated[list[CanvasSize], Tag("several")]], Discriminator(_one_or_several)
    ] = setting([768, 1280], "canvas (height, width) in pixels, multiples of 32; of a list of them each image goes to the one on "
                "which it becomes largest")
    draw_shapes: Optional[DrawShapes] = setting(None, "draw this data set into dataset_dir; None: it is there")
    train_transforms: TrainTransforms = setting(TrainTransforms(), "what happens to a training image")
    eval_transforms: EvalTransforms = setting(EvalTransforms(), "what happens to an image in evaluation")

    @property
    def train_files(self) -> list[tuple[str, str]]:
        """(annotation file, image folder) of each part of the training set."""
        paths: tuple[Any, Any] = self.train_anno_path, self.train_img_dir
        annotations, images = (value if isinstance(value, list) else [value] for value in paths)
        return list(zip(annotations, images))

    @property
    def canvases(self) -> tuple[tuple[int, int], ...]:
        """The (height, width) of each canvas in pixels, in the order of target_size."""
        sizes: Any = self.target_size if _one_or_several(self.target_size) == "several" else [self.target_size]
        return tuple((height, width) for height, width in sizes)


class Optimizer(Section):
    type: Literal["momentum", "sgd"] = setting("momentum", "stochastic gradient descent with momentum, under either name")
    weight_decay: Fraction = setting(5e-5, "factor of the L2 penalty")
    momentum: Fraction = setting(0.9, "share of the last update that is kept")
    nesterov: bool = setting(False, "Nesterov's form of momentum")
    filter_bias_and_bn: bool = setting(True, "no weight decay on biases and BatchNorm")


class LearningRate(Section):
    warmup_step: Natural = setting(500, "steps of the linear ramp at the start")
    warmup_ratio: Fraction = setting(0.001, "the ramp starts at this fraction; 1: no ramp")
    decay_rate: Number = setting(0.1, "factor at each milestone", gt=0, le=1)
    milestones: Annotated[list[Count], Ascending] = setting([8, 11], "epochs after which the rate drops")
    base_batch_size: Natural = setting(16, "images a step that lr_init is meant for; 0: never scale lr_init")


class Infer(Section):
    conf_threshold: Fraction = setting(0.05, "detections below this probability are dropped")
    nms_threshold: Fraction = setting(0.5, "IoU above which the lower-scored box of a class is dropped")
    max_box_num: Optional[Count] = setting(100, "detections kept an image; None: all")


class Config(Section):
    net: Literal["FasterRCNN"] = setting("FasterRCNN", "name of the detector, first part of checkpoint names")
    device_target: Literal["auto", "Ascend", "GPU", "CPU"] = setting("auto", "where to run; auto: the first of the others that "
                                                                     "can be used")
    ms_mode: Annotated[Literal[0, 1], WholeNumber] = setting(0, "0: compiled graph; 1: PyNative, operator by operator")
    jit_level: Literal["", "O0", "O1", "O2"] = setting("", "how MindSpore compiles graphs; empty: its own choice for the device")
    mix: bool = setting(True, "mixed precision")
    mix_dtype: Literal["float16", "bfloat16"] = setting("float16", "what convolutions and dense layers compute in with mix on "
                                                        "Ascend and GPU; bfloat16, that of the CPU, needs no loss scale")
    seed: int = setting(1234, "seed of weights, shuffling and sampling", ge=0, le=2**32 - 1)
    batch_size: int = setting(2, "images a step and device", ge=1, le=1024)
    accumulate_steps: int = setting(1, "micro-batches of batch_size images a step and device, whose gradients are averaged",
                                    ge=1, le=1024)
    lr_init: Number = setting(0.02, "learning rate for lr.base_batch_size images a step", gt=0, le=1000)
    epochs: Count = setting(12, "passes over the training images")
    ms_loss_scaler: Annotated[Literal["static", "dynamic", "none"], null_means("none")] = setting("static", "loss scaling")
    ms_loss_scaler_value: Number = setting(256.0, "loss scale (dynamic: the first one)", ge=1, le=2**30)
    clip_grads: Annotated[Union[bool, Annotated[Number, Field(gt=0, le=1_000_000)]], DefaultNorm] = setting(
        False, "largest global norm of the gradients; False: off; True: 10")
    log_interval: Count = setting(100, "steps between two log lines")
    run_eval: bool = setting(False, "evaluate during training")
    tensorboard: bool = setting(False, "write TensorBoard's event files into <save_dir>/tensorboard (needs tensorboardX)")
    save_interval_steps: Natural = setting(0, "steps between two checkpoints inside an epoch; 0: only at its end")
    keep_checkpoint_max: Count = setting(5, "checkpoints kept, the newest ones; the best is kept besides")
    eval_interval: Count = setting(1, "epochs between two evaluations")
    early_stop: Natural = setting(0, "end training after so many evaluations in a row without a better AP; 0: never")
    save_dir: Text = setting("output", "folder of checkpoints, logs and results")
    compile_cache: OptionalText = setting("", "CPU: folder of compiled graphs that later runs with the same settings take up; "
                                          "empty: none")
    num_workers: Count = setting(2, "threads that read images (processes where max_rowsize is set)")
    prefetch_size: int = setting(4, "depth of the pipeline's queues, in batches", ge=1, le=1024)
    max_rowsize: Optional[Count] = setting(None, "None: worker threads; a number asks for MindSpore's worker processes with so "
                                           "many MB of shared memory a row")
    resume_ckpt: OptionalText = setting("", "checkpoint to continue from; auto: the newest intact one in save_dir, or none")
    checkpoint_path: OptionalText = setting("", "checkpoint file to use, or folder of them to evaluate")
    image: list[Text] = setting([], "images to detect on: files, folders or patterns such as 'folder/*.jpg'")
    file_format: Literal["MINDIR", "ONNX"] = setting("MINDIR", "exported file: MindSpore's MINDIR, or ONNX")
    raw: bool = setting(False, "exported file: the network alone, on images that are scaled already, as MINDIR always is; False: "
                        "ONNX does the whole job, from an image of any size to detections")
    quantize: bool = setting(False, "exported ONNX file: convolutions and dense layers in int8, calibrated on the images of "
                             "--image")
    output: OptionalText = setting("", "exported file to write; its name ends with .mindir or .onnx")
    font: OptionalText = setting("", "font file, .ttf, .otf or .ttc, for class names beyond ASCII; empty: look for one")
    run_profiler: bool = setting(False, "profile a few steps of training with MindSpore's profiler")
    enable_modelarts: bool = setting(False, "run on Huawei Cloud's ModelArts: copy data in and outputs out")
    data_url: OptionalText = setting("", "ModelArts: where the data set is, obs://...; empty: it is in place")
    train_url: OptionalText = setting("", "ModelArts: where the outputs go, obs://...")
    ckpt_url: OptionalText = setting("", "ModelArts: checkpoint to start from or to evaluate, obs://...")
    data_dir: Text = setting("/cache/data", "ModelArts: folder on the machine that the data set is copied to")
    skip_bad_images: bool = setting(False, "count unreadable images in evaluation instead of stopping")
    backbone: Backbone = setting(Backbone(), "the network that computes the features")
    rpn_head: RPNHead = setting(RPNHead(), "the region proposal network")
    bbox_head: BBoxHead = setting(BBoxHead(), "the second stage")
    data: Data = setting(Data(), "where the images are, and what happens to them; paths are relative to dataset_dir")
    optimizer: Optimizer = setting(Optimizer(), "how weights are updated")
    lr: LearningRate = setting(LearningRate(), "the learning rate's schedule; the rate itself is lr_init")
    infer: Infer = setting(Infer(), "from the network's output to detections")

    @property
    def roi_operator(self) -> Literal["gather", "roi_align"]:
        """What bbox_head.roi_extractor.operator says, or what suits device_target."""
        return self.bbox_head.roi_extractor.operator or ("gather" if self.device_target == "CPU" else "roi_align")
