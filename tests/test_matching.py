"""Which candidate answers for which object, and which candidates a loss sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_library, cases

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.matching import BELOW_LOW, BETWEEN, leave_out, match, sample_balanced

# By hand

IOU = [
    [0.8, 0.5, 0.2, 0.00, 0.1],
    [0.1, 0.6, 0.1, 0.25, 0.0],
]
"""Two objects (rows), five candidates (columns)."""


def matched(xp, iou, high, low, allow_low_quality):
    result = match(xp.asarray(iou, dtype=float), high=high, low=low, allow_low_quality=allow_low_quality)
    assert_library(xp, result)
    assert result.dtype == np.int64
    return to_host(result).tolist()


def test_match_by_hand(xp):
    assert matched(xp, IOU, 0.7, 0.3, allow_low_quality=False) == [
        0,
        BETWEEN,
        BELOW_LOW,
        BELOW_LOW,
        BELOW_LOW,
    ]
    # Nobody answers for the second object: its best candidate, number 1 with 0.6, is made to.
    assert matched(xp, IOU, 0.7, 0.3, allow_low_quality=True) == [0, 1, BELOW_LOW, BELOW_LOW, BELOW_LOW]
    # RoI heads: one threshold, so nothing is in between.
    assert matched(xp, IOU, 0.5, 0.5, allow_low_quality=False) == [0, 1, BELOW_LOW, BELOW_LOW, BELOW_LOW]


def test_thresholds_themselves_count_upwards(xp):
    assert matched(xp, [[0.7, 0.3, 0.69, 0.29]], 0.7, 0.3, allow_low_quality=False) == [
        0,
        BETWEEN,
        BETWEEN,
        BELOW_LOW,
    ]


def test_ties(xp):
    """A candidate torn between objects takes the first; an object with several best candidates takes all."""
    assert matched(xp, [[0.9], [0.9]], 0.7, 0.3, allow_low_quality=False) == [0]
    assert matched(xp, [[0.4, 0.2, 0.4]], 0.7, 0.3, allow_low_quality=True) == [0, BELOW_LOW, 0]


def test_a_low_quality_match_answers_for_its_own_best_object(xp):
    """Candidate 0 is the best that object 1 has, but it overlaps object 0 more, and answers for that one."""
    assert matched(xp, [[0.5, 0.6], [0.2, 0.1]], 0.7, 0.3, allow_low_quality=True) == [0, 0]


@pytest.mark.parametrize("allow_low_quality", [False, True])
def test_no_objects(xp, allow_low_quality):
    """An image without objects is all background."""
    assert matched(xp, np.zeros((0, 3)), 0.7, 0.3, allow_low_quality) == [BELOW_LOW] * 3


# The slow version


def slow_match(iou, high, low, allow_low_quality):
    result = []
    for candidate in zip(*iou, strict=True):
        best = max(candidate)
        result.append(candidate.index(best) if best >= high else BETWEEN if best >= low else BELOW_LOW)
    if allow_low_quality:
        for of_object in iou:
            for a, value in enumerate(of_object):
                if value == max(of_object):
                    candidate = [row[a] for row in iou]
                    result[a] = candidate.index(max(candidate))
    return result


TENTHS = st.integers(0, 10).map(lambda i: i / 10)  # few values: many ties
TABLES = st.tuples(st.integers(1, 4), st.integers(1, 8)).flatmap(
    lambda s: st.lists(st.lists(TENTHS, min_size=s[1], max_size=s[1]), min_size=s[0], max_size=s[0])
)


@given(iou=TABLES, thresholds=st.tuples(TENTHS, TENTHS), allow_low_quality=st.booleans())
def test_match_is_the_slow_one(xp, iou, thresholds, allow_low_quality):
    low, high = sorted(thresholds)
    assert matched(xp, iou, high, low, allow_low_quality) == slow_match(iou, high, low, allow_low_quality)


# Properties


@given(iou=TABLES)
def test_every_object_has_a_candidate(xp, iou):
    """With low-quality matches no object goes without, unless each of its best prefers another object."""
    answers = matched(xp, iou, 0.7, 0.3, allow_low_quality=True)
    for g, of_object in enumerate(iou):
        best = [a for a, value in enumerate(of_object) if value == max(of_object)]
        assert all(answers[a] >= 0 for a in best)
        others = [row for h, row in enumerate(iou) if h != g]
        assert g in answers or all(any(row[a] >= of_object[a] for row in others) for a in best)


# Sampling


def sample(xp, labels, size, fraction, seed=0):
    chosen = sample_balanced(
        xp.asarray(labels, dtype=xp.int64),
        size=size,
        positive_fraction=fraction,
        rng=np.random.default_rng(seed),
    )
    assert_library(xp, chosen)
    assert chosen.dtype == np.int64
    return to_host(chosen).tolist()


def test_sampling_by_hand(xp):
    labels = [-1, 0, -2, 1, -1, -1]
    assert sample(xp, labels, 10, 0.5) == [
        1,
        3,
        0,
        4,
        5,
    ]  # room for all: the positives, then the negatives, never -2
    assert len(sample(xp, labels, 3, 0.5)) == 3
    assert sample(xp, [0, 0, -1, -1], 0, 0.5) == []
    assert sample(xp, [0, 0, 0, 0], 4, 0.25) != sample(xp, [0, 0, 0, 0], 4, 1.0)  # one positive, and all four
    assert sample(xp, [], 4, 0.5) == []


LABELS = st.lists(st.sampled_from([0, 1, 2, BELOW_LOW, BETWEEN]), max_size=40)


@given(
    labels=LABELS,
    size=st.integers(0, 30),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_what_is_sampled(xp, labels, size, fraction, seed):
    chosen = sample(xp, labels, size, fraction, seed)
    negatives = labels.count(BELOW_LOW)
    positives = len(labels) - negatives - labels.count(BETWEEN)
    expected_positives = min(positives, int(size * fraction))
    expected_negatives = min(negatives, size - expected_positives)  # negatives fill up what positives leave
    kinds = ["positive" if labels[i] >= 0 else "negative" for i in chosen]
    assert kinds == ["positive"] * expected_positives + ["negative"] * expected_negatives
    assert len(set(chosen)) == len(chosen)
    assert BETWEEN not in [labels[i] for i in chosen]
    assert sample(xp, labels, size, fraction, seed) == chosen  # same seed, same choice


def test_each_candidate_is_as_likely_as_the_next(xp):
    """3 of 6 positives and 3 of 6 negatives, 2000 times: each about 1000 times (5 standard deviations)."""
    labels, counts = [0, BELOW_LOW] * 6, np.zeros(12, int)
    for seed in range(2000):
        counts[sample(xp, labels, 6, 0.5, seed)] += 1
    assert (abs(counts - 1000) < 5 * np.sqrt(2000 / 4)).all()


# torchvision's answers


@pytest.mark.parametrize("case", cases("matcher"))
def test_match_is_torchvision_s(xp, case):
    options = float(case["high"]), float(case["low"]), bool(case["allow_low_quality"])
    assert matched(xp, case["iou"], *options) == case["matched"].tolist()


# Crowds


def test_a_negative_mostly_in_a_crowd_is_left_out():
    """Of the boxes 0 %, 60 %, 70 %, 100 % lie in the region; the last one is a positive and stays one."""
    boxes = np.array([(20, 0, 30, 10), (-4, 0, 6, 10), (-3, 0, 7, 10), (1, 1, 5, 5), (1, 1, 9, 9)], float)
    region = np.array([(0, 0, 10, 10)], float)
    matched = np.array([BELOW_LOW, BELOW_LOW, BELOW_LOW, BELOW_LOW, 0])
    assert leave_out(matched, boxes, region).tolist() == [-1, -1, -2, -2, 0]
    assert leave_out(matched, boxes, region[:0]).tolist() == matched.tolist()
    elsewhere = np.array([(50, 50, 60, 60), (0, 0, 10, 10)], float)
    assert leave_out(matched, boxes, elsewhere).tolist() == [-1, -1, -2, -2, 0]
