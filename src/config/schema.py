"""All settings, with their defaults, meanings and units.

The word `pixels` means pixels of the canvas (the network's input). Each section is described by its field in the parent section.
"""
import fractions
import re
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from src.config.base import Ascending, Count, Fraction, Natural, NoneText, NotEmpty, Number, OptionalText, Section, Text, setting
from src.config.transforms import DEFAULTS, EvalTransformList, TrainTransformList, TransformSection, read_transforms
from src.errors import short_repr

STRIDE = 32  # stride of the backbone's last stage; the canvas's sides must be multiples of it


def _several(target_size: Any) -> str:
    return "several" if isinstance(target_size, list) and any(isinstance(size, list) for size in target_size) else "one"


def _check_milestones(values: list) -> list:
    known = all(re.fullmatch("[1-9][0-9]{0,8}/[1-9][0-9]{0,8}", value) for value in values if isinstance(value, str))
    exact = [fractions.Fraction(str(value)) for value in values] if known else []
    of_one_kind = all(isinstance(value, int) for value in values) or all(0 < value < 1 for value in exact)
    if not known or not of_one_kind or any(low >= high for low, high in zip(exact, exact[1:])):
        raise ValueError("must be an ascending list of epochs (whole numbers), or of fractions of the training such as 2/3 or "
                         f"0.75, not {short_repr(values)}")
    return values


Channels = Annotated[int, Field(ge=1, le=4096)]
Side = Annotated[int, Field(ge=1, le=16_384), AfterValidator(lambda side: -(-side // STRIDE) * STRIDE)]
CanvasSize = Annotated[list[Side], Field(min_length=2, max_length=2)]
CanvasSizes = Annotated[
    Union[Annotated[CanvasSize, Tag("one")], Annotated[list[CanvasSize], Tag("several")]], Discriminator(_several)]
Paths = Union[Text, Annotated[list[Text], NotEmpty]]
Four = Field(min_length=4, max_length=4)
Positive = Annotated[Number, Field(ge=0.01, le=100_000)]
Beta = Annotated[Number, Field(ge=1e-6)]
OfFileFormat = BeforeValidator(lambda value: value == "MINDIR" if value in ("MINDIR", "ONNX") else value)  # older values
DefaultNorm = AfterValidator(lambda norm: 10.0 if norm is True else norm)


class FPN(Section):
    num_outs: int = setting(5, "number of pyramid levels; levels after level_index are pooled with stride 2", ge=1, le=10)
    level_index: Annotated[list[Annotated[int, Field(ge=0, le=3)]], NotEmpty, Ascending] = setting(
        [0, 1, 2, 3], "backbone stages used by the pyramid: 0 has stride 4, 3 has stride 32")
    norm: Annotated[Literal["none", "bn"], NoneText] = setting("none", "bn: BatchNorm instead of biases in the pyramid")
    act: Annotated[Literal["none"], NoneText] = setting("none", "activation in the pyramid")
    upsample_mode: Literal["bilinear", "nearest"] = setting("bilinear", "interpolation of the top-down path")


class Backbone(Section):
    name: Text = setting("det_resnet50", "det_resnet18, 34, 50, 101 or 152, or a mindcv model with strides 4 to 32")
    pretrained: Union[bool, Text] = setting(True, "True: mindcv's ImageNet weights; False: random; or a checkpoint file")
    in_channels: Optional[Annotated[list[Count], Four]] = setting(None, "channels of the stages; None: the backbone's")
    out_channels: Channels = setting(256, "channels of every pyramid level")
    frozen_2stage: bool = setting(True, "freeze the stem and the first stage")
    frozen_bn: bool = setting(False, "freeze the statistics and weights of the backbone's BatchNorm")
    frozen: bool = setting(False, "freeze the whole backbone")
    bn_eps: Optional[Number] = setting(None, "BatchNorm's epsilon (ResNets only); None: the default, 1e-5", ge=1e-12, le=1)
    stem_pool: Literal["mindcv", "torchvision"] = setting("mindcv", "padding of the stem's max-pooling; torchvision: 1")
    fpn: FPN = setting(FPN(), "feature pyramid network")


class AnchorGenerator(Section):
    aspect_ratios: Annotated[list[Positive], NotEmpty] = setting([0.5, 1.0, 2.0], "height / width of the anchors")
    anchor_sizes: Annotated[list[Annotated[list[Positive], NotEmpty]], NotEmpty] = setting(
        [[32.0], [64.0], [128.0], [256.0], [512.0]], "per level: square roots of anchor areas, in pixels")
    strides: Annotated[list[Count], NotEmpty, Ascending] = setting([4, 8, 16, 32, 64], "per level: pixels between anchors")
    rounded: bool = setting(False, "round anchor corners to whole pixels, as torchvision does")
    strides_from_canvas: bool = setting(False, "as torchvision: pixels between anchors = canvas side // cells of a level")


class RPNLabelAssignment(Section):
    rnp_sample_batch: Count = setting(256, "anchors sampled per image (spelt as in the older files)")
    fg_fraction: Fraction = setting(0.5, "maximum fraction of positive anchors in the sample")
    negative_overlap: Fraction = setting(0.3, "IoU threshold below which an anchor is negative")
    positive_overlap: Fraction = setting(0.7, "IoU threshold at or above which an anchor is positive")
    use_random: bool = setting(True, "sample at random; False: use the first ones, for tests")


class Proposal(Section):
    min_size: Number = setting(1.0, "minimum side of a proposal, in pixels", ge=0)
    drop_small_first: bool = setting(False, "drop boxes below min_size before the best anchors are selected; False: afterwards")
    nms_thresh: Fraction = setting(0.7, "IoU threshold of NMS within a level")
    pre_nms_top_n: Count = setting(2000, "highest-scored anchors per level that enter NMS")
    post_nms_top_n: Count = setting(1000, "proposals per image, over all levels")
    joint_nms_thresh: Optional[Fraction] = setting(None, "IoU threshold of a second NMS over all levels; None: no second NMS")
    clip_to: Literal["image", "canvas"] = setting("image", "clip proposals to the image, or to the canvas's last pixels")


class RPNHead(Section):
    feat_channel: Channels = setting(256, "channels of the RPN's 3x3 convolutions")
    num_convs: int = setting(1, "number of 3x3 convolutions, each followed by ReLU", ge=1, le=2)
    smooth_l1_beta: Beta = setting(1 / 9, "smooth L1's beta, where it changes from quadratic to linear")
    anchor_generator: AnchorGenerator = setting(AnchorGenerator(), "anchors per pyramid level")
    rpn_label_assignment: RPNLabelAssignment = setting(RPNLabelAssignment(), "which anchors contribute to the loss")
    train_proposal: Proposal = setting(Proposal(), "selection of proposals in training")
    test_proposal: Proposal = setting(Proposal(pre_nms_top_n=1000), "selection of proposals in evaluation")


class BoxHead(Section):
    name: Literal["RCNNBBoxTwoFCHead", "ConvFCHead"] = setting(
        "RCNNBBoxTwoFCHead", "RCNNBBoxTwoFCHead: two fully connected layers; ConvFCHead: num_convs and num_fcs layers")
    num_convs: int = setting(0, "number of 3x3 convolutions with BatchNorm and ReLU", ge=0, le=16)
    num_fcs: int = setting(2, "number of fully connected layers after the convolutions", ge=1, le=2)
    in_channel: Channels = setting(256, "channels of the pooled features, equal to backbone.out_channels")
    out_channel: int = setting(1024, "width of the fully connected layers", ge=1, le=65_536)


class RoIExtractor(Section):
    featmap_strides: Annotated[list[Count], NotEmpty, Ascending] = setting(
        [4, 8, 16, 32], "strides of the levels used for RoI pooling, in pixels")
    sampling_ratio: int = setting(2, "sampling points along each side of a pooled cell", ge=1, le=16)
    aligned: bool = setting(True, "shift RoIs by half a pixel so that cell centres match pixel centres")
    operator: Optional[Literal["gather", "roi_align"]] = setting(
        None, "gather: rows of features; roi_align: MindSpore's ROIAlign per level; None: gather on the CPU, roi_align elsewhere")


class BBoxAssigner(Section):
    name: Literal["BBoxAssigner"] = setting("BBoxAssigner", "kind of assigner")
    rois_per_batch: Count = setting(512, "proposals sampled per image")
    bg_thresh: Fraction = setting(0.5, "IoU threshold below which a proposal is background")
    fg_thresh: Fraction = setting(0.5, "IoU threshold at or above which a proposal is foreground")
    fg_fraction: Fraction = setting(0.25, "maximum fraction of foreground proposals in the sample")
    use_random: bool = setting(True, "sample at random; False: use the first ones, for tests")


class BBoxHead(Section):
    resolution: int = setting(7, "cells along each side of the pooled features", ge=1, le=64)
    add_gt_as_proposals: bool = setting(True, "add the annotated boxes to the proposals in training")
    smooth_l1_beta: Beta = setting(1.0, "smooth L1's beta, where it changes from quadratic to linear")
    bbox_weights: Annotated[list[Positive], Four] = setting([10.0, 10.0, 5.0, 5.0], "factors of the box deltas dx, dy, dw, dh")
    clip_first: bool = setting(True, "in evaluation, clip boxes to the image before NMS; False: after NMS")
    head: BoxHead = setting(BoxHead(), "convolutions and fully connected layers")
    roi_extractor: RoIExtractor = setting(RoIExtractor(), "pooling of features for each proposal")
    bbox_assigner: BBoxAssigner = setting(BBoxAssigner(), "which proposals contribute to the loss")


class TrainTransforms(TransformSection):
    item_transforms: TrainTransformList = setting(
        read_transforms([{"RandomFlip": {}}, *DEFAULTS], True), "list of one-key mappings, applied in order")


class EvalTransforms(TransformSection):
    item_transforms: EvalTransformList = setting(read_transforms(DEFAULTS, False), "list of one-key mappings, applied in order")


class DrawShapes(Section):
    train_images: int = setting(600, "training images", ge=1, le=1_000_000)
    val_images: int = setting(100, "validation images", ge=1, le=1_000_000)
    height: int = setting(160, "height of an image, in pixels", ge=32, le=4096)
    width: int = setting(160, "width of an image, in pixels", ge=32, le=4096)
    seed: int = setting(0, "seed of the random shapes", ge=0, le=2**32 - 1)


class Data(Section):
    dataset_dir: OptionalText = setting("", "folder of the data set")
    train_img_dir: Paths = setting("train2017", "folder of the training images, or a list: one folder per annotation file")
    train_anno_path: Paths = setting("annotations/instances_train2017.json", "annotation file for training, or a list of files")
    val_img_dir: Paths = setting("val2017", "folder of the validation images, or a list: one folder per annotation file")
    val_anno_path: Paths = setting("annotations/instances_val2017.json", "annotation file for evaluation, or a list of files")
    nc: Optional[Count] = setting(None, "number of classes; None: read from the annotation file")
    names: Optional[Annotated[list[Text], NotEmpty]] = setting(None, "class names; None: read from the annotation file")
    classes: Optional[Annotated[list[Text], NotEmpty]] = setting(
        None, "names of the classes to train and evaluate, in label order; boxes of other classes are removed; None: all")
    unite_classes: bool = setting(False, "annotation files may have different classes, which are matched by name")
    keep_empty_images: bool = setting(False, "also train on images without boxes, as background")
    repeat_threshold: Fraction = setting(
        0.0, "repeat images of classes in less than this fraction of the images (repeat-factor sampling); 0: no repetition")
    target_size: CanvasSizes = setting([768, 1280], "canvas (height, width) in pixels, multiples of 32, or a list: an image uses "
                                       "the canvas that gives the largest scale; ties take the first")
    draw_shapes: Optional[DrawShapes] = setting(None, "generate this data set in dataset_dir; None: the data set exists")
    train_transforms: TrainTransforms = setting(TrainTransforms(), "transforms of a training image; names of transforms are keys")
    eval_transforms: EvalTransforms = setting(EvalTransforms(), "transforms of an image in evaluation")

    def files(self, split: Literal["train", "val"]) -> list[tuple[str, str]]:
        """Return pairs (annotation file, image folder), one for each part of the training or validation set."""
        paths = (getattr(self, f"{split}_{key}") for key in ("anno_path", "img_dir"))
        annotations, images = (value if isinstance(value, list) else [value] for value in paths)
        return list(zip(annotations, images))

    @property
    def canvases(self) -> tuple[tuple[int, int], ...]:
        """The (height, width) of each canvas in pixels, in the order of target_size."""
        sizes: Any = self.target_size if isinstance(self.target_size[0], list) else [self.target_size]
        return tuple((height, width) for height, width in sizes)


class Optimizer(Section):
    type: Literal["momentum", "sgd"] = setting("momentum", "stochastic gradient descent with momentum; both names mean the same")
    weight_decay: Fraction = setting(5e-5, "factor of the L2 penalty")
    momentum: Fraction = setting(0.9, "fraction of the previous update that is kept")
    nesterov: bool = setting(False, "use Nesterov momentum")
    filter_bias_and_bn: bool = setting(True, "no weight decay on biases and BatchNorm")


class LearningRate(Section):
    warmup_step: Natural = setting(500, "steps of the linear warm-up")
    warmup_ratio: Fraction = setting(0.001, "the warm-up starts at this fraction of the learning rate; 1: no warm-up")
    decay_rate: Number = setting(0.1, "factor of the learning rate at each milestone", gt=0, le=1)
    milestones: Annotated[list[Union[Count, Number, Text]], AfterValidator(_check_milestones)] = setting(
        ["2/3", "11/12"], "when the learning rate drops: fractions of the training such as 2/3 or 0.75, or numbers of epochs")
    base_batch_size: Natural = setting(16, "images per step to which lr_init refers; 0: never scale lr_init")


class Infer(Section):
    conf_threshold: Fraction = setting(0.05, "confidence threshold: detections with lower scores are dropped")
    nms_threshold: Fraction = setting(0.5, "IoU threshold of NMS within a class")
    max_box_num: Optional[Count] = setting(100, "maximum number of detections per image; None: no limit")


class Config(Section):
    net: Literal["FasterRCNN"] = setting("FasterRCNN", "name of the detector, used as the first part of checkpoint names")
    device_target: Literal["auto", "Ascend", "GPU", "CPU"] = setting("auto", "auto: the first available of Ascend, GPU and CPU")
    ms_mode: int = setting(0, "0: compiled graph; 1: PyNative, operator by operator", ge=0, le=1)
    jit_level: Literal["", "O0", "O1", "O2"] = setting("", "Ascend: MindSpore's compilation level; empty: default of the chip")
    precision_mode: Literal[
        "", "must_keep_origin_dtype", "allow_fp32_to_fp16", "allow_fp32_to_bf16", "allow_mix_precision",
        "allow_mix_precision_fp16", "allow_mix_precision_bf16", "force_fp16", "force_fp32"] = setting(
        "", "Ascend: CANN's choice of operator precision; empty: MindSpore's default, must_keep_origin_dtype")
    op_compile: Optional[bool] = setting(
        None, "Ascend: False: use CANN's prebuilt operators; True: compile them at first use; None: MindSpore's default, True")
    mix: bool = setting(True, "mixed precision")
    mix_dtype: Literal["float16", "bfloat16"] = setting(
        "float16", "type of convolutions and dense layers with mix on Ascend and GPU; CPU: bfloat16, without a loss scale")
    seed: int = setting(1234, "seed of weight initialisation, shuffling and sampling", ge=0, le=2**32 - 1)
    batch_size: int = setting(2, "batch size per device: images per step", ge=1, le=1024)
    accumulate_steps: int = setting(1, "micro-batches per step and device, whose gradients are averaged", ge=1, le=1024)
    lr_init: Number = setting(0.02, "learning rate for lr.base_batch_size images per step", gt=0, le=1000)
    epochs: Count = setting(12, "passes over the training images")
    ms_loss_scaler: Annotated[Literal["static", "dynamic", "none"], NoneText] = setting("static", "loss scaling")
    ms_loss_scaler_value: Number = setting(256.0, "loss scale; dynamic: the initial value", ge=1, le=2**30)
    clip_grads: Annotated[Union[bool, Annotated[Number, Field(gt=0, le=1_000_000)]], DefaultNorm] = setting(
        False, "maximum global norm of the gradients; False: no clipping; True: 10")
    log_interval: Count = setting(100, "steps between log lines")
    run_eval: bool = setting(False, "evaluate during training")
    tensorboard: bool = setting(False, "write TensorBoard event files to <save_dir>/tensorboard (needs tensorboardX)")
    save_interval_steps: Natural = setting(0, "steps between checkpoints within an epoch; 0: only at its end")
    keep_checkpoint_max: Count = setting(5, "number of newest checkpoints to keep; the best one is kept in addition")
    eval_interval: Count = setting(1, "epochs between evaluations")
    early_stop: Natural = setting(0, "end training after this number of evaluations in a row without a better AP; 0: never")
    save_dir: Text = setting("output", "folder for checkpoints, logs and results")
    compile_cache: OptionalText = setting("", "CPU: cache of compiled graphs, reused by runs with the same settings; empty: none")
    num_workers: Count = setting(2, "threads that read images (processes if max_rowsize is set)")
    prefetch_size: int = setting(4, "length of the pipeline's queues, in batches", ge=1, le=1024)
    max_rowsize: Optional[Count] = setting(None, "MB of shared memory per row of the worker processes; None: worker threads")
    resume_ckpt: OptionalText = setting("", "checkpoint to resume from; auto: the newest intact one in save_dir, if any")
    weight: OptionalText = setting("", "checkpoint whose weights a new training starts from, at step 0, with any classes")
    checkpoint_path: OptionalText = setting("", "checkpoint file to use, or a folder of checkpoints to evaluate")
    image: list[Text] = setting([], "input images: files, folders or patterns such as 'folder/*.jpg'")
    mindir: Annotated[bool, OfFileFormat] = setting(False, "export MindIR, the network alone, instead of ONNX")
    raw: bool = setting(
        False, "export ONNX of the network alone, for a scaled image; False: from an image of any size to detections")
    quantize: bool = setting(False, "export ONNX with convolutions and dense layers in int8, calibrated on the images of --image")
    output: OptionalText = setting("", "path of the exported file, ending with .mindir or .onnx")
    font: OptionalText = setting("", "font file (.ttf, .otf or .ttc) for non-ASCII class names; empty: search for one")
    run_profiler: bool = setting(False, "profile a few training steps with MindSpore's profiler")
    enable_modelarts: bool = setting(False, "run on Huawei Cloud's ModelArts: download the data and upload the outputs")
    data_url: OptionalText = setting("", "ModelArts: location of the data set, obs://...; empty: use data.dataset_dir")
    train_url: OptionalText = setting("", "ModelArts: destination of the outputs, obs://...")
    ckpt_url: OptionalText = setting("", "ModelArts: checkpoint to start from or to evaluate, obs://...")
    data_dir: Text = setting("/cache/data", "ModelArts: local folder for the data set")
    skip_bad_images: bool = setting(False, "skip and report unreadable images in evaluation instead of stopping")
    backbone: Backbone = setting(Backbone(), "network that computes the features")
    rpn_head: RPNHead = setting(RPNHead(), "region proposal network")
    bbox_head: BBoxHead = setting(BBoxHead(), "second stage: classes and boxes of the proposals")
    data: Data = setting(Data(), "data set and transforms; paths are relative to dataset_dir")
    optimizer: Optimizer = setting(Optimizer(), "update of the weights")
    lr: LearningRate = setting(LearningRate(), "learning-rate schedule; the learning rate itself is lr_init")
    infer: Infer = setting(Infer(), "conversion of the network's outputs to detections")

    @property
    def roi_operator(self) -> Literal["gather", "roi_align"]:
        """bbox_head.roi_extractor.operator, or the operator for device_target if it is None."""
        return self.bbox_head.roi_extractor.operator or ("gather" if self.device_target == "CPU" else "roi_align")
