"""One training step: what it depends on, which images it takes, and what happens when it goes wrong."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import SHORT, TINY, assert_same_arrays, tiny_model, tiny_trainer

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import TrainingConfig
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.train import Trainer


def run(trainer, steps):
    return [trainer.step() for _ in range(steps)]


def velocities(trainer):
    """Of the optimiser, copied to the host."""
    return {name: to_host(velocity).copy() for name, velocity in trainer.optimiser.velocity.items()}


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


# The learning rate and the images of a step


def test_the_learning_rate_by_hand():
    trainer = tiny_trainer(TrainingConfig(steps=8, images=1, lr=0.4, warmup=3))
    assert trainer.learning_rate(0) == pytest.approx(0.4 * 1 / 4)  # a quarter warm, cosine still at 1
    assert trainer.learning_rate(4) == pytest.approx(0.4 * 0.5)  # warm, cosine at one half
    steps = tiny_trainer(TrainingConfig(steps=100, images=1, lr=0.4, warmup=3, schedule="step"))
    assert steps.learning_rate(70) == pytest.approx(0.04)


@given(length=st.integers(1, 12), batch=st.integers(1, 7), epochs=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_epoch_has_every_image_once(length, batch, epochs, seed):
    trainer = Trainer(MODEL, None, length, replace(SHORT, batch_size=batch, seed=seed))
    steps = -(-length * epochs // batch)
    numbers = list(chain.from_iterable(trainer.image_numbers(step) for step in range(steps)))
    for epoch in range(epochs):
        assert Counter(numbers[epoch * length : (epoch + 1) * length]) == Counter(range(length))


MODEL = tiny_model()


def test_the_order_changes_from_epoch_to_epoch_and_from_seed_to_seed():
    config = replace(SHORT, batch_size=20)
    orders = [
        Trainer(MODEL, None, 20, replace(config, seed=seed)).image_numbers(step) for seed, step in np.ndindex(2, 2)
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_fresh_scenes_are_used_once_and_in_order():
    trainer = tiny_trainer(replace(SHORT, images=0))
    assert [trainer.image_numbers(step) for step in range(3)] == [[0, 1], [2, 3], [4, 5]]


def test_an_empty_data_set_is_refused():
    with pytest.raises(InputError, match="empty"):
        Trainer(MODEL, [], 0, SHORT)


# A step


def test_a_step_says_what_it_did(xp):
    first, second = run(tiny_trainer(xp=xp), 2)
    assert (first["step"], second["step"]) == (1, 2)
    assert first["total"] == pytest.approx(sum(value for name, value in first.items() if name.startswith("loss_")))
    assert first["lr"] == pytest.approx(SHORT.lr / 3)
    assert first["gradient_norm"] > 0
    assert first["seconds"] > 0
    assert first["positive_anchors"] >= 2  # each image has an object, and each object its best anchor
    assert first["positive_rois"] >= 2  # and itself as a proposal


def test_steps_move_every_parameter_and_every_statistic(xp):
    trainer = tiny_trainer(xp=xp)
    before = trainer.model.state()
    run(trainer, 8)  # the smallest level's bias waits until one of its four places is sampled
    after = trainer.model.state()
    assert [name for name in before if np.array_equal(before[name], after[name])] == []


def test_the_same_seed_gives_the_same_weights_to_the_bit(xp):
    one, two = tiny_trainer(xp=xp), tiny_trainer(xp=xp)
    assert without_time(run(one, 4)) == without_time(run(two, 4))
    assert_same_arrays(one.model.state(), two.model.state())
    assert_same_arrays(velocities(one), velocities(two))


def test_another_seed_gives_another_run_even_on_the_same_weights(xp):
    one, two = tiny_trainer(xp=xp), tiny_trainer(replace(SHORT, seed=1), xp=xp)
    assert run(one, 1)[0]["total"] != run(two, 1)[0]["total"]


def test_gradients_longer_than_allowed_are_shortened(xp):
    still = tiny_trainer(replace(SHORT, clip_norm=1e-12, weight_decay=0.0), xp=xp)
    before = dict(still.model.named_parameters())["box_head.class_logits.weight"].value
    run(still, 1)
    after = dict(still.model.named_parameters())["box_head.class_logits.weight"].value
    assert np.abs(to_host(after) - to_host(before)).max() < 1e-12


def test_it_learns(xp):
    config = TrainingConfig(steps=60, batch_size=2, images=2, seed=1, lr=0.02, warmup=5, flip=False, colours=False)
    totals = [row["total"] for row in run(tiny_trainer(config, xp=xp), 60)]
    assert np.mean(totals[-5:]) < 0.6 * np.mean(totals[:5])  # about 0.35


# Stopped and gone on with


@pytest.mark.parametrize("stop", range(0, 6))
def test_going_on_equals_not_having_stopped(xp, stop):
    whole = tiny_trainer(xp=xp)
    run(whole, 6)
    first = tiny_trainer(xp=xp)
    run(first, stop)
    second = tiny_trainer(model=tiny_model(seed=99, xp=xp))  # other weights, all of which the checkpoint must replace
    second.restore(first.checkpoint({}))
    run(second, 6 - stop)
    assert_same_arrays(whole.model.state(), second.model.state())
    assert_same_arrays(velocities(whole), velocities(second))


def test_a_checkpoint_is_not_changed_by_going_on(xp):
    trainer = tiny_trainer(xp=xp)
    run(trainer, 2)
    saved = trainer.checkpoint({})
    copy = {name: array.copy() for name, array in saved.velocity.items()}
    other = tiny_trainer(xp=xp)
    other.restore(saved)
    for each in (trainer, other):
        run(each, 1)
        assert_same_arrays(saved.velocity, copy)


def test_a_checkpoint_of_another_network_is_refused_and_changes_nothing(xp):
    other = tiny_trainer(model=tiny_model(config=replace(TINY, fpn_channels=4), xp=xp)).checkpoint({})
    trainer = tiny_trainer(xp=xp)
    before = trainer.model.state()
    with pytest.raises(InputError, match="another network"):
        trainer.restore(other)
    assert_same_arrays(trainer.model.state(), before)


# Gone wrong


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("rpn_head.conv.weight", np.nan, "loss is nan"),
        ("resnet.stem.conv.weight", np.inf, "loss is nan"),
        ("box_head.class_logits.bias", np.nan, "loss is nan"),
        ("mask_head.convolutions.0.weight", 1e30, "gradient's length is inf"),  # while every loss is finite
    ],
)
def test_what_is_not_finite_stops_the_run_and_the_network_stays(xp, name, value, what):
    trainer = tiny_trainer(xp=xp)
    run(trainer, 2)
    array = dict(trainer.model.named_parameters())[name]
    array.value = xp.full_like(array.value, value)
    before = trainer.model.state()
    velocity = velocities(trainer)

    numbers = trainer.image_numbers(2)
    with pytest.raises(InputError, match=rf"^step 3: the {what} on images \[{numbers[0]}, {numbers[1]}\]"):
        trainer.step()

    assert trainer.steps_done == 2
    for key, old in before.items():  # BatchNorm's statistics too
        np.testing.assert_array_equal(trainer.model.state()[key], old, err_msg=key)
    assert_same_arrays(velocities(trainer), velocity)


def test_a_learning_rate_far_too_high_ends_in_that_error(xp):
    trainer = tiny_trainer(TrainingConfig(steps=200, batch_size=2, images=5, lr=1e12, warmup=0, clip_norm=1e12), xp=xp)
    with pytest.raises(InputError, match="lower learning rate"):
        run(trainer, 100)
    assert all(np.isfinite(array).all() for array in trainer.model.state().values())


def test_infinite_weights_are_not_saved():
    trainer = tiny_trainer()
    _, parameter = next(iter(trainer.model.named_parameters()))
    parameter.value = np.full_like(parameter.value, np.inf)
    with pytest.raises(InputError, match="a weight has become infinite: start again with a lower learning rate"):
        trainer.checkpoint({})
