"""What is predicted of a slide or patient: a class, a number, or survival; each with its loss and metrics."""

from wsi_pipeline.mil.tasks.base import Task
from wsi_pipeline.mil.tasks.make import make_task, task_from_json

__all__ = ["Task", "make_task", "task_from_json"]
