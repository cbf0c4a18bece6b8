"""Training: optimiser, schedule, loop, checkpoints."""

from ..weights.model_file import load_model, save_model
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .loop import Trainer
from .optim import SGD

__all__ = ["SGD", "Checkpoint", "Trainer", "load_checkpoint", "load_model", "save_checkpoint", "save_model"]
