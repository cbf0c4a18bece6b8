"""Mask R-CNN (He et al. 2017), the whole network: one method per stage, in the order of the data flow."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .backbone import FPN, ResNet
from .backend import Array, array_module, single_threaded_blas, to_device, to_host
from .boxes import clip_boxes
from .config import SHAPES, Config
from .data.transforms import Batch, check_target, make_batch, resize_boxes, resize_target
from .errors import InputError
from .nn import Layer
from .ops.contract import Backward, Once
from .roi import (
    BoxDetections,
    BoxHead,
    MaskHead,
    RoITargets,
    box_detections,
    box_losses,
    mask_loss,
    mask_probabilities,
    mask_targets,
    paste_in_parts,
    pool,
    roi_targets,
)
from .rpn import AnchorGenerator, RPNHead, propose, rpn_losses, rpn_targets
from .rpn.head import split_levels
from .structures import Detections, Target


class Losses(dict[str, Array]):
    """The losses by name, each a 0-d array, and how many of the samples that they saw were objects."""

    positive_anchors = 0
    positive_rois = 0


class MaskRCNN(Layer):
    """Backbone and pyramid, region proposals, box head, mask head.

    Args:
        config: every number of the network.
        rng: makes the initial weights.
    """

    def __init__(self, config: Config = SHAPES, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(0) if rng is None else rng
        if len(config.anchors.sizes) != len(config.backbone.stages) + 1:
            raise InputError(
                f"configuration: anchors.sizes must have {len(config.backbone.stages) + 1} entries, one per pyramid "
                f"level, not {len(config.anchors.sizes)}"
            )
        self.config = config
        self.resnet = ResNet(config.backbone, rng)
        self.fpn = FPN([stage.out for stage in config.backbone.stages], config.fpn_channels, rng)
        self.anchor_generator = AnchorGenerator(config.anchors.sizes, config.anchors.aspect_ratios)
        self.rpn_head = RPNHead(config.fpn_channels, self.anchor_generator.per_place, rng)
        self.box_head = BoxHead(config.fpn_channels, len(config.classes), config.roi, rng)
        self.mask_head = MaskHead(config.fpn_channels, len(config.classes), config.roi, rng)

    # The stages, in the order of the data flow. Images and targets are host arrays, all between is on the device.

    def batch(self, images: Sequence[Array]) -> Batch:
        """uint8 images (H, W, 3) to one normalised, resized, padded array."""
        return make_batch(images, self.config.transform, like=self.like)

    def features(self, pixels: Array) -> tuple[list[Array], Backward]:
        """(N, H, W, 3) to the pyramid P2..P6, each (N, H_l, W_l, C)."""
        bottom_up, backward_resnet = self.resnet(pixels)
        pyramid, backward_fpn = self.fpn(bottom_up)
        return pyramid, lambda dpyramid: backward_resnet(backward_fpn(dpyramid))

    def rpn(self, features: list[Array]) -> tuple[tuple[list[Array], list[Array]], Backward]:
        """The pyramid to objectness logits (N, A_l) and deltas (N, A_l, 4) per level."""
        outputs, backward = self.rpn_head(features)
        return outputs, backward

    def anchors(self, features: list[Array], pixels: Array) -> list[Array]:
        """The anchors (A_l, 4) of each level, in pixels of the batch."""
        grids = [level.shape[1:3] for level in features]
        return self.anchor_generator.levels(grids, pixels.shape[1:3], array_module(pixels))

    def proposals(
        self, objectness: list[Array], deltas: list[Array], anchors: list[Array], batch: Batch
    ) -> list[tuple[Array, Array]]:
        """Per image the boxes worth looking at, (K, 4) and their scores (K,), best first."""
        return propose(objectness, deltas, anchors, batch.sizes, self.config.rpn, training=self.training)

    def pool(
        self, features: list[Array], boxes: Array, batch_indices: Array, batch: Batch, resolution: int
    ) -> tuple[Array, Backward]:
        """RoI Align over P2..P5: boxes (R, 4) to (R, resolution, resolution, C)."""
        largest = (max(h for h, _ in batch.sizes), max(w for _, w in batch.sizes))
        return pool(
            features[: len(self.config.backbone.stages)],
            boxes,
            batch_indices,
            image_size=largest,
            resolution=resolution,
            config=self.config.roi,
        )

    # Inference.

    def detect(self, images: Sequence[Array]) -> list[Detections]:
        """The objects in each image.

        Args:
            images: uint8 (H, W, 3) RGB, of any sizes.

        Returns:
            One :class:`Detections` per image, best first, in pixels of the image as handed over.

        Raises:
            InputError: there are no images, or one is of another type or shape.
        """
        self.set_training(False)
        with single_threaded_blas(), warnings.catch_warnings():
            # Weights that overflow, of a training run that went wrong, find nothing or nonsense, and without a word.
            warnings.simplefilter("ignore", RuntimeWarning)
            return self._detect(images)

    def _detect(self, images: Sequence[Array]) -> list[Detections]:
        batch = self.batch(images)
        features, _ = self.features(batch.pixels)
        (objectness, deltas), _ = self.rpn(features)
        proposals = self.proposals(objectness, deltas, self.anchors(features, batch.pixels), batch)
        found = self.detect_boxes(features, [boxes for boxes, _ in proposals], batch)
        masks = self.detect_masks(features, found, batch)
        return [
            self._in_original_image(boxes, probabilities, size, original)
            for boxes, probabilities, size, original in zip(
                found, masks, batch.sizes, batch.original_sizes, strict=True
            )
        ]

    def detect_boxes(self, features: list[Array], proposals: list[Array], batch: Batch) -> list[BoxDetections]:
        """Classify and refine the proposals of each image, filter and suppress."""
        boxes, images = _flatten(proposals)
        pooled, _ = self.pool(features, boxes, images, batch, self.config.roi.box_resolution)
        (logits, deltas), _ = self.box_head(pooled)
        ends = np.cumsum([len(p) for p in proposals])[:-1].tolist()
        xp = array_module(boxes)
        return [
            box_detections(image_logits, image_deltas, image_proposals, size, self.config.roi)
            for image_logits, image_deltas, image_proposals, size in zip(
                xp.split(logits, ends), xp.split(deltas, ends), proposals, batch.sizes, strict=True
            )
        ]

    def detect_masks(self, features: list[Array], found: list[BoxDetections], batch: Batch) -> list[Array]:
        """The mask probabilities (R, 28, 28) of each image's detections, of their own class."""
        boxes, images = _flatten([f.boxes for f in found])
        pooled, _ = self.pool(features, boxes, images, batch, self.config.roi.mask_resolution)
        logits, _ = self.mask_head(pooled)
        xp = array_module(boxes)
        probabilities = mask_probabilities(logits, xp.concatenate([f.labels for f in found]))
        return list(xp.split(probabilities, np.cumsum([len(f.labels) for f in found])[:-1].tolist()))

    def _in_original_image(
        self, found: BoxDetections, probabilities: Array, size: tuple[int, int], original: tuple[int, int]
    ) -> Detections:
        boxes = resize_boxes(found.boxes, size, original)
        masks = [
            to_host(part > self.config.roi.mask_threshold) for part in paste_in_parts(probabilities, boxes, original)
        ]
        return Detections(
            boxes=to_host(boxes),
            labels=to_host(found.labels),
            scores=to_host(found.scores),
            masks=np.concatenate([np.zeros((0, *original), bool), *masks]),
        )

    # Training.

    def losses(
        self, images: Sequence[Array], targets: Sequence[Target], rng: np.random.Generator
    ) -> tuple[Losses, Backward]:
        """The five losses of a batch, and their joint backward.

        Args:
            images: uint8 (H, W, 3) RGB.
            targets: one per image.
            rng: samples anchors and proposals.

        Returns:
            The losses by name, each a 0-d array; and ``backward(weights=None)``, which adds the gradient of their sum,
            weighted by a dict of numbers by name if given, to every parameter's ``grad``.

        Raises:
            InputError: an image or a target is not what it must be.
        """
        self.set_training(True)
        batch = self.batch(images)
        targets = self._resized_targets(targets, batch)
        features, backward_features = self.features(batch.pixels)
        rpn_loss, proposals, backward_rpn = self.rpn_branch(features, targets, batch, rng)
        sample = roi_targets(proposals, targets, self.config.roi, rng)
        box_loss, backward_box = self.box_branch(features, sample, batch)
        masks_loss, backward_mask = self.mask_branch(features, sample, targets, batch)

        def backward(weights: dict[str, float] | None = None) -> None:
            weights = weights or {}
            # All three branches read the same features, so their gradients add up there.
            dfeatures = backward_rpn(weights)
            for branch in (backward_box, backward_mask):
                for i, dlevel in enumerate(branch(weights)):
                    dfeatures[i] = dfeatures[i] + dlevel
            backward_features(dfeatures)

        losses = Losses({**box_loss, **masks_loss, **rpn_loss})
        losses.positive_anchors, losses.positive_rois = rpn_loss.positive_anchors, len(sample.positives)
        return losses, Once(backward)

    def rpn_branch(
        self, features: list[Array], targets: Sequence[Target], batch: Batch, rng: np.random.Generator
    ) -> tuple[Losses, list[Array], Backward]:
        """``loss_objectness`` and ``loss_rpn_box_reg``; each image's proposals (K, 4), on the host; the backward."""
        (objectness, deltas), backward_head = self.rpn(features)
        anchors = self.anchors(features, batch.pixels)
        # To the heads a proposal is a constant: no gradient flows through its coordinates.
        proposals = [boxes for boxes, _ in self.proposals(objectness, deltas, anchors, batch)]
        ends = np.cumsum([len(boxes) for boxes in proposals])[:-1]
        xp = array_module(batch.pixels)
        proposals = np.split(to_host(xp.concatenate(proposals)), ends)  # together: the GPU is waited for once
        sample = rpn_targets(to_host(xp.concatenate(anchors)), targets, self.config.rpn, rng)
        (loss_objectness, loss_box), backward_losses = rpn_losses(
            xp.concatenate(objectness, axis=1), xp.concatenate(deltas, axis=1), sample, self.config.rpn
        )
        sizes = [level.shape[1] for level in objectness]

        def backward(weights: dict[str, float]) -> list[Array]:
            dobjectness, ddeltas = backward_losses(
                weights.get("loss_objectness", 1.0), weights.get("loss_rpn_box_reg", 1.0)
            )
            dfeatures: list[Array] = backward_head(split_levels(dobjectness, sizes), split_levels(ddeltas, sizes))
            return dfeatures

        losses = Losses(loss_objectness=loss_objectness, loss_rpn_box_reg=loss_box)
        losses.positive_anchors = int(sample.objectness.sum())
        return losses, proposals, backward

    def box_branch(self, features: list[Array], sample: RoITargets, batch: Batch) -> tuple[Losses, Backward]:
        """``loss_classifier`` and ``loss_box_reg`` over the sampled proposals."""
        boxes, images = (to_device(a, like=batch.pixels) for a in (sample.boxes, sample.image))
        pooled, backward_pool = self.pool(features, boxes, images, batch, self.config.roi.box_resolution)
        (logits, deltas), backward_head = self.box_head(pooled)
        (loss_class, loss_box), backward_losses = box_losses(logits, deltas, sample, self.config.roi)

        def backward(weights: dict[str, float]) -> list[Array]:
            dlogits, ddeltas = backward_losses(weights.get("loss_classifier", 1.0), weights.get("loss_box_reg", 1.0))
            dfeatures: list[Array] = backward_pool(backward_head(dlogits, ddeltas))
            return dfeatures

        return Losses(loss_classifier=loss_class, loss_box_reg=loss_box), backward

    def mask_branch(
        self, features: list[Array], sample: RoITargets, targets: Sequence[Target], batch: Batch
    ) -> tuple[Losses, Backward]:
        """``loss_mask`` over those of the sampled proposals that are objects."""
        positives = sample.positives
        boxes, images = (to_device(a[positives], like=batch.pixels) for a in (sample.boxes, sample.image))
        pooled, backward_pool = self.pool(features, boxes, images, batch, self.config.roi.mask_resolution)
        logits, backward_head = self.mask_head(pooled)
        wanted = mask_targets(sample, targets, logits.shape[1])
        loss, backward_loss = mask_loss(logits, sample.labels[positives], wanted)

        def backward(weights: dict[str, float]) -> list[Array]:
            dfeatures: list[Array] = backward_pool(backward_head(backward_loss(weights.get("loss_mask", 1.0))))
            return dfeatures

        return Losses(loss_mask=loss), backward

    def _resized_targets(self, targets: Sequence[Target], batch: Batch) -> list[Target]:
        if len(targets) != len(batch.sizes):
            raise InputError(f"{len(batch.sizes)} images but {len(targets)} targets: hand over one target per image")
        resized = []
        for i, (target, size, original) in enumerate(zip(targets, batch.sizes, batch.original_sizes, strict=True)):
            check_target(target, original, len(self.config.classes), f"image {i}")
            inside = replace(target, boxes=clip_boxes(target.boxes, original))  # some tools' boxes reach beyond
            resized.append(resize_target(inside.without_crowds(), original, size))
        return resized

    # Fine-tuning.

    def replace_predictors(self, classes: Sequence[str], rng: np.random.Generator) -> None:
        """New outputs for other ``classes``, with fresh weights; everything before them stays as it was learned."""
        self.config = replace(self.config, classes=tuple(classes))
        dtype, xp = self.like.dtype, array_module(self.like)
        hidden = self.box_head.class_logits.weight.value.shape[0]
        self.box_head.replace_predictor(hidden, len(classes), rng)
        channels, features = self.mask_head.upsample.weight.value.shape[2:]
        self.mask_head.replace_predictor(channels, features, len(classes), rng)
        for head in (self.box_head, self.mask_head):
            for _, array in head.named_arrays():
                array.value = xp.asarray(array.value).astype(dtype)

    def freeze_backbone(self, trainable_layers: int) -> None:
        """Train only the last ``trainable_layers`` of the ResNet's five: the stem and the four stages.

        0 freezes all of it, 5 nothing: torchvision's ``trainable_backbone_layers``, which is 3 by default for a network
        whose backbone has been trained before. The pyramid and the heads are always trained.
        """
        layers = [self.resnet.stem, *self.resnet.stages]
        for i, layer in enumerate(layers):
            for _, parameter in layer.named_parameters():
                parameter.trainable = i >= len(layers) - trainable_layers

    # The arrays themselves.

    @property
    def like(self) -> Array:
        """An array of the network; all others are of its kind and dtype."""
        return self.rpn_head.conv.weight.value


def _flatten(per_image: list[Array]) -> tuple[Array, Array]:
    """Boxes of all images in a row (R, 4), and the image of each (R,)."""
    xp = array_module(per_image[0])
    images = np.repeat(np.arange(len(per_image)), [len(boxes) for boxes in per_image])
    return xp.concatenate(per_image), xp.asarray(images)
