"""The exercises: they can be solved, the judge takes what is right, and says what is wrong in words."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_trainer

from mrcnn_scratch import cli, evaluation, mine, ops, stand_ins
from mrcnn_scratch.backend import to_host
from mrcnn_scratch.boxes import box_iou
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.mine import EXERCISES, use_mine, use_ours

ROOT = Path(__file__).parents[1]
SOLUTIONS = ROOT / "tests" / "solutions"


@pytest.fixture(autouse=True)
def ours_afterwards():
    yield
    use_ours()


@pytest.fixture(scope="module")
def judge():
    """``judge(path)`` is the exit code and what was printed."""
    command = [sys.executable, str(ROOT / "tests" / "judge_server.py")]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as server:

        def ask(path, patience=10, first=False):
            request = {"path": str(path), "patience": patience, "first": first}
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            answer = json.loads(server.stdout.readline())
            return answer["code"], answer["said"]

        yield ask
        server.stdin.close()


def written(folder, exercise, source):
    path = folder / f"{exercise}.py"
    path.write_text(source)
    return path


# What is right


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_stub_is_not_written_yet(judge, exercise):
    """Its docstring says what should come out."""
    path = ROOT / "exercises" / f"{exercise}.py"
    if set(EXERCISES[exercise]) - set(mine.not_written(path)):
        pytest.skip(f"{path} is written: make exercise NAME={exercise} judges it")
    code, said = judge(path)
    assert code == 1
    assert said.startswith(f"{' and '.join(EXERCISES[exercise])}: not written yet. Open exercises/{exercise}.py.")
    assert EXERCISES[exercise][0] in said or "=" in said
    assert len(said.splitlines()) >= 4


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_package_s_own_functions_pass(judge, tmp_path, exercise):
    source = "\n".join(f"from mrcnn_scratch{stand_ins.FORMS[f].module} import {f}" for f in EXERCISES[exercise])
    code, said = judge(written(tmp_path, exercise, source))
    assert code == 0, said
    assert re.search(rf"{exercise}: all \d+ checks passed, in ", said)
    assert "mrcnn-scratch train --out runs/mine --mine" in said


LONG = ("conv2d", "roi_align", "average_precision")


@pytest.mark.parametrize("exercise", [pytest.param(e, marks=[pytest.mark.slow] * (e in LONG)) for e in EXERCISES])
def test_slow_loops_pass(judge, exercise):
    """A reader's solution: NumPy, loops, no speed."""
    code, said = judge(SOLUTIONS / f"{exercise}.py")
    assert code == 0, said


@pytest.fixture
def judging(monkeypatch):
    """What the judge is made of."""
    monkeypatch.syspath_prepend(ROOT / "exercises")
    return lambda name: importlib.import_module(f"judging.{name}")


@pytest.mark.parametrize("exercise", EXERCISES)
def test_all_checks_that_are_named_exist(judging, exercise):
    """A test that was renamed must not fall out unseen."""
    file, chosen = judging("checks").CHECKS[exercise]
    tests = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert {f"test_{name}" for name in chosen.split()} <= tests


# What is wrong: the solutions with a mistake that people make


MISTAKES = [  # exercise, mistake, what the solution says, what it says instead
    ("iou", "+1 in the widths", "max(a[i, 0], b[j, 0])", "max(a[i, 0], b[j, 0]) + 1"),
    ("iou", "boxes that are apart overlap", "max(width, 0) * max(height, 0)", "width * height"),
    ("iou", "0 / 0 where there is no area", "if union > 0:", "if True:"),
    ("iou", "the intersection counted twice", "area_a + area_b - intersection", "area_a + area_b"),
    ("nms", ">= instead of >", "iou[k, i] > iou_threshold", "iou[k, i] >= iou_threshold"),
    ("nms", "ties in the wrong order", 'np.argsort(-scores, kind="stable")', "np.argsort(scores)[::-1]"),
    ("nms", "the fallen suppress as well", "for k in kept:", 'for k in np.argsort(-scores, kind="stable"):'),
    ("nms", "in the order of the input", "return kept", "return sorted(kept)"),
    ("anchors", "ratio upside down", "size * math.sqrt(ratio)", "size / ratio"),
    ("anchors", "no rounding", "np.round(anchors)", "np.array(anchors)"),
    ("anchors", "no stride", "column * stride_x, row * stride_y", "column, row"),
    ("anchors", "half a stride off", "x, y = column * stride_x,", "x, y = (column + 0.5) * stride_x,"),
    ("matching", "background is ignored", "np.full(candidates, -1)", "np.full(candidates, -2)"),
    ("matching", "no low-quality rule", "if allow_low_quality:", "if False:"),
    ("matching", "> instead of >=", "iou[best, a] >= high", "iou[best, a] > high"),
    ("matching", "the low-quality rule's own object", "matched[a] = np.argmax(iou[:, a])", "matched[a] = g"),
    ("boxes", "no bound", "min(dw, largest)", "min(dw, 100)"),
    ("boxes", "+1 in the widths", "x2 - x1, y2 - y1", "x2 - x1 + 1, y2 - y1 + 1"),
    ("boxes", "weights not divided out", "deltas[i] / np.array(weights)", "deltas[i]"),
    ("conv2d", "no stride", "[m, i * stride : i * stride + kh", "[m, i : i + kh"),
    ("conv2d", "flipped kernel", "(window * weight[:, :, :, f])", "(window * weight[::-1, ::-1, :, f])"),
    ("conv2d", "missing += in dx", "left : left + kw] += dy", "left : left + kw] = dy"),
    ("conv2d", "missing += in dweight", "dweight[:, :, :, f] += dy", "dweight[:, :, :, f] = dy"),
    ("roi_align", "no half a pixel where aligned", "first -= 0.5", "first -= 0.0"),
    ("roi_align", "sum instead of mean", "count = len(ys[i]) * len(xs[j])", "count = 1"),
    ("roi_align", "samples at the edge of their bins", "(a + 0.5) / count", "a / count"),
    ("roi_align", "missing += in the backward", "h, w] += dy", "h, w] = dy"),
    ("cross_entropy", "sum instead of mean", "np.log(total)) / rows", "np.log(total))"),
    ("cross_entropy", "gradient not divided by N", "* dloss / max(rows, 1)", "* dloss"),
    ("cross_entropy", "overflow", "logits[r] - max(logits[r])", "logits[r]"),
    ("average_precision", "no envelope", "max(reached) if", "reached[0] if"),
    ("average_precision", "> instead of >=", "recall >= level", "recall > level"),
    ("average_precision", "the excused count", "counted += not is_excused", "counted += 1"),
]


@pytest.mark.parametrize(("exercise", "mistake", "right", "wrong"), MISTAKES, ids=[f"{e}-{m}" for e, m, *_ in MISTAKES])
def test_a_wrong_answer_is_told_in_words(judge, tmp_path, exercise, mistake, right, wrong):
    source = (SOLUTIONS / f"{exercise}.py").read_text()
    assert source.count(right) == 1
    code, said = judge(written(tmp_path, exercise, source.replace(right, wrong)), first=True)
    assert code == 1
    assert "checks failed" in said
    assert re.search(rf"called: ({'|'.join(EXERCISES[exercise])})\(", said), said
    for word in ("with", "expected", "the check ("):
        assert f"   {word}" in said, said
    assert re.search(r"^ +(got|your function raised)", said, re.M), said
    assert not re.search("fixture|Traceback|hypothesis|falsif", said, re.I), said


def test_the_report_is_readable(judge, tmp_path):
    """The smallest call that went wrong, what should have come, what came, and the test that says so."""
    source = (SOLUTIONS / "nms.py").read_text().replace("iou[k, i] > iou_threshold", "iou[k, i] >= iou_threshold")
    code, said = judge(written(tmp_path, "nms", source), first=True)
    assert code == 1
    assert said.splitlines() == [
        "",
        "nms: 1 of 2 checks failed.",
        "",
        "1. Exactly the threshold is kept",
        "   A box of 1 in a box of 2 has IoU 1/2, which is not above 1/2.",
        "   called: nms(boxes, scores, iou_threshold)",
        "   with",
        "       boxes = [[0., 0., 2., 1.],",
        "                [0., 0., 1., 1.]]",
        "       scores = [2., 1.]",
        "       iou_threshold = 0.5",
        "   expected",
        "       result = [0, 1]",
        "   got",
        "       result = [0]",
        f"   the check (tests/test_nms.py, line {line_of('tests/test_nms.py', '[2, 1], 0.5) == [0, 1]')}):",
        "       assert run(xp, boxes, [2, 1], 0.5) == [0, 1]",
        "",
        "Then again: make exercise NAME=nms",
    ]


def line_of(file, text):
    lines = (ROOT / file).read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def test_of_all_calls_that_went_wrong_the_smallest_is_told(judging):
    """The one that a reader can most easily work out on paper."""
    mine_iou = stand_ins.Written(Path("iou.py"), "box_iou", lambda a, b: 2 * box_iou(a, b))
    onlooker = judging("onlooker").Onlooker(mine_iou, box_iou, patience=10)
    for count in (3, 1, 2):
        onlooker(np.array([[0, 0, 1, 1.0]] * count), np.array([[0, 0, 2, 1.0]]))
    assert onlooker.seen.expected["result"].tolist() == [[0.5]]
    assert onlooker.seen.got["result"].tolist() == [[1]]
    assert onlooker.calls == 3


def test_at_most_three_failures_are_told(judge, tmp_path):
    _, said = judge(written(tmp_path, "iou", "def box_iou(a, b):\n    print('I was here')\n    return 0 * a @ b.T"))
    assert re.findall(r"^(\d)\. ", said, re.M) == ["1", "2", "3"]
    assert re.search(r"^3 more failed\.", said, re.M)
    assert "your function printed, at the end:\n   I was here" in said


def test_the_line_that_raised_is_named(judge, tmp_path):
    path = written(tmp_path, "nms", "def nms(boxes, scores, iou_threshold):\n    first = 0\n    return boxes[first, 7]")
    code, said = judge(path, first=True)
    assert code == 1
    assert "your function raised IndexError: index 7 is out of bounds for axis 1 with size 4" in said
    assert f"at {path}, line 3:\n       return boxes[first, 7]" in said


def test_what_may_not_be_written_to(judge, tmp_path):
    source = (SOLUTIONS / "boxes.py").read_text()
    source = source.replace("deltas[i] / np.array(weights)", "deltas[i]").replace(
        "    largest =", "    deltas /= np.array(weights)\n    largest ="
    )
    _, said = judge(written(tmp_path, "boxes", source))
    assert "make a copy first" in said


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ("scores > 0.5", "the result is of the type bool, and whole numbers are wanted"),
        ("[0, 9]", "the result holds the index 9, and there are"),
        ("None", "the result is None: is a return missing?"),
        ("[[0, 1], [2]]", "the result is no array: its rows differ in length"),
    ],
)
def test_what_is_no_answer_at_all(judge, tmp_path, result, reason):
    path = written(tmp_path, "nms", f"def nms(boxes, scores, iou_threshold):\n    return {result}")
    code, said = judge(path, first=True)
    assert code == 1
    assert f"which will not do: {path}, line 1: nms: {reason}" in said


def test_no_backward(judge, tmp_path):
    source = "import numpy as np\n\ndef cross_entropy(logits, labels):\n    return np.float64(0)"
    _, said = judge(written(tmp_path, "cross_entropy", source), first=True)
    assert "cross_entropy: it should return two things, the output and the function that gives the gradients" in said


def test_an_endless_loop_is_stopped(judge, tmp_path):
    source = (
        "def nms(boxes, scores, iou_threshold):\n    i = 0\n    while i < len(boxes):\n        i += 0\n    return []"
    )
    code, said = judge(written(tmp_path, "nms", source), patience=0.5)
    assert code == 1
    assert "one call of nms took longer than 0.5 seconds. Does a loop never end?" in said
    assert re.search(r"line [34]:\n\n    (while i < len\(boxes\):|i \+= 0)\n", said)
    assert "iou_threshold = 0.4" in said


def test_one_of_two_functions(judge, tmp_path):
    """What is written is judged; for the other the package's own stands in."""
    encode = (SOLUTIONS / "boxes.py").read_text().partition("def decode_boxes")[0]
    decode = (
        'def decode_boxes(deltas, references, weights):\n    """Not yet."""\n    raise NotImplementedError("write me")'
    )
    code, said = judge(written(tmp_path, "boxes", encode + decode))
    assert code == 1
    assert "decode_boxes: not written yet. Until it is, the package's own stands in for it." in said
    assert "all 11 checks passed" in said
    assert "Next: write decode_boxes." in said


def test_the_command(tmp_path):
    """Exit codes and words of ``python exercises/judge.py``, as ``make exercise`` runs it."""

    def run(*arguments):
        command = [sys.executable, str(ROOT / "exercises" / "judge.py"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    code, said = run()
    assert code == 0
    assert re.search(r"^  nms +nms +(not written yet|written)$", said, re.M)
    path = written(tmp_path, "cross_entropy", "from mrcnn_scratch.ops import cross_entropy")
    assert run(path)[0] == 0
    path.write_text("raise SystemExit(0)")
    assert run(path) == (1, f"{path}, line 1: importing it raised SystemExit: 0\n")
    assert run(tmp_path / "other.py")[0] == 1


# In place of the package's functions


def test_everywhere_it_is_bound(tmp_path):
    source = "def box_iou(a, b):\n    return [[0.25] * len(b)] * len(a)"
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 1.0]], np.float32)
    assert use_mine(written(tmp_path, "iou", source)) == ["box_iou"]
    assert evaluation.box_iou is sys.modules["mrcnn_scratch.boxes"].box_iou is not box_iou
    result = evaluation.box_iou(boxes, boxes)
    assert result.tolist() == [[0.25, 0.25]] * 2
    assert result.dtype == np.float32
    assert sys.modules["mrcnn_scratch.nms"].nms(boxes, boxes[:, 2], 0.2).tolist() == [0]
    use_ours()
    assert evaluation.box_iou is sys.modules["mrcnn_scratch.boxes"].box_iou is box_iou


def test_nms_is_used_wherever_boxes_are_suppressed(tmp_path):
    """Keep nothing, and no proposals are left, nor detections."""
    module, levels = sys.modules["mrcnn_scratch.nms"], sys.modules["mrcnn_scratch.rpn.proposals"]
    boxes, scores = np.array([[0, 0, 1, 1], [5, 5, 6, 6.0]]), np.array([0.9, 0.8])
    use_mine(written(tmp_path, "nms", "def nms(boxes, scores, iou_threshold):\n    return []"))
    assert module.batched_nms(boxes, scores, np.array([1, 2]), 0.5).tolist() == []
    assert levels.keep_mask(boxes[None], np.ones((1, 2), bool), 0.5).tolist() == [[False, False]]


def test_a_second_try_takes_the_place_of_the_first(tmp_path):
    boxes = np.array([[0, 0, 1, 1.0]])
    for value in (0.25, 0.75):
        use_mine(written(tmp_path, "iou", f"def box_iou(a, b):\n    return [[{value}]]"))
        assert evaluation.box_iou(boxes, boxes).tolist() == [[value]]
    use_mine(written(tmp_path, "iou", "from mrcnn_scratch.boxes import box_iou"))
    assert evaluation.box_iou(boxes, boxes).tolist() == [[1]]
    use_ours()
    assert evaluation.box_iou is box_iou


def test_backward_is_used_once(tmp_path):
    """The contract of the package's operations holds for a reader's."""
    use_mine(SOLUTIONS / "cross_entropy.py")
    _, backward = ops.cross_entropy(np.zeros((1, 2), np.float32), np.array([0]))
    assert backward().tolist() == [[-0.5, 0.5]]
    with pytest.raises(RuntimeError, match="called twice"):
        backward()


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("suppress", "", "there is no exercise 'suppress': name the file after one: iou, nms, "),
        ("nms", None, "cannot read .*nms.py: No such file"),
        ("nms", "def nms(:", "nms.py, line 1: this is not Python: "),
        ("nms", "x = 1\ny = x / 0", "nms.py, line 2: importing it raised ZeroDivisionError"),
        ("nms", "import nupmy", "nms.py, line 1: importing it raised ModuleNotFoundError: No module named 'nupmy'"),
        ("nms", "def other(): pass", r"there is no function nms: write def nms\(boxes, scores, iou_threshold\)"),
        ("nms", "\ndef nms(boxes, scores): pass", r"line 2: nms takes \(boxes, scores\), and should take \(boxes, sc"),
        ("matching", "def match(iou): pass", r"should take \(iou, \*, high, low, allow_low_quality\)"),
        ("nms", "def nms(boxes, scores, t):\n    raise NotImplementedError", "line 1: nms: not written yet"),
    ],
)
def test_a_file_that_will_not_do(tmp_path, name, source, message):
    path = tmp_path / f"{name}.py" if source is None else written(tmp_path, name, source)
    with pytest.raises(InputError, match=message) as caught:
        use_mine(path)
    assert "\n" not in str(caught.value)


def tiny_step(xp):
    """What a step of a tiny network measured, and its weights afterwards."""
    trainer = tiny_trainer(xp=xp)
    losses = trainer.step()
    del losses["seconds"]
    return losses, {name: to_host(p.value).copy() for name, p in trainer.model.named_parameters()}


def test_a_training_step_with_all_nine(xp):
    """Loops for everything, and the package's numbers; on a GPU too, though the loops get host arrays."""
    own_losses, own_weights = tiny_step(np)
    names = [name for exercise in EXERCISES for name in use_mine(SOLUTIONS / f"{exercise}.py")]
    assert names == list(mine.IN_USE) == [name for names in EXERCISES.values() for name in names]
    calls = dict.fromkeys(names, 0)
    for one in mine.IN_USE.values():
        one.function = counting(one.name, one.function, calls)
    losses, weights = tiny_step(xp)
    assert losses == pytest.approx(own_losses, rel=1e-4)
    for name, value in weights.items():
        np.testing.assert_allclose(value, own_weights[name], rtol=1e-3, atol=1e-5, err_msg=name)
    unused = {name for name, count in calls.items() if not count}
    assert unused == {"precision_recall", "average_precision"}  # they measure


def counting(name, function, calls):
    def counted(*arrays, **options):
        calls[name] += 1
        return function(*arrays, **options)

    return counted


def test_the_command_line(tmp_path, capsys, monkeypatch):
    path = written(tmp_path, "nms", "def nms(boxes, scores, iou_threshold):\n    raise ValueError('as planned')")
    assert cli.main(["evaluate", "shapes", "--images", "1", "--mine", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"nms: yours, from {path}\n" in said
    assert f"mrcnn-scratch: {path}, line 2: nms raised ValueError: as planned\n" in said
    assert cli.main(["train", "--out", str(tmp_path / "run"), "--mine", str(tmp_path / "iou.py")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
