"""A checkpoint's weights, one tensor at a time, under the names that its model has for them.

Files say `language_model.model.layers.0…` where transformers says `model.language_model.layers.0…`; which
becomes which is transformers' own conversion, asked on a model without weights. Nothing is loaded that is
not asked for, so a 7B checkpoint is compared with another in the memory of its largest tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import AlignError
from align.models.loading import ModelSection

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class CheckpointWeights:
    """An open checkpoint folder; made by `open_weights`.

    Attributes:
        folder: where its safetensors files are.
        model: its model on the `meta` device, without weights.
        keys: parameter name in the model -> tensor name in the files.
    """

    def __init__(self, folder: Path, model: PreTrainedModel, files: dict[str, Any]) -> None:
        self.folder, self.model, self._files = folder, model, files
        self.keys = _parameter_keys(model, files, folder)

    def tensor(self, parameter: str) -> torch.Tensor:
        """The parameter's tensor as stored: its own dtype, on the CPU."""
        key = self.keys[parameter]
        return self._files[key].get_tensor(key)


@contextmanager
def open_weights(folder: Path) -> Iterator[CheckpointWeights]:
    """The weights of a checkpoint folder, for the length of the block.

    Raises:
        AlignError: no checkpoint there, or files whose tensors are no parameters of the model as they are.
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


def _parameter_keys(model: PreTrainedModel, files: dict[str, Any], folder: Path) -> dict[str, str]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    conversions = get_model_conversion_mapping(model)
    renamings: Any = [item for item in conversions if isinstance(item, WeightRenaming)]
    converters: Any = [item for item in conversions if isinstance(item, WeightConverter)]
    parameters = model.state_dict()
    keys = {}
    for key in sorted(files):
        name, converter = rename_source_key(key, renamings, converters, model.base_model_prefix, parameters)
        if converter is not None or name not in parameters:
            raise AlignError(
                f"the tensor {key} is no parameter of {type(model).__name__} as it is",
                where=str(folder),
                fix="a checkpoint in transformers' own form can be read; save it with save_pretrained",
            )
        keys[name] = key
    return keys
