"""How PathoTune is trained: the fit loop, its arithmetic, batches, augmentation, and its state after an epoch."""

from pathotune.training.loop import MONITORS, FitOptions, FitResult, Watch, fit, probabilities, schedule

__all__ = ["MONITORS", "FitOptions", "FitResult", "Watch", "fit", "probabilities", "schedule"]
