"""Non-maximum suppression to play with: one piece of HTML, a few lines of JavaScript, nothing from elsewhere."""

import base64
import io
import json
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from ..backend import Array, to_host
from ..errors import InputError
from ..nms import nms
from .labels import decimal
from .parts import PALETTE, dim, same_length

_STYLE = f"""
.nms-slider {{ max-width: 30rem; color: inherit; font-size: 1rem; line-height: 1.5; }}
.nms-slider svg {{ display: block; width: 100%; height: auto; }}
.nms-slider image {{ image-rendering: pixelated; }}
.nms-slider rect {{ fill: none; vector-effect: non-scaling-stroke; }}
.nms-slider .nms-box {{ stroke: #fff; stroke-width: 1px; stroke-dasharray: 3 4; stroke-opacity: .55; }}
.nms-slider .nms-solid {{ stroke: {PALETTE[0]}; stroke-width: 3px; stroke-dasharray: none; stroke-opacity: 1; }}
.nms-slider label {{ display: flex; gap: .75em; align-items: center; margin: .5em 0 0; }}
.nms-slider label[hidden] {{ display: none; }}
.nms-slider input {{ flex: 1; min-width: 8em; accent-color: {PALETTE[3]}; }}
.nms-slider p {{ margin: .25em 0; font-variant-numeric: tabular-nums; }}
"""

# Every slider on the page that no copy of this script has taken charge of yet, so that a page may hold several. The
# label is hidden until then: without scripts there is nothing to move.
_SCRIPT = """
for (const root of document.querySelectorAll(".nms-slider:not([data-ready])")) {
  root.dataset.ready = "";
  const kept = JSON.parse(root.dataset.kept), thresholds = JSON.parse(root.dataset.thresholds);
  const slider = root.querySelector("input"), boxes = root.querySelectorAll(".nms-box");
  const show = () => {
    const i = Number(slider.value), solid = new Set(kept[i]);
    for (const box of boxes) box.classList.toggle("nms-solid", solid.has(Number(box.dataset.box)));
    root.querySelector(".nms-threshold").textContent = thresholds[i].toFixed(2);
    root.querySelector(".nms-kept").textContent = solid.size;
    slider.setAttribute("aria-valuetext", `IoU ${thresholds[i].toFixed(2)}, ${solid.size} boxes kept`);
  };
  slider.addEventListener("input", show);
  root.querySelector("label").hidden = false;
  show();
}
"""


def nms_slider(
    image: Array, boxes: Array, scores: Array, thresholds: Sequence[float], names: Sequence[str] = ()
) -> str:
    """A picture of ``boxes`` with a slider that moves the threshold of :func:`~mrcnn_scratch.nms.nms`.

    Kept boxes are drawn solid, suppressed ones thin and dashed. What is kept at each threshold is computed here; the
    page only looks it up. The answer is one ``<div class="nms-slider">`` that holds all it needs: it can stand in a
    notebook (``IPython.display.HTML``) or on a page, several times, in light and dark themes. The slider is moved by
    mouse, finger or arrow keys, and ``.nms-kept`` shows the number of boxes kept. Without scripts the middle threshold
    is shown and the slider is hidden.

    Args:
        image: (H, W, 3) uint8.
        boxes: (R, 4) in pixels.
        scores: (R,).
        thresholds: places of the slider: IoUs from 0 to 1, rising.
        names: of the boxes, shown with the score where the mouse rests on an outline; by default "box 0", "box 1", ...

    Returns:
        HTML. Elements: ``.nms-slider`` (``data-kept``: per threshold the kept indices as JSON, best first;
        ``data-thresholds``), ``input``, ``.nms-threshold``, ``.nms-kept``, and per box a ``.nms-box`` (``data-box``:
        its index), which is ``.nms-solid`` while kept.

    Raises:
        InputError: there are no thresholds, they do not rise from 0 to 1, or the arrays do not fit together.
    """
    image, boxes, scores = to_host(image), to_host(boxes), to_host(scores)
    names = [f"box {i}" for i in range(len(boxes))] if len(names) == 0 else names
    _check(image, boxes, scores, thresholds, names)
    kept = [nms(boxes, scores, threshold).tolist() for threshold in thresholds]
    middle = len(thresholds) // 2
    height, width = image.shape[:2]
    worst_first = np.argsort(-scores, kind="stable")[::-1]  # the best is drawn last, on top
    outlines = "\n".join(_outline(i, boxes[i], scores[i], names[i], i in kept[middle]) for i in worst_first.tolist())
    return f"""<div class="nms-slider" data-kept="{escape(json.dumps(kept))}" \
data-thresholds="{escape(json.dumps([float(t) for t in thresholds]))}">
<style>{_STYLE}</style>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="{len(boxes)} boxes on a picture; those kept are solid">
<image width="{width}" height="{height}" href="data:image/png;base64,{_png(dim(image))}"/>
{outlines}
</svg>
<label hidden>NMS threshold <input type="range" min="0" max="{len(thresholds) - 1}" step="1" value="{middle}"></label>
<p>IoU above <span class="nms-threshold">{thresholds[middle]:.2f}</span> is suppressed: \
<output class="nms-kept">{len(kept[middle])}</output> of {len(boxes)} boxes kept (solid)</p>
<script>{_SCRIPT}</script>
</div>"""


def _check(image: Array, boxes: Array, scores: Array, thresholds: Sequence[float], names: Sequence[str]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"the image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    if boxes.shape != (len(scores), 4) or scores.ndim != 1 or not np.isfinite(boxes).all():
        raise InputError(f"give finite boxes (R, 4) and scores (R,), not {boxes.shape} and {scores.shape}")
    if len(scores):
        same_length(boxes=boxes, names=names)
    steps = np.asarray(thresholds, float)
    if steps.ndim != 1 or not steps.size or steps[0] < 0 or steps[-1] > 1 or not (np.diff(steps) > 0).all():
        raise InputError(f"thresholds must be IoUs that rise within 0 to 1, not {list(thresholds)}")


def _outline(i: int, box: Array, score: float, name: str, solid: bool) -> str:
    x1, y1, x2, y2 = (float(side) for side in box)
    place = f'x="{x1:.2f}" y="{y1:.2f}" width="{max(x2 - x1, 0):.2f}" height="{max(y2 - y1, 0):.2f}"'
    title = f"<title>{escape(name)}, score {decimal(score)}</title>"
    return f'<rect class="nms-box{" nms-solid" * solid}" data-box="{i}" {place}>{title}</rect>'


def _png(image: Array) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
