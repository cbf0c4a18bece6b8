"""The training loop: one step is a pure function of the network, the optimiser and (seed, step)."""

import math
import time
import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..backend import Array, array_module, single_threaded_blas, to_device, to_host
from ..config import TrainingConfig
from ..data.augment import augment
from ..errors import InputError
from ..mask_rcnn import MaskRCNN
from ..nn import Buffer, Parameter
from ..structures import Target
from .checkpoint import Checkpoint
from .optim import SGD, clip_scale, gradient_norm
from .schedule import cosine, steps_down, warm_up


class Dataset(Protocol):
    """Labelled images by number."""

    def __getitem__(self, i: int, /) -> tuple[Array, Target]:
        """Image (H, W, 3) uint8 and its objects."""


class Trainer:
    """A network being trained.

    Every random choice of step s comes from a generator made of (seed, s), so a run that is stopped and resumed makes
    the same choices as one that was not, and "the random state" that a checkpoint must hold is two integers.

    Args:
        model: the network, changed by every step.
        dataset: labelled images.
        length: how many there are; None for a data set without end, whose images are each used once.
        config: learning rate, schedule, seed and so on.
    """

    def __init__(self, model: MaskRCNN, dataset: Dataset, length: int | None, config: TrainingConfig) -> None:
        if length == 0:
            raise InputError("the data set is empty: training needs at least one image")
        self.model = model
        self.dataset = dataset
        self.length = length
        self.config = config
        self.optimiser = SGD(model.named_parameters(), momentum=config.momentum, weight_decay=config.weight_decay)
        self.steps_done = 0

    def step(self) -> dict[str, float]:
        """One update of the weights.

        Returns:
            A row of ``metrics.csv``: each loss, their ``total``, ``gradient_norm``, ``lr``, ``seconds``, positives.

        Raises:
            InputError: a loss or the gradient is not finite; the network is as it was before the step.
        """
        with single_threaded_blas(), warnings.catch_warnings():
            # What overflows ends up in a loss or in the gradient's length, and there it is an error.
            warnings.simplefilter("ignore", RuntimeWarning)
            return self._step()

    def _step(self) -> dict[str, float]:
        start = time.perf_counter()
        step = self.steps_done
        rng = np.random.default_rng((self.config.seed, step, 1))
        numbers = self.image_numbers(step)
        images, targets = self._examples(numbers, rng)
        before = [(array, array.value) for _, array in self.model.named_arrays()]
        self.optimiser.zero_grad()
        losses, backward = self.model.losses(images, targets, rng)
        stacked = array_module(self.model.like).stack(
            list(losses.values())
        )  # the GPU is waited for once, not five times
        values = dict(zip(losses, to_host(stacked).tolist(), strict=True))
        total = sum(values.values())
        self._require_finite("loss", total, numbers, before)
        backward()
        norm = gradient_norm(self.optimiser.parameters.values())
        self._require_finite("gradient's length", norm, numbers, before)
        lr = self.learning_rate(step)
        self.optimiser.step(lr, clip_scale(norm, self.config.clip_norm))
        self.steps_done += 1
        return {
            "step": self.steps_done,
            **values,
            "total": total,
            "gradient_norm": norm,
            "lr": lr,
            "positive_anchors": losses.positive_anchors,
            "positive_rois": losses.positive_rois,
            "seconds": time.perf_counter() - start,
        }

    def _require_finite(
        self, what: str, value: float, numbers: list[int], before: list[tuple[Parameter | Buffer, Array]]
    ) -> None:
        if math.isfinite(value):
            return
        for array, old in before:  # BatchNorm's running statistics have seen these images already
            array.value = old
        raise InputError(
            f"step {self.steps_done + 1}: the {what} is {value} on images {numbers}: start again with a lower "
            "learning rate; the last checkpoint is as it was"
        )

    def learning_rate(self, step: int) -> float:
        """Of one step, counted from 0."""
        decay = cosine if self.config.schedule == "cosine" else steps_down
        return self.config.lr * warm_up(step, self.config.warmup) * decay(step, self.config.steps)

    def image_numbers(self, step: int) -> list[int]:
        """The images of one step: epoch after epoch, each in an order of its own."""
        positions = range(step * self.config.batch_size, (step + 1) * self.config.batch_size)
        if self.length is None:
            return list(positions)
        epochs = {position // self.length for position in positions}
        orders = {e: np.random.default_rng((self.config.seed, e, 2)).permutation(self.length) for e in epochs}
        return [int(orders[p // self.length][p % self.length]) for p in positions]

    def _examples(self, numbers: Sequence[int], rng: np.random.Generator) -> tuple[list[Array], list[Target]]:
        examples = [augment(*self.dataset[i], rng, flip=self.config.flip, colours=self.config.colours) for i in numbers]
        return [image for image, _ in examples], [target for _, target in examples]

    def checkpoint(self, settings: dict[str, object]) -> Checkpoint:
        """The run as it stands; ``settings`` are written along.

        Raises:
            InputError: a weight is not finite, and nobody could go on from there.
        """
        velocity = {name: to_host(v).copy() for name, v in self.optimiser.velocity.items()}  # steps change it in place
        state = self.model.state()
        if not all(np.isfinite(array).all() for array in state.values()):
            raise InputError(
                f"step {self.steps_done}: a weight has become infinite: start again with a lower learning rate; "
                "the last checkpoint is as it was"
            )
        return Checkpoint(self.steps_done, state, velocity, self.model.config, settings)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from ``checkpoint``.

        Raises:
            InputError: it is of another network; this one is as it was.
        """
        wanted = {name: velocity.shape for name, velocity in self.optimiser.velocity.items()}
        if {name: velocity.shape for name, velocity in checkpoint.velocity.items()} != wanted:
            raise InputError("the checkpoint's optimiser is of another network: its arrays have other names or shapes")
        self.model.load_state(checkpoint.state)
        for name, velocity in self.optimiser.velocity.items():
            self.optimiser.velocity[name] = to_device(checkpoint.velocity[name], like=velocity).astype(velocity.dtype)
        self.steps_done = checkpoint.step
