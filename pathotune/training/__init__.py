"""Training of PathoTune: the fit loop, its precision, batches, augmentation, and checkpoints after each epoch."""

from pathotune.training.loop import MONITORS, FitOptions, FitResult, Watch, fit, probabilities, schedule

__all__ = ["MONITORS", "FitOptions", "FitResult", "Watch", "fit", "probabilities", "schedule"]
