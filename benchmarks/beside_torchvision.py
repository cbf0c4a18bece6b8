"""ResNet-50 Mask R-CNN on one photo of 800 x 1200: this package beside torchvision, in turns, each in its own process.

    python benchmarks/beside_torchvision.py        in an environment with this package, torch and torchvision

Both run the same random weights, written by torchvision and read by ``load_torchvision``. Prints seconds and peak
memory.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TURNS = 2
RUNS = 2


def main() -> None:
    if len(sys.argv) == 3:
        measure(sys.argv[1], Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for _ in range(TURNS):
            for side in ("ours", "torchvision"):
                subprocess.run([sys.executable, __file__, side, folder], check=True)


def prepare(folder: Path) -> None:
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    torch.save(maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict(), folder / "full.pth")
    y, x = np.mgrid[0:800, 0:1200]
    waves = np.stack([60 * (np.sin(x / 40) + np.cos(y / 30 + i)) + 128 for i in range(3)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 20, waves.shape)
    np.save(folder / "photo.npy", np.clip(waves + noise, 0, 255).astype(np.uint8))


def measure(side: str, folder: Path) -> None:
    detect = ours(folder) if side == "ours" else torchvisions(folder)
    photo = np.load(folder / "photo.npy")
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        count = detect(photo)
        seconds.append(f"{time.perf_counter() - start:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{side:12} {', '.join(seconds)}; {count} detections; peak memory {peak:.0f} MB", flush=True)


def ours(folder: Path) -> Any:
    from mrcnn_scratch.weights import load_torchvision

    model = load_torchvision(folder / "full.pth")
    return lambda photo: len(model.detect([photo])[0])


def torchvisions(folder: Path) -> Any:
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    model.load_state_dict(torch.load(folder / "full.pth"))
    model.eval()

    def detect(photo: Any) -> int:
        with torch.no_grad():
            return len(model([torch.from_numpy(photo).permute(2, 0, 1) / 255])[0]["boxes"])

    return detect


if __name__ == "__main__":
    main()
