"""The region proposal network: where might there be an object?"""

from .anchors import AnchorGenerator
from .head import RPNHead
from .loss import RPNTargets, rpn_losses, rpn_targets
from .proposals import propose

__all__ = ["AnchorGenerator", "RPNHead", "RPNTargets", "propose", "rpn_losses", "rpn_targets"]
