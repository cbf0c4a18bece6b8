"""Training: optimiser, schedule, loop, checkpoints."""

from .checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint, save_model
from .loop import Trainer
from .optim import SGD

__all__ = ["SGD", "Checkpoint", "Trainer", "load_checkpoint", "load_model", "save_checkpoint", "save_model"]
