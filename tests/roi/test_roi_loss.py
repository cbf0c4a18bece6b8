"""How wrong the heads were."""

import math

import numpy as np
from gradcheck import check_gradients
from reference import assert_close

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import RoIConfig
from mrcnn_scratch.roi import RoITargets, box_losses, mask_loss


def targets(labels, deltas):
    """A sample of which the losses read labels and deltas only."""
    labels = np.array(labels, np.int64)
    deltas = np.array(deltas, float).reshape(-1, 4)
    return RoITargets(np.zeros((len(labels), 4)), labels * 0, labels - 1, labels, deltas)


# Boxes


def test_box_losses_by_hand(xp):
    """Two regions, one an object of class 2 of 3. Equal logits cost log 4; a delta 1 off 17/18, over both 17/36."""
    deltas = np.full((2, 4, 4), 9.0)  # what other classes and background say about the box does not matter
    deltas[0, 2] = [1, 0, 0, 0]
    sample = targets([2, 0], [[0] * 4, [0] * 4])
    (loss_class, loss_box), backward = box_losses(xp.zeros((2, 4)), xp.asarray(deltas), sample, RoIConfig())
    assert_close(loss_class, math.log(4))
    assert_close(loss_box, 17 / 36)
    dlogits, ddeltas = backward(1.0, 1.0)
    # softmax - one hot, over 2.
    assert_close(dlogits, [[1 / 8, 1 / 8, -3 / 8, 1 / 8], [-3 / 8, 1 / 8, 1 / 8, 1 / 8]])
    expected = np.zeros((2, 4, 4))
    expected[0, 2, 0] = 1 / 2
    assert to_host(ddeltas).tolist() == expected.tolist()


def test_losses_can_be_weighted(xp):
    sample = targets([1], [[0] * 4])
    _, backward = box_losses(xp.zeros((1, 2)), xp.ones((1, 2, 4)), sample, RoIConfig())
    dlogits, ddeltas = backward(0.0, 3.0)
    assert not to_host(dlogits).any()
    assert to_host(ddeltas).tolist() == [[[0] * 4, [3] * 4]]


def test_no_regions(xp):
    losses, backward = box_losses(xp.zeros((0, 4)), xp.zeros((0, 4, 4)), targets([], []), RoIConfig())
    assert [to_host(loss).item() for loss in losses] == [0, 0]
    assert [d.shape for d in backward(1.0, 1.0)] == [(0, 4), (0, 4, 4)]


def test_only_background_has_no_box_loss(xp):
    (_, loss_box), backward = box_losses(xp.zeros((1, 4)), xp.ones((1, 4, 4)), targets([0], [[0] * 4]), RoIConfig())
    assert to_host(loss_box).item() == 0
    assert not to_host(backward(1.0, 1.0)[1]).any()


def test_box_gradients(xp, rng):
    labels = [2, 0, 1, 3, 0]
    sample = targets(labels, rng.normal(size=(5, 4)) * (np.array(labels) > 0)[:, None])

    def op(logits, deltas):
        losses, backward = box_losses(logits, deltas, sample, RoIConfig(smooth_l1_beta=1.0))
        return losses, lambda dlosses: backward(*dlosses)

    check_gradients(op, [rng.normal(size=(5, 4)), rng.normal(size=(5, 4, 4))], rng, xp=xp)


# Masks


def test_mask_loss_by_hand(xp):
    """One region of class 1, 1 x 2 pixels: logits 0 cost log 2 whatever is true. A sure mistake of 10 would cost 10."""
    logits = np.full((1, 1, 2, 3), 10.0)
    logits[..., 1] = 0
    loss, backward = mask_loss(xp.asarray(logits), np.array([1]), np.array([[[1.0, 0]]]))
    assert_close(loss, math.log(2))
    # (sigmoid - target) / 2 pixels, on the true class alone.
    assert to_host(backward(1.0)).tolist() == [[[[0, -0.25, 0], [0, 0.25, 0]]]]


def test_classes_do_not_compete(xp, rng):
    """The loss is the same and its gradient 0, whatever the masks of the other classes say."""
    logits, labels, wanted = rng.normal(size=(3, 2, 2, 4)), np.array([2, 1, 3]), rng.random((3, 2, 2))
    others = np.arange(4) != labels[:, None]
    changed = logits + 5 * others[:, None, None]
    loss, backward = mask_loss(xp.asarray(logits), labels, wanted)
    other_loss, _ = mask_loss(xp.asarray(changed), labels, wanted)
    assert to_host(loss) == to_host(other_loss)
    silent = to_host(backward(1.0)).transpose(0, 3, 1, 2)[others]
    assert not silent.any()


def test_soft_targets(xp):
    """A bin half covered wants p = 1/2: at logit 0 the gradient is 0."""
    _, backward = mask_loss(xp.zeros((1, 1, 1, 2)), np.array([1]), np.full((1, 1, 1), 0.5))
    assert not to_host(backward(1.0)).any()


def test_no_objects_no_mask_loss(xp):
    loss, backward = mask_loss(xp.zeros((0, 28, 28, 4)), np.zeros(0, np.int64), np.zeros((0, 28, 28)))
    assert to_host(loss).item() == 0
    assert backward(1.0).shape == (0, 28, 28, 4)


def test_mask_gradients(xp, rng):
    labels, wanted = np.array([2, 1, 2]), rng.random((3, 2, 3))
    check_gradients(lambda x: mask_loss(x, labels, wanted), [rng.normal(size=(3, 2, 3, 3))], rng, xp=xp)
