"""Train the network that comes with the package: ``make weights``.

Fresh scenes for ever instead of a fixed set, and more steps than the demo; otherwise the defaults. The result is stored
as float16. The run can be stopped and started again: it goes on from its last checkpoint.
"""

import sys
from pathlib import Path

from mrcnn_scratch.cli import main
from mrcnn_scratch.train import load_model, save_model

STEPS = 5000
RUN = Path("runs/weights")
SHIPPED = Path("src/mrcnn_scratch/weights/shapes.npz")

if __name__ == "__main__":
    resume = ["--resume"] if (RUN / "checkpoint.npz").exists() else []
    code = main(["train", "--out", str(RUN), "--steps", str(STEPS), "--images", "0", *resume])
    if code == 0:
        save_model(load_model(RUN / "model.npz"), SHIPPED, half=True)
        print(f"{SHIPPED}: {SHIPPED.stat().st_size / 1e6:.1f} MB")
        code = main(["evaluate", "shapes"])
    sys.exit(code)
