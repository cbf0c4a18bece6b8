"""The slider over NMS thresholds: it holds NMS's answers, nothing comes from elsewhere, no name breaks out."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn_scratch.errors import InputError
from mrcnn_scratch.nms import nms
from mrcnn_scratch.visualize import nms_slider

IMAGE = np.full((20, 30, 3), 200, np.uint8)
BOXES = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
"""Neighbours have IoU 3/7, the outer two 1/9."""
SCORES = np.array([0.9, 0.8, 0.7], np.float32)


class Elements(HTMLParser):
    """Every start tag with its attributes, the text inside each element by tag, and what was closed."""

    VOID = ("input", "image")

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.open = [], {}, []
        self.feed(html)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def one(self, tag):
        (attributes,) = self.all(tag)
        return attributes

    @property
    def kept(self):
        return json.loads(self.all("div")[0]["data-kept"])


def test_three_boxes_by_hand():
    page = Elements(nms_slider(IMAGE, BOXES, SCORES, [0.05, 0.4, 0.5]))
    assert page.kept == [[0], [0, 2], [0, 1, 2]]
    assert json.loads(page.one("div")["data-thresholds"]) == [0.05, 0.4, 0.5]
    assert page.one("input") == {"type": "range", "min": "0", "max": "2", "step": "1", "value": "1"}
    solid = {int(box["data-box"]): "nms-solid" in box["class"] for box in page.all("rect")}
    assert solid == {0: True, 1: False, 2: True}, "without scripts, the middle threshold is shown"
    assert page.texts["output"] == ["2"]
    assert page.texts["span"] == ["0.40"]


def test_boxes_are_where_they_should_be_and_the_best_is_on_top():
    page = Elements(nms_slider(IMAGE, BOXES, SCORES, [0.5]))
    order = [int(box["data-box"]) for box in page.all("rect")]
    assert order == [2, 1, 0]
    middle = page.all("rect")[1]
    assert [float(middle[side]) for side in ("x", "y", "width", "height")] == [4, 0, 10, 10]
    assert page.one("svg")["viewbox"] == "0 0 30 20"
    assert page.texts["title"] == ["box 2, score .70", "box 1, score .80", "box 0, score .90"]


CORNER, SIDE = st.integers(0, 8), st.integers(0, 6)
BOX = st.tuples(CORNER, CORNER, SIDE, SIDE).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@given(
    scored=st.lists(st.tuples(BOX, st.integers(0, 3)), max_size=12),
    thresholds=st.lists(st.sampled_from([0, 0.1, 1 / 3, 0.5, 0.7, 1]), min_size=1, unique=True).map(sorted),
)
def test_the_kept_lists_are_those_of_nms(scored, thresholds):
    boxes = np.array([box for box, _ in scored], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in scored], np.float32)
    page = Elements(nms_slider(IMAGE, boxes, scores, thresholds))
    assert page.kept == [nms(boxes, scores, threshold).tolist() for threshold in thresholds]
    assert len(page.all("rect")) == len(boxes)


def test_nothing_comes_from_another_host():
    """All it shows is inside: no address, no file, no id that a second copy on the page would repeat."""
    html = nms_slider(IMAGE, BOXES, SCORES, [0.5])
    page = Elements(html)
    picture = page.one("image")["href"]
    assert picture.startswith("data:image/png;base64,")
    for word in ("http", "//", "url(", "@import", "fetch", "import("):
        assert word not in html.replace(picture, "")
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert "id" not in attributes


@pytest.mark.parametrize(
    "name",
    [
        "</title></svg><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "'/><!--",
        "]]></style>{{evil}}",
        "&lt;b&gt;",
        "\u2028\n${1}`",
    ],
)
def test_hostile_names_stay_text(name):
    harmless = Elements(nms_slider(IMAGE, BOXES, SCORES, [0.5], ["a", "b", "c"]))
    page = Elements(nms_slider(IMAGE, BOXES, SCORES, [0.5], ["a", name, "c"]))
    assert page.tags == harmless.tags
    assert page.texts["title"] == ["c, score .70", f"{name}, score .80", "a, score .90"]


def test_the_slider_has_a_label_and_is_hidden_until_the_script_runs():
    html = nms_slider(IMAGE, BOXES, SCORES, [0.5])
    label = html[html.index("<label") : html.index("</label>")]
    assert "NMS threshold" in label
    assert "<input" in label
    assert "hidden" in Elements(html).one("label")


BAD = {
    "image": (IMAGE / 255, BOXES, SCORES, [0.5], ()),
    "boxes": (IMAGE, BOXES[:2], SCORES, [0.5], ()),
    "finite": (IMAGE, BOXES * np.nan, SCORES, [0.5], ()),
    "names": (IMAGE, BOXES, SCORES, [0.5], ["one"]),
    "thresholds": (IMAGE, BOXES, SCORES, [], ()),
    "rise": (IMAGE, BOXES, SCORES, [0.5, 0.4], ()),
    "0 to 1": (IMAGE, BOXES, SCORES, [0.5, 1.5], ()),
    "within 0": (IMAGE, BOXES, SCORES, [-0.1, 0.5], ()),
}


@pytest.mark.parametrize("word", BAD)
def test_bad_input_is_named(word):
    with pytest.raises(InputError, match=word) as caught:
        nms_slider(*BAD[word])
    assert "\n" not in str(caught.value)
