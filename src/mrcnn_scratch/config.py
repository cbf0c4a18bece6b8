"""Every number of the network, with the section of the paper that it comes from.

Faster R-CNN is Ren et al. 2015 (arXiv:1506.01497), FPN is Lin et al. 2017 (arXiv:1612.03144), Mask R-CNN is He et al.
2017 (arXiv:1703.06870). Where the papers are silent the numbers are torchvision's.
"""

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from .errors import InputError


def _require_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"configuration: {name} must be {' or '.join(choices)}, not {value!r}")


def _require_at_least(prefix: str, settings: Any, lowest: float, names: str) -> None:
    for name in names.split():
        if not getattr(settings, name) >= lowest:
            raise InputError(f"configuration: {prefix}.{name} must be at least {lowest}, not {getattr(settings, name)}")


def _require_between(prefix: str, settings: Any, lowest: float, highest: float, names: str) -> None:
    """Of a setting that is a tuple, each entry. A nan lies nowhere."""
    for name in names.split():
        value = getattr(settings, name)
        if not all(lowest <= item <= highest for item in (value if isinstance(value, tuple) else (value,))):
            raise InputError(f"configuration: {prefix}.{name} must be from {lowest:g} to {highest:g}, not {value}")


def _require_length(prefix: str, settings: Any, length: int, names: str) -> None:
    for name in names.split():
        if len(getattr(settings, name)) != length:
            raise InputError(
                f"configuration: {prefix}.{name} must have {length} entries, not {getattr(settings, name)}"
            )


@dataclass(frozen=True)
class TransformConfig:
    """From the user's image to the network's input (Faster R-CNN, section 4)."""

    min_size: int = 800
    """The shorter side is resized to this many pixels ..."""
    max_size: int = 1333
    """... unless the longer side would then be over this many."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Of R, G, B in [0, 1], subtracted: ImageNet's."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Of R, G, B in [0, 1], divided by: ImageNet's."""
    divisor: int = 32
    """Both sides are padded to a multiple of this, so that every stride divides them."""

    def __post_init__(self) -> None:
        _require_at_least("transform", self, 1, "min_size max_size divisor")
        _require_between("transform", self, 1, 10_000, "min_size max_size divisor")
        _require_length("transform", self, 3, "mean std")
        _require_between("transform", self, -1000, 1000, "mean")
        _require_between("transform", self, 1e-6, 1000, "std")


@dataclass(frozen=True)
class StageConfig:
    """One stage of a ResNet: blocks of the same width, the first of which halves the resolution."""

    blocks: int
    inner: int
    """Channels of the 3x3 convolutions."""
    out: int
    """Channels that leave the stage: ``inner`` in basic blocks, 4 times it in the paper's bottlenecks."""

    def __post_init__(self) -> None:
        _require_between("backbone.stages", self, 1, 10_000, "blocks inner out")


@dataclass(frozen=True)
class BackboneConfig:
    """A residual network (He et al. 2016, table 1)."""

    block: str = "basic"
    """``basic`` (two 3x3 convolutions) or ``bottleneck`` (1x1, 3x3, 1x1)."""
    stem_channels: int = 16
    stem_kernel: int = 3
    stem_pool: bool = False
    """A max pool after the stem, as in the paper. Without it, the first stage halves the resolution instead."""
    stages: tuple[StageConfig, ...] = (
        StageConfig(1, 16, 16),
        StageConfig(1, 32, 32),
        StageConfig(1, 64, 64),
        StageConfig(1, 128, 128),
    )
    norm: str = "batch"
    """``batch``: BatchNorm with the batch's statistics. ``frozen``: with constant ones (ResNet, appendix A)."""
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _require_one_of("backbone.block", self.block, ("basic", "bottleneck"))
        _require_one_of("backbone.norm", self.norm, ("batch", "frozen"))
        _require_between("backbone", self, 0, 1000, "norm_eps")
        _require_between("backbone", self, 1, 10_000, "stem_channels stem_kernel")


@dataclass(frozen=True)
class AnchorConfig:
    """The boxes that proposals start from (Faster R-CNN, section 3.1.1; one size a level: FPN, section 4.1)."""

    sizes: tuple[tuple[float, ...], ...] = ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))
    """Per pyramid level, square roots of the anchors' areas in pixels."""
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""

    def __post_init__(self) -> None:
        _require_between("anchors", self, 1e-3, 1000, "aspect_ratios")
        for level in self.sizes:
            if not all(1e-3 <= size <= 1e6 for size in level):
                raise InputError(f"configuration: anchors.sizes must be from 0.001 to 1000000 pixels, not {level}")


@dataclass(frozen=True)
class RPNConfig:
    """Region proposal network (Faster R-CNN, section 3.1)."""

    positive_iou: float = 0.7
    """An anchor is an object's at or above this IoU (section 3.1.2)."""
    negative_iou: float = 0.3
    """It is background below this one."""
    samples: int = 128
    """Anchors per image that the loss sees (section 3.1.3: 256)."""
    positive_fraction: float = 0.5
    pre_nms_train: int = 500
    """Best anchors per level that go into suppression while training ..."""
    pre_nms_test: int = 500
    """... and in inference."""
    post_nms_train: int = 200
    """Proposals per image that leave suppression while training ..."""
    post_nms_test: int = 200
    """... and in inference."""
    nms_iou: float = 0.7
    """Section 3.3."""
    min_side: float = 1e-3
    """Proposals with a shorter side, in pixels, are dropped."""
    smooth_l1_beta: float = 1 / 9

    def __post_init__(self) -> None:
        _require_between("rpn", self, 0, 10, "positive_iou negative_iou positive_fraction nms_iou")
        _require_between("rpn", self, 0, 1e6, "samples pre_nms_train pre_nms_test post_nms_train post_nms_test")
        _require_between("rpn", self, 0, 1e6, "min_side smooth_l1_beta")


@dataclass(frozen=True)
class RoIConfig:
    """The heads that look at each proposal (Mask R-CNN, section 3 and 3.1)."""

    samples: int = 64
    """Proposals per image that the losses see (section 3.1: 64 for C4, 512 for FPN)."""
    positive_fraction: float = 0.25
    """At most this part of them are objects: 1 to 3, section 3.1."""
    positive_iou: float = 0.5
    """A proposal is an object's at or above this IoU, and background below."""
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    """Scale of the box head's dx, dy, dw, dh."""
    smooth_l1_beta: float = 1 / 9
    canonical_size: int = 224
    """A RoI with sides of this many pixels ..."""
    canonical_level: int = 4
    """... reads pyramid level P4 (FPN, eq. 1)."""
    sampling_ratio: int = 2
    """Samples per bin and axis of RoI Align."""
    box_resolution: int = 7
    """Bins per side for the box head (section 3.1, figure 4) ..."""
    mask_resolution: int = 14
    """... and for the mask head, whose output has twice as many."""
    box_head: tuple[int, ...] = (256, 256)
    """Widths of the fully connected layers (figure 4: 1024, 1024)."""
    mask_head: tuple[int, ...] = (64, 64, 64, 64)
    """Widths of the 3x3 convolutions, then of the transposed one (figure 4: 256)."""
    score_threshold: float = 0.05
    min_side: float = 1e-2
    """Detections with a shorter side, in pixels, are dropped."""
    nms_iou: float = 0.5
    detections: int = 100
    """Kept per image (section 3.1, "Inference")."""
    mask_threshold: float = 0.5
    """A pixel is the object's above this probability (section 3, "Network Architecture")."""

    def __post_init__(self) -> None:
        _require_between("roi", self, 0, 10, "positive_fraction positive_iou score_threshold nms_iou mask_threshold")
        _require_between("roi", self, 0, 1e6, "samples detections min_side smooth_l1_beta")
        _require_between("roi", self, 1, 1e6, "canonical_size")
        _require_between("roi", self, -1000, 1000, "canonical_level")
        _require_between("roi", self, 1, 1000, "sampling_ratio box_resolution mask_resolution")
        _require_between("roi", self, 1, 10_000, "box_head mask_head")
        _require_length("roi", self, 4, "box_weights")
        _require_between("roi", self, 1e-6, 1e6, "box_weights")


@dataclass(frozen=True)
class Config:
    """A whole Mask R-CNN. The default is the configuration ``shapes``: small enough to train on a laptop."""

    classes: tuple[str, ...] = ("square", "circle", "triangle")
    """Names of labels 1, 2, ...; label 0 is background and has no name."""
    transform: TransformConfig = field(default_factory=lambda: TransformConfig(128, 128))
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fpn_channels: int = 64
    """Of every pyramid level (FPN, section 3: 256)."""
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    roi: RoIConfig = field(default_factory=RoIConfig)

    def to_dict(self) -> dict[str, Any]:
        """As nested dicts, lists and numbers: what JSON and TOML can hold."""
        return asdict(self)


@dataclass(frozen=True)
class DataConfig:
    """Your own labelled images, in COCO's instances format. All empty: toy shapes."""

    annotations: str = ""
    """The JSON file to train on ..."""
    images: str = ""
    """... and the folder of its pictures."""
    val_annotations: str = ""
    """The JSON file to measure on in the end; without one that is the training data ..."""
    val_images: str = ""
    """... and the folder of its pictures."""
    skip_bad: bool = False
    """Go on without bad annotations and images, instead of stopping."""


@dataclass(frozen=True)
class TrainingConfig:
    """One training run."""

    data: DataConfig = field(default_factory=DataConfig)
    start: str = ""
    """A trained network to start from, as the commands name one; empty for fresh weights."""
    steps: int = 1500
    batch_size: int = 8
    images: int = 500
    """Toy scenes to train on; 0 for fresh scenes for ever."""
    seed: int = 0
    """Of the initial weights, the order of the images, augmentation and sampling."""
    lr: float = 0.04
    """Learning rate after the warm-up."""
    schedule: str = "cosine"
    """``cosine``: down to 0 along half a cosine. ``step``: to a tenth at 66% and 88% of the steps."""
    warmup: int = 100
    """Steps over which the learning rate climbs to ``lr``."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    """Not on norms and biases. Both as in Mask R-CNN, section 3.1."""
    clip_norm: float = 10.0
    """Gradients longer than this, all parameters together, are shortened to it."""
    flip: bool = True
    """Mirror half of the images."""
    colours: bool = True
    """Permute and negate colour channels: for toy shapes, where colour carries no meaning."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        _require_one_of("training.schedule", self.schedule, ("cosine", "step"))
        _require_at_least("training", self, 1, "steps batch_size checkpoint_every")
        _require_at_least("training", self, 0, "images seed lr warmup momentum weight_decay clip_norm")
        _require_between("training", self, 1, 10_000, "batch_size")  # more would be looked for till memory ends


SHAPES = Config()
"""The named configuration ``shapes``."""

OWN_IMAGES = replace(SHAPES, transform=TransformConfig(256, 384))
"""What a network for your own pictures starts from: the same one, on larger images."""

OWN_TRAINING = TrainingConfig(steps=500, batch_size=4, lr=0.02, warmup=50, colours=False, checkpoint_every=50)
"""How it is trained: fewer steps, of fewer images, whose colours mean something."""


def config_from_dict(values: dict[str, Any], default: Config = SHAPES) -> Config:
    """The inverse of :meth:`Config.to_dict`; missing entries are as in ``default``.

    Raises:
        InputError: an entry has no such name, or a value of another kind.
    """
    config: Config = _update(default, values, "")
    return config


def training_from_dict(values: dict[str, Any], default: TrainingConfig | None = None) -> TrainingConfig:
    """A :class:`TrainingConfig` from its settings by name; missing entries are as in ``default``.

    Raises:
        InputError: an entry has no such name, or a value of another kind.
    """
    config: TrainingConfig = _update(TrainingConfig() if default is None else default, values, "training")
    return config


def _update(default: Any, values: Any, name: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"configuration: {name or 'the top level'} must be a table of settings, not {values!r}")
    known = {f.name for f in fields(default)}
    for key in values:
        if key not in known:
            place = f"{name}.{key}" if name else key
            raise InputError(f"configuration: there is no setting {place!r} (known: {', '.join(sorted(known))})")
    changes = {key: _value(getattr(default, key), new, f"{name}.{key}".lstrip(".")) for key, new in values.items()}
    return replace(default, **changes)


def _value(default: Any, new: Any, name: str) -> Any:
    if is_dataclass(default):
        return _update(default, new, name)
    if isinstance(default, tuple):
        if not isinstance(new, list | tuple) or not new:
            raise InputError(f"configuration: {name} must be a list and not empty, not {new!r}")
        return tuple(_value(default[0], item, f"{name}[{i}]") for i, item in enumerate(new))
    if isinstance(new, int | float) and not -1e36 <= new <= 1e36:  # nan too
        raise InputError(f"configuration: {name} must be a number from -1e36 to 1e36, which float32 can hold")
    if isinstance(default, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if type(new) is not type(default):
        raise InputError(f"configuration: {name} must be like {default!r}, not {new!r}")
    return new
