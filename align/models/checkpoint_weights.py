"""A checkpoint's weights, one parameter at a time, under the names that its model has for them.

Files say `language_model.model.layers.0…` where transformers says `model.language_model.layers.0…`, hold
experts one by one or transposed where the model has all of a layer in one parameter, or queries, keys and
values in one tensor where it has three. Which becomes which is transformers' own conversion, asked on a model
without weights, carried out for one parameter and, to write it again, undone. Nothing is loaded that is not
asked for, so a 7B checkpoint is compared with another in the memory of its largest parameter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.models.file_form import copy_tensors
from align.models.loading import ModelSection, first_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass
class _Source:
    """Tensors of the files that become one parameter, or several together.

    Attributes:
        parameter: the name that the library gives the first of them.
        converter: its WeightConverter; None where the tensor is the parameter as it is.
        keys: (the converter's pattern, name in the files), in the library's order.
        parameters: what they become.
    """

    parameter: str
    converter: Any
    keys: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    parameters: tuple[str, ...] = ()


class _Parameters:
    """What conversions ask of a model, its parameters' shapes, also once PEFT's layers hide them."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes

    def get_parameter(self, name: str) -> torch.Tensor:
        """Named as in the model, without values."""
        import torch

        return torch.empty(self._shapes[name], device="meta")


class CheckpointWeights:
    """An open checkpoint folder; made by `open_weights`.

    Attributes:
        folder: where its safetensors files are.
        model: its model on the `meta` device, without weights.
        keys: parameter name in the model -> names of its tensors in the files.
        left_out: tensors that the library leaves out knowingly, such as layers that guess further tokens.
    """

    def __init__(self, folder: Path, model: PreTrainedModel, files: dict[str, Any]) -> None:
        self.folder, self.model, self._files = folder, model, files
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self._parameters = _Parameters(self._shapes)
        sources, self.left_out = _sources(model, files, folder)
        self._sources: dict[str, _Source] = {}
        for source in sources:
            source.parameters = tuple(self._made(source, meta=True))
            self._sources |= dict.fromkeys(source.parameters, source)
        self.keys = {
            name: tuple(key for _, key in source.keys) for name, source in sorted(self._sources.items())
        }

    def tensor(self, parameter: str) -> torch.Tensor:
        """The parameter's tensor as the model holds it, in the files' dtype, on the CPU."""
        return self._made(self._sources[parameter])[parameter]

    def shape_in_files(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor as it stands in the files, by its name there."""
        return tuple(self._files[key].get_slice(key).get_shape())

    def names(self) -> set[str]:
        """The names of all tensors in the files that become parameters."""
        return {key for keys in self.keys.values() for key in keys}

    def together(self, parameter: str) -> tuple[str, ...]:
        """The parameters that stand in the same tensors, itself among them."""
        return self._sources[parameter].parameters

    def kind(self, parameter: str) -> int:
        """A number for the conversion that makes it; 0 for a tensor that is the parameter as it is."""
        converter = self._sources[parameter].converter
        return 0 if converter is None else id(converter)

    def in_files(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Values of the parameters in the form of the files: their tensor names, shapes and order of axes.

        Args:
            values: of parameters that stand in the same tensors, all of them (`together`).

        Raises:
            AlignError: the library's conversion does not undo itself: made again of what it gives, the
                parameters differ.
        """
        import torch

        source = self._sources[next(iter(values))]
        if source.converter is None:
            (value,) = values.values()
            return {source.keys[0][1]: value}
        try:
            tensors = self._undone(source, values)
            again = self._made(source, tensors)
            exact = all(torch.equal(again[name], value) for name, value in values.items())
        except (ValueError, RuntimeError, KeyError, AttributeError, NotImplementedError) as error:
            raise self._not_undone(source, first_line(error)) from error
        if not exact:
            raise self._not_undone(source, "what it undoes becomes something else")
        return tensors

    def _made(
        self, source: _Source, tensors: Mapping[str, torch.Tensor] | None = None, meta: bool = False
    ) -> dict[str, torch.Tensor]:
        """The parameters that a source becomes.

        Args:
            tensors: instead of those in the files.
            meta: shapes alone.

        Raises:
            AlignError: the conversion fails, or gives what is no parameter of that shape.
        """
        import torch

        if source.converter is None:
            key = source.keys[0][1]
            return {source.parameter: torch.empty(0, device="meta") if meta else self._read(key, meta)}
        converter: Any = deepcopy(source.converter)
        for pattern, key in source.keys:
            value = tensors[key] if tensors is not None else self._read(key, meta)
            converter.add_tensor(source.parameter, key, pattern, value)
        try:
            found = converter.convert(source.parameter, model=self._parameters, config=self.model.config)
        except (ValueError, RuntimeError, KeyError, AttributeError) as error:
            raise self._unreadable(source.keys[0][1], first_line(error)) from error
        made = {name: value[0] if isinstance(value, list) else value for name, value in found.items()}
        wrong = [name for name, value in made.items() if self._shapes.get(name) != value.shape]
        if wrong:
            name, shape = wrong[0], tuple(made[wrong[0]].shape)
            why = f"they become {name} {shape}, where the model has {self._shapes.get(name)}"
            raise self._unreadable(source.keys[0][1], why)
        return made

    def _read(self, key: str, meta: bool) -> torch.Tensor:
        import torch

        if meta:
            return torch.empty(self.shape_in_files(key), device="meta")
        return self._files[key].get_tensor(key)

    def _undone(self, source: _Source, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        converter = source.converter.reverse_transform()
        converter.operations = self._reversed_operations(source)
        if not converter.operations:
            return {source.keys[0][1]: values[source.parameter]}
        first = source.parameter
        for name, pattern in zip(source.parameters, converter.source_patterns, strict=True):
            converter.add_tensor(first, name, pattern, values[name])
        found = converter.convert(first, model=self._parameters, config=self.model.config)
        keys = [key for _, key in source.keys]
        tensors = {
            _named_alike(name, keys): value[0] if isinstance(value, list) else value
            for name, value in found.items()
        }
        if set(tensors) != set(keys):
            raise ValueError(f"{len(tensors)} of {len(keys)} tensors came back")
        return tensors

    def _reversed_operations(self, source: _Source) -> list[Any]:
        """The library transposes where a file's shape asks for it, and then would not transpose back, since
        the parameter has the shape that it looks for: here the file's shape decides again."""
        from transformers.core_model_loading import Transpose

        found = []
        for operation in reversed(source.converter.operations):
            if not (isinstance(operation, Transpose) and operation.check_dims):
                found.append(operation.reverse_op)
            elif self.shape_in_files(source.keys[0][1]) != tuple(self._shapes[source.parameter]):
                found.append(Transpose(operation.dim1, operation.dim0))
        return found

    def _unreadable(self, key: str, why: str) -> AlignError:
        return AlignError(
            f"the tensor {key} is no parameter of {type(self.model).__name__}: {why}",
            where=str(self.folder),
            fix="a checkpoint in a form that transformers loads can be read; save it with save_pretrained",
        )

    def _not_undone(self, source: _Source, why: str) -> AlignError:
        return AlignError(
            f"transformers' conversion of {source.keys[0][1]} cannot be undone: {why}",
            where=str(self.folder),
            fix="save the base with save_pretrained first, and merge into that",
        )


@contextmanager
def open_weights(folder: Path) -> Iterator[CheckpointWeights]:
    """The weights of a checkpoint folder, for the length of the block.

    Raises:
        AlignError: no checkpoint there, or files whose tensors transformers would not load.
    """
    from safetensors import safe_open

    from align.models.weightless import meta_model

    if not (folder / "config.json").is_file():
        raise AlignError(f"not a checkpoint: {folder} has no config.json", fix="name a checkpoint folder")
    model = meta_model(ModelSection(path=str(folder), dtype="float32"))
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(str(path), framework="pt"))
            files |= {key: file for key in file.keys()}  # noqa: SIM118 - not a mapping
        if not files:
            raise AlignError("no *.safetensors files", where=str(folder), fix="name a checkpoint folder")
        yield CheckpointWeights(folder, model, files)


def copy_left_out(base: Path, checkpoint: Path) -> None:
    """Put the tensors that the base's class does not load beside those of a checkpoint saved from it.

    Raises:
        AlignError: as `open_weights`.
    """
    with open_weights(base) as weights:
        copy_tensors(weights.left_out, base, checkpoint)


def check_convertible(folder: Path) -> None:
    """That a model trained on this checkpoint can be compared with it and written in its form: of each kind
    of conversion, one parameter is made and undone. After the training it would be too late.

    Raises:
        AlignError: as `open_weights` and `CheckpointWeights.in_files`.
    """
    with open_weights(folder) as weights:
        seen: set[int] = set()
        for parameter in weights.keys:
            if weights.kind(parameter) not in seen:
                seen.add(weights.kind(parameter))
                weights.in_files({name: weights.tensor(name) for name in weights.together(parameter)})


def _sources(
    model: PreTrainedModel, files: dict[str, Any], folder: Path
) -> tuple[list[_Source], tuple[str, ...]]:
    """Which tensors of the files become which parameters, and those that the library leaves out."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    conversions = get_model_conversion_mapping(model)
    renamings: Any = [item for item in conversions if isinstance(item, WeightRenaming)]
    converters: Any = [item for item in conversions if isinstance(item, WeightConverter)]
    by_pattern = {pattern: item for item in converters for pattern in item.source_patterns}
    parameters, prefix = model.state_dict(), model.base_model_prefix
    found: dict[str, _Source] = {}
    left_out = []
    for key in sorted(files, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, prefix, parameters)
        if name not in parameters and key in parameters:
            name, pattern = rename_source_key(key, [], [], prefix, parameters)
        if name in parameters:
            made = found.setdefault(name, _Source(name, by_pattern[pattern] if pattern else None))
            made.keys.append((pattern or key, key))
        elif _is_left_out(model, name):
            left_out.append(key)
        else:
            raise AlignError(
                f"the tensor {key} is no parameter of {type(model).__name__}, nor made into one",
                where=str(folder),
                fix="a checkpoint in transformers' own form can be read; save it with save_pretrained",
            )
    return list(found.values()), tuple(left_out)


def _is_left_out(model: PreTrainedModel, name: str) -> bool:
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return any(re.search(pattern, name) for pattern in patterns)


def _named_alike(name: str, keys: list[str]) -> str:
    """The file's tensor that an undone conversion calls `name`: the one that ends most like it, since
    renamings in front of the conversion change beginnings."""

    def common(key: str) -> int:
        pairs = zip(reversed(key.split(".")), reversed(name.split(".")), strict=False)
        return next((place for place, (one, other) in enumerate(pairs) if one != other), len(key))

    return name if name in keys else max(keys, key=common)
