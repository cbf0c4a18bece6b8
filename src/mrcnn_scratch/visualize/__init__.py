"""Pictures of scenes, anchors, feature maps, proposals, detections and training curves.

Nothing here knows a network: arrays go in, a matplotlib ``Figure`` comes out, without pyplot's global state.
In a notebook run ``%matplotlib inline`` once, and a ``Figure`` that ends a cell shows itself; elsewhere use
:func:`save`. Axes are in pixels as boxes count them: pixel ``i`` covers ``[i, i + 1]``. One picture moves:
:func:`nms_slider` gives HTML.
"""

from .arrays import draw_array, show_arrays
from .contact_sheet import show_contact_sheet
from .curves import show_curves
from .objects import draw_objects, overlay, show_detections, show_scenes
from .parts import PALETTE, SHOWN_SCORE, save
from .slider import nms_slider
from .stages import show_anchors, show_feature_maps, show_proposals

__all__ = [
    "PALETTE",
    "SHOWN_SCORE",
    "draw_array",
    "draw_objects",
    "nms_slider",
    "overlay",
    "save",
    "show_anchors",
    "show_arrays",
    "show_contact_sheet",
    "show_curves",
    "show_detections",
    "show_feature_maps",
    "show_proposals",
    "show_scenes",
]
