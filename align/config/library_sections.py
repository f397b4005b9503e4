"""Recipe sections by another library's own names: TRL's configs and PEFT's.

The fields are read from the installed source with `ast`, so a recipe is checked in milliseconds
without importing torch, and an editor completes against the version that is really installed.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import typing
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, create_model, model_serializer
from pydantic_core import PydanticCustomError

from align.config.recipe import Strict
from align.errors import AlignError

_TRAINING_ARGUMENTS = ("transformers", "training_args.py", "TrainingArguments")
_TRL_BASE = ("trl", "trainer/base_config.py", "_BaseConfig")
_PEFT_BASE = (("peft", "config.py", "PeftConfigMixin"), ("peft", "config.py", "PeftConfig"))
_PEFT_PROMPT = (*_PEFT_BASE, ("peft", "config.py", "PromptLearningConfig"))
# Derived class last; each entry is package, file inside it, class.
_SOURCES = {
    "SFTConfig": (_TRAINING_ARGUMENTS, _TRL_BASE, ("trl", "trainer/sft_config.py", "SFTConfig")),
    "DPOConfig": (_TRAINING_ARGUMENTS, _TRL_BASE, ("trl", "trainer/dpo_config.py", "DPOConfig")),
    "TrainingArguments": (_TRAINING_ARGUMENTS,),
    "LoraConfig": (*_PEFT_BASE, ("peft", "tuners/lora/config.py", "LoraConfig")),
    "IA3Config": (*_PEFT_BASE, ("peft", "tuners/ia3/config.py", "IA3Config")),
    "TinyLoraConfig": (*_PEFT_BASE, ("peft", "tuners/tinylora/config.py", "TinyLoraConfig")),
    "PeanutConfig": (*_PEFT_BASE, ("peft", "tuners/peanut/config.py", "PeanutConfig")),
    "BeftConfig": (*_PEFT_BASE, ("peft", "tuners/beft/config.py", "BeftConfig")),
    "PrefixTuningConfig": (*_PEFT_PROMPT, ("peft", "tuners/prefix_tuning/config.py", "PrefixTuningConfig")),
    "PromptEncoderConfig": (*_PEFT_PROMPT, ("peft", "tuners/p_tuning/config.py", "PromptEncoderConfig")),
    "PromptTuningConfig": (*_PEFT_PROMPT, ("peft", "tuners/prompt_tuning/config.py", "PromptTuningConfig")),
}

# What a training stage decides itself, and why.
STAGE_OWNS = {
    "output_dir": "the stage writes to run_dir/name",
    "seed": "set the recipe's own `seed`",
    "data_seed": "set the recipe's own `seed`",
    "full_determinism": "the stage is deterministic on CPU; on a GPU this would change kernels",
    "resume_from_checkpoint": "the stage resumes by itself from its last whole checkpoint",
    "remove_unused_columns": "the stage passes only the columns that the trainer reads",
    "report_to": "the stage writes train_log.jsonl; nothing is sent anywhere",
    "run_name": "nothing is reported to a service",
    "logging_strategy": "every step is logged, so that a resumed log equals an undisturbed one",
    "logging_steps": "every step is logged, so that a resumed log equals an undisturbed one",
    "logging_first_step": "every step is logged",
    "logging_nan_inf_filter": "a loss that is not a number is an error here",
    "disable_tqdm": "the stage has its own progress bar",
    "log_level": "the stage says what matters",
    "push_to_hub": "nothing is uploaded",
    "hub_model_id": "nothing is uploaded",
    "hub_token": "nothing is uploaded",
    "save_strategy": "checkpoints are needed for resuming; set trainer.save_steps",
    "save_only_model": "resuming needs the optimizer and the random state",
    "overwrite_output_dir": "the stage writes to run_dir/name",
    "model_init_kwargs": "set the recipe's `model` section",
    "trust_remote_code": "set model.trust_remote_code",
    "deepspeed": "launch with `accelerate launch --config_file`",
    "eval_strategy": "evaluation has its own stages: generate, score, report",
    "do_eval": "evaluation has its own stages: generate, score, report",
    "do_predict": "evaluation has its own stages: generate, score, report",
}

# The same of PEFT's configs.
PEFT_STAGE_OWNS = {
    "peft_type": "the recipe's `method` sets it",
    "task_type": "the stage sets it",
    "inference_mode": "the stage trains",
    "base_model_name_or_path": "set model.path",
    "revision": "set model.revision",
    "peft_version": "PEFT writes it",
    "auto_mapping": "PEFT writes it",
}


_LIMITS: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "max_steps": (lambda value: value == -1 or value >= 1, "at least 1, or -1 for num_train_epochs"),
    "num_train_epochs": (lambda value: 0 < value < math.inf, "more than 0"),
    "per_device_train_batch_size": (lambda value: value >= 1, "at least 1"),
    "gradient_accumulation_steps": (lambda value: value >= 1, "at least 1"),
    "learning_rate": (lambda value: 0 <= value < math.inf, "a number from 0 on"),
    "r": (lambda value: value >= 1, "at least 1"),
    "lora_dropout": (lambda value: 0 <= value < 1, "from 0 to below 1"),
}
"""What the libraries find out after the model is loaded, or never: transformers takes `max_steps: 0` for
"all epochs", and a negative rate for one to train away from the data with."""


class Passthrough(Strict):
    """A section whose keys are another library's; only what the recipe sets is kept and passed on."""

    model_config = ConfigDict(strict=True, validate_default=False)
    _own: ClassVar[frozenset[str]] = frozenset()
    _owned: ClassVar[frozenset[str]] = frozenset()

    def given(self) -> dict[str, Any]:
        """What the recipe sets, by the other library's names."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}

    @classmethod
    def own_and_passed(cls) -> tuple[list[str], list[str]]:
        """Names of the keys that are not the library's, and of those that are; refused ones are neither."""
        return sorted(cls._own), [n for n in cls.model_fields if n not in cls._own and n not in cls._owned]

    @model_serializer
    def _only_given(self) -> dict[str, Any]:
        return self.given()


class SourceField(typing.NamedTuple):
    """A dataclass field as written in a source file: unevaluated annotation, default, help text."""

    annotation: str
    default: Any
    help: str


@cache
def source_fields(config: str) -> Mapping[str, SourceField]:
    """Fields of a config of TRL or PEFT with its bases', from the installed source.

    Raises:
        AlignError: the library is not installed, or its source no longer has the class.
    """
    fields: dict[str, SourceField] = {}
    for package, file, cls in _SOURCES[config]:
        fields |= _class_fields(package, file, cls)
    return fields


def section(
    config: str, owned: Mapping[str, str], own: Mapping[str, tuple[Any, Any]] | None = None
) -> type[Passthrough]:
    """A pydantic class with the fields of `config`.

    Args:
        config: `SFTConfig`, `DPOConfig`, `LoraConfig` or another of PEFT's.
        owned: key -> why a recipe may not set it.
        own: further fields, `name -> (annotation, Field(...))`, that are not the library's.
    """
    fields: dict[str, tuple[Any, Any]] = {}
    for name, field in source_fields(config).items():
        if name in owned:
            fields[name] = (Annotated[Any, BeforeValidator(_refuse(owned[name]))], Field(default=None))
        else:
            kind: Any = _annotation(field.annotation)
            if name in _LIMITS:
                kind = Annotated[kind, AfterValidator(_within(*_LIMITS[name]))]
            fields[name] = (kind, Field(default=field.default, description=field.help))
    for name, pair in (own or {}).items():
        fields[name] = pair
    made = create_model(f"{config}Section", __base__=Passthrough, **typing.cast(Any, fields))
    made._own, made._owned = frozenset(own or {}), frozenset(owned)
    return made


def _within(fits: Callable[[float], bool], words: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, int | float) and not fits(value):
            raise ValueError(f"must be {words}")
        return value

    return check


def _refuse(reason: str) -> Callable[[Any], Any]:
    def refuse(value: Any) -> Any:
        raise PydanticCustomError("stage_owns", "the stage decides this itself: {reason}", {"reason": reason})

    return refuse


@cache
def _module_tree(package: str, file: str) -> ast.Module:
    spec = importlib.util.find_spec(package)  # a top-level package is located, not imported
    if spec is None or not spec.submodule_search_locations:
        raise AlignError(
            f"{package} is not installed", fix="run `make setup`, or `align doctor` to see what is missing"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / file
    if not path.is_file():
        raise AlignError(f"{package} has no {file}", fix="install the version in the lock file")
    return ast.parse(path.read_text(encoding="utf-8"))


def _class_fields(package: str, file: str, cls: str) -> dict[str, SourceField]:
    for node in _module_tree(package, file).body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            found = [_field(item) for item in node.body if isinstance(item, ast.AnnAssign)]
            return dict(item for item in found if item is not None)
    raise AlignError(f"{package}/{file} has no class {cls}", fix="install the version in the lock file")


def _field(node: ast.AnnAssign) -> tuple[str, SourceField] | None:
    if not isinstance(node.target, ast.Name) or node.target.id.startswith("_"):
        return None
    annotation = ast.unparse(node.annotation)
    if annotation.startswith(("ClassVar", "InitVar")):
        return None
    default, text = node.value, ""
    if isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "field":
        words = {word.arg: word.value for word in node.value.keywords}
        if isinstance(words.get("init"), ast.Constant) and not typing.cast(ast.Constant, words["init"]).value:
            return None
        default = words.get("default")
        text = _help(words.get("metadata"))
    return node.target.id, SourceField(annotation, _literal(default), text)


def _help(metadata: ast.expr | None) -> str:
    if isinstance(metadata, ast.Dict):
        for key, value in zip(metadata.keys, metadata.values, strict=True):
            text = _literal(value)
            if isinstance(key, ast.Constant) and key.value == "help" and isinstance(text, str):
                return " ".join(text.replace("%%", "%").split())
    return ""


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


class _Names(dict[str, Any]):
    """Names in annotations: the built-in types, and `Any` for classes that would have to be imported."""

    def __missing__(self, name: str) -> Any:
        return Any


def _annotation(text: str) -> Any:
    plain = {kind.__name__: kind for kind in (bool, int, float, str, list, dict, tuple, set)}
    special = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")}
    try:
        found = eval(
            text, {"__builtins__": {}}, _Names(**plain, **special)
        )  # an installed library's annotation
        return typing.Optional[found]  # noqa: UP045 - `found` may be a string or Any
    except Exception:  # an annotation this reader does not understand is left to the library
        return Any
