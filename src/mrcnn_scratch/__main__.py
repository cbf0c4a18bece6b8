"""``python -m mrcnn_scratch`` is ``mrcnn-scratch``."""

import sys

from .cli import main

sys.exit(main())
