"""What is predicted of a slide or patient: a class, a number, or survival; each with its loss and metrics."""

from wsi_pipeline.mil.tasks.make_task import choose_class, make_task, task_from_json
from wsi_pipeline.mil.tasks.task import Task

__all__ = ["Task", "choose_class", "make_task", "task_from_json"]
