"""Trained networks: the one that comes with the package, ours on disk, and torchvision's."""

from importlib.resources import as_file, files
from pathlib import Path

from ..mask_rcnn import MaskRCNN
from .model_file import load_model
from .torchvision import load_torchvision, save_torchvision

__all__ = ["load_shapes", "load_torchvision", "open_model", "save_torchvision"]


def load_shapes() -> MaskRCNN:
    """The network that comes with the package, trained on toy shapes by ``make weights``."""
    with as_file(files(__package__) / "shapes.npz") as path:
        return load_model(path)


def open_model(name: str) -> MaskRCNN:
    """The network called ``name``: ``shapes``, a ``.npz`` that training wrote, or a ``.pth`` of torchvision's.

    Raises:
        InputError: there is no such file, or it holds no network.
    """
    if name == "shapes":
        return load_shapes()
    path = Path(name)
    return load_torchvision(path) if path.suffix in (".pth", ".pt") else load_model(path)
