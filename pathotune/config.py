"""PathoTuneConfig: every choice that the paper leaves open, each with a default. Does not import torch.

The published description fixes this much: TVP enter at every layer; TTP are a template encoded by a frozen BERT; IVP
are 2 tokens per image from the Visual Refine Module; the head reads [CLS]. Token counts, widths, wording and pooling
are not public. Source: Lu et al. 2024, arXiv 2403.16497.
"""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pathotune.checks import check_choice, check_probability, check_text, check_whole, checked_names
from pathotune.errors import ConfigError

DEPTHS = ("deep", "shallow")
TTP_POOLINGS = ("segments", "cls")
VRM_INPUTS = ("pixels", "patches", "layers")
STARTS = ("random", "tokens")
FEATURES = ("cls", "cls_mean")
HEADS = ("linear", "mlp")
BACKBONES = ("frozen", "lora", "full")
OFFLINE_ENCODER = "minilm"
TEMPLATE = "{stain} stained histology image of {organ}. The task is {task}. The classes are {classes}."
TEMPLATE_FIELDS = ("stain", "organ", "task", "classes")

_MOST_TASKS = 64


@dataclass(frozen=True)
class TaskText:
    """Values for the template of one task. Empty `classes` stands for the classes of the head."""

    stain: str = "H&E"
    organ: str = "human tissue"
    task: str = "patch classification"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("stain", "organ", "task"):
            check_text(name, getattr(self, name))
        object.__setattr__(self, "classes", checked_names("classes", self.classes))


@dataclass(frozen=True)
class PathoTuneConfig:
    """Configuration of a PathoTune model, without its backbone. Raises ConfigError for a field out of range.

    classes         class names of the head, in the order of the logits; () makes a model without a head
    tvp_tokens      task visual prompts per layer; 0 switches TVP off. VPT uses 1-100, and more is not always better
    tvp_depth       deep: new tokens at every layer (as in the paper); shallow: at the input only
    ttp             whether to use task textual prompts
    ttp_tokens      TTP per image, whatever the length of the text. 8 is about one per clause of the template; as many
                    as the text has word pieces keeps every token state as it is
    ttp_pooling     segments: means over ttp_tokens consecutive segments of token states (1: the mean of all);
                    cls: the state of BERT's own [CLS], one token
    ttp_depth       shallow: TTP enter at the input; deep: the same tokens are inserted again at every layer
    text_encoder    minilm (offline, from the extra `text`), a local folder, or a Hugging Face id ORG/NAME
    template        text with the fields {stain}, {organ}, {task} and {classes}
    tasks           values for the template: one entry per task that the adapter serves
    ivp_tokens      instance visual prompts per image (2 in the paper); 0 switches IVP and the VRM off
    ivp_depth       shallow: IVP enter at the input; deep: at every layer, with an offset and a scale for each layer
    vrm_input       layers: a VRM in each layer reads that layer's tokens, produces its IVP, and corrects its tokens;
                    patches: one VRM reads the backbone's patch embeddings, without positions; pixels: one reads the
                    image
    ivp_read        whether features also contain the mean of the last layer's IVP (for vrm_input layers): without it
                    the ViT makes little use of them
    vrm_rank        channels of the VRM of a layer (vrm_input layers); `training.budget` lowers it for a small backbone
    vrm_width       channels of the VRM's last stage, a multiple of 4
    vrm_calibrated  standardise the VRM's image descriptions by statistics of training images. With it, ivp_depth deep
                    and a low network_rate, the ViT uses IVP; without it, the ViT ignores them (docs/results.md)
    feature         cls: the final [CLS] (as in the paper); cls_mean: [CLS] concatenated with the mean patch token
    head            linear, or mlp (one hidden layer)
    head_width      hidden width of the mlp head
    head_dropout    dropout probability of the features before the head
    prompt_dropout  dropout probability of the elements of prompts
    start           how prompts are initialised. random: uniform, as in VPT. tokens: as patch tokens of their layer from
                    training images, at VPT's scale, chosen when training begins; deep TTP then have their own offsets
                    in each layer, as IVP do, and the text is added to these
    entry           where prompts enter, as a fraction of the backbone's layers; 0: at the input. Earlier layers are as
                    in the bare backbone and need no gradients
    backbone        training of the ViT itself: frozen (as in the paper), lora (low-rank updates of each layer's
                    queries, keys and values; Hu et al. 2021, arXiv 2106.09685), or full (all weights)
    lora_rank       rank of the updates
    lora_alpha      updates are scaled by lora_alpha / lora_rank

    With several tasks, a task whose classes are all in the head is trained and evaluated on its own classes only.
    """

    classes: tuple[str, ...] = ()
    tvp_tokens: int = 10
    tvp_depth: str = "deep"
    ttp: bool = True
    ttp_tokens: int = 8
    ttp_pooling: str = "segments"
    ttp_depth: str = "deep"
    text_encoder: str = OFFLINE_ENCODER
    template: str = TEMPLATE
    tasks: tuple[TaskText, ...] = (TaskText(),)
    ivp_tokens: int = 2
    ivp_depth: str = "shallow"
    vrm_input: str = "layers"
    ivp_read: bool = True
    vrm_rank: int = 16
    vrm_width: int = 128
    vrm_calibrated: bool = False
    feature: str = "cls"
    head: str = "linear"
    head_width: int = 128
    head_dropout: float = 0.0
    prompt_dropout: float = 0.0
    start: str = "tokens"
    entry: float = 0.0
    backbone: str = "frozen"
    lora_rank: int = 8
    lora_alpha: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", checked_names("classes", self.classes))
        object.__setattr__(self, "tasks", _checked_tasks(self.tasks))
        for name in ("ttp", "vrm_calibrated", "ivp_read"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name, (low, high) in _WHOLE.items():
            check_whole(name, getattr(self, name), low, high)
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name in ("head_dropout", "prompt_dropout", "entry"):
            check_probability(name, getattr(self, name))
        check_text("text_encoder", self.text_encoder)
        check_template(self.template)
        self._check_together()

    def _check_together(self) -> None:
        if self.vrm_width % 4:
            raise ConfigError(f"vrm_width must be a multiple of 4, got {self.vrm_width}")
        if self.ttp_pooling == "cls" and self.ttp_tokens != 1:
            raise ConfigError(f"ttp_tokens must be 1 with ttp_pooling cls, got {self.ttp_tokens}")
        if not self.text_encoder:
            raise ConfigError("text_encoder must not be empty", todo="To use no text encoder, set ttp to false.")

    @property
    def task_classes(self) -> tuple[tuple[bool, ...], ...] | None:
        """Which classes belong to each task, (tasks, classes); None if all tasks have all classes."""
        rows = []
        for task in self.tasks:
            own = task.classes if task.classes and set(task.classes) <= set(self.classes) else self.classes
            rows.append(tuple(name in own for name in self.classes))
        return None if all(all(row) for row in rows) else tuple(rows)

    @property
    def reads_instances(self) -> bool:
        """Whether features contain instance prompts."""
        return self.ivp_read and self.ivp_tokens > 0 and self.vrm_input == "layers"

    @property
    def feature_parts(self) -> int:
        """How many vectors of the backbone's width a feature consists of: [CLS], mean patch token, mean IVP."""
        return 1 + (self.feature == "cls_mean") + self.reads_instances

    @property
    def text_tokens(self) -> int:
        """TTP per image; 0 if they are off."""
        return self.ttp_tokens if self.ttp else 0

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        values = dataclasses.asdict(self)
        values["classes"] = list(self.classes)
        values["tasks"] = [{**dataclasses.asdict(task), "classes": list(task.classes)} for task in self.tasks]
        return values

    def to_json(self) -> str:
        """One line of JSON with sorted keys; equal configurations give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PathoTuneConfig:
        """The inverse of `to_dict`; fields may be missing. Raises ConfigError for unknown keys or values."""
        given = _known(cls, values, "configuration")
        if "tasks" in given:
            if not isinstance(given["tasks"], list | tuple):
                raise ConfigError(f"tasks must be a list, got {given['tasks']!r}")
            given["tasks"] = tuple(_task_of(value) for value in given["tasks"])
        return cls(**given)

    @classmethod
    def from_json(cls, text: str) -> PathoTuneConfig:
        """The inverse of `to_json`. Raises ConfigError unless the text is a configuration."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"configuration is not JSON: {error}") from None
        return cls.from_dict(values)


_WHOLE = {
    "tvp_tokens": (0, 1024),
    "ttp_tokens": (1, 512),
    "ivp_tokens": (0, 256),
    "vrm_rank": (1, 1024),
    "vrm_width": (8, 1024),
    "head_width": (1, 4096),
    "lora_rank": (1, 512),
    "lora_alpha": (1, 4096),
}
_CHOICES = {
    "tvp_depth": DEPTHS,
    "start": STARTS,
    "ttp_depth": DEPTHS,
    "ttp_pooling": TTP_POOLINGS,
    "ivp_depth": DEPTHS,
    "vrm_input": VRM_INPUTS,
    "feature": FEATURES,
    "head": HEADS,
    "backbone": BACKBONES,
}


def check_template(template: Any) -> None:
    """Raise ConfigError unless the template is a text whose only fields are those of TEMPLATE_FIELDS, unformatted."""
    check_text("template", template)
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"template cannot be read: {error}", todo="Write {{ and }} for literal braces.") from None
    for _, field, layout, conversion in parts:
        if field is not None and (field not in TEMPLATE_FIELDS or layout or conversion):
            raise ConfigError(
                f"template must use only the fields {', '.join(TEMPLATE_FIELDS)}, got {{{field}}}",
                todo="Write {{ and }} for literal braces.",
            )


def _task_of(value: Any) -> TaskText:
    if isinstance(value, TaskText):
        return value
    given = _known(TaskText, value, "tasks")
    try:
        return TaskText(**given)
    except ConfigError as error:
        raise ConfigError(f"tasks: {error.what}", todo=error.todo) from None


def _known(kind: type[Any], values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be an object, got {values!r}")
    names = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(str(key) for key in values if key not in names)
    if unknown:
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}", todo=f"Known keys: {', '.join(names)}")
    return dict(values)


def _checked_tasks(tasks: Any) -> tuple[TaskText, ...]:
    if not isinstance(tasks, list | tuple) or not all(isinstance(task, TaskText) for task in tasks):
        raise ConfigError(f"tasks must be a list of TaskText, got {tasks!r}")
    if not 1 <= len(tasks) <= _MOST_TASKS:
        raise ConfigError(f"tasks must be 1 to {_MOST_TASKS}, got {len(tasks)}")
    return tuple(tasks)
