"""`align doctor MODEL`: what holds for a checkpoint at hand, in a minute and without training or its weights.

The model is built without weights from its config; its processor and chat template are asked for real. Looked
at are family, where LoRA goes and what it leaves, one row as it would be trained on, picture tokens against
the processor, whether rows may share their prefix, memory of a step, and what vLLM knows of its class.
"""

from __future__ import annotations

import ast
import json
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from align.config.model_table import find_model
from align.doctor.check import Check
from align.errors import AlignError
from align.inputs.budget import TokenBudget
from align.inputs.chat import keeps_places, render, sees_images, tokenizer_of
from align.models.families import FAMILIES
from align.models.family import Component
from align.models.loading import ModelSection, load_processor
from align.models.lora_places import leaf_name, places
from align.models.proposal import checked_modules, propose
from align.progress import readable
from align.rows.schema import Message, SFTRow

if TYPE_CHECKING:
    from align.planning.fitting import Shapes

_SIZES = ((48, 64), (333, 500), (480, 640), (1024, 1024), (640, 2000))
"""Pictures (height, width) on which tokens are counted."""
_QUESTION, _ANSWER = "What is in the picture?", "A red ball on a table."


@dataclass
class Checkpoint:
    """What the checks ask of; each part is loaded once.

    Attributes:
        section: the checkpoint's folder or hub id.
        scratch: an empty folder.
    """

    section: ModelSection
    scratch: Path

    @cached_property
    def config(self) -> Any:
        """transformers' config."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.section.path, local_files_only=self.section.is_local)

    @cached_property
    def model(self) -> Any:
        """Without weights."""
        from align.models.weightless import meta_model

        return meta_model(self.section)

    @cached_property
    def processor(self) -> Any:
        """The processor, or the tokenizer of a text-only model."""
        return load_processor(self.section)

    @cached_property
    def shapes(self) -> Shapes:
        """What predictions of memory are made from."""
        from align.planning.fitting import shapes_of

        return shapes_of(find_model(self.section.path), self.scratch)


def check_checkpoint(path: str) -> list[Check]:
    """All checks of one checkpoint; a check that cannot be made is a line that says why.

    Args:
        path: a folder, or a hub id whose config and processor are cached or can be fetched.
    """
    with tempfile.TemporaryDirectory() as scratch:
        at_hand = Checkpoint(ModelSection(path=path), Path(scratch))
        found = list(_made("family", _family, at_hand))
        if any(check.status == "fail" for check in found):
            return found
        for group, make in _GROUPS:
            found += _made(group, make, at_hand)
        return found


def _made(group: str, make: Callable[[Checkpoint], Iterator[Check]], at_hand: Checkpoint) -> Iterator[Check]:
    try:
        yield from make(at_hand)
    except AlignError as error:
        yield Check(group, group, "fail", error.what.splitlines()[0], error.fix or "")
    except Exception as error:  # a checkpoint's own files may fail in any way; it is a line, not a crash
        yield Check(group, group, "fail", f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")


def _family(at_hand: Checkpoint) -> Iterator[Check]:
    kind = str(at_hand.config.model_type)
    if kind in FAMILIES:
        yield Check("family", "model_type", "ok", f"{kind}, known")
        return
    try:
        checked_modules(at_hand.config)
    except AlignError as error:
        found = propose(at_hand.config)
        what = f"{kind} is not known; by its structure: vision {found.vision}, language {found.language}"
        section = error.what.partition("\n")[2]
        fix = f"check these names, and put them into each recipe:\n{textwrap.dedent(section)}"
        yield Check("family", "model_type", "fail", what, fix)


def _files(at_hand: Checkpoint) -> Iterator[Check]:
    """The weights' files by their index, without reading them."""
    if not at_hand.section.is_local:
        yield Check("files", "weights", "ok", "a hub id: not looked at")
        return
    folder = Path(at_hand.section.path)
    files = sorted(folder.glob("*.safetensors"))
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if not files:
        fix = "only safetensors are loaded" + (f"; convert {pickled[0]}" if pickled else "")
        yield Check("files", "weights", "fail", "no *.safetensors in the folder", fix)
        return
    size = sum(path.stat().st_size for path in files)
    named = _indexed(folder)
    missing = sorted(named - {path.name for path in files})
    yield Check(
        "files",
        "weights",
        "fail" if missing else "ok",
        f"{len(files)} files, {readable(size)}" + (f"; missing {missing[0]}" if missing else ""),
        "copy the checkpoint again" if missing else "",
    )


def _indexed(folder: Path) -> set[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return set()
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())


def _placement(at_hand: Checkpoint) -> Iterator[Check]:
    modules = checked_modules(at_hand.config)
    sees: tuple[Component, ...] = ("vision", "connector") if modules.vision is not None else ()
    components: list[Component] = ["language", *sees]
    if modules.cross_attention:
        components.append("cross_attention")
    for component in components:
        found = places(at_hand.model, modules, component, "attention+mlp")
        left = list(dict.fromkeys(map(leaf_name, found.unmatched)))
        head, *rest = found.lines(component)
        yield Check(
            "LoRA",
            component,
            "warn" if left or not found.chosen else "ok",
            "\n".join([head.partition(": ")[2], *(line.strip() for line in rest)]),
            f"a recipe has to say what becomes of them: lora.leave_out: [{', '.join(left)}]" if left else "",
        )


def _template(at_hand: Checkpoint) -> Iterator[Check]:
    from align.show.tokens import row_tokens

    processor, root = at_hand.processor, at_hand.scratch
    sees = sees_images(processor)
    images = ["picture.png"] if sees else []
    if sees:
        _picture((480, 640)).save(root / images[0])
    asked = [Message(role="user", content=_QUESTION)]
    row = SFTRow(id="1", images=images, messages=[*asked, Message(role="assistant", content=_ANSWER)])
    prompt = render(processor, asked, len(images), add_generation_prompt=True)
    whole = render(processor, row.messages, len(images), add_generation_prompt=False)
    if whole.startswith(prompt):
        yield Check("rows", "prompt and answer", "ok", "a row is the served prompt and its answer")
    else:
        pairs = enumerate(zip(whole, prompt, strict=False))
        parted = next((place for place, (one, other) in pairs if one != other), len(whole))
        fix = f"the template asks {prompt[parted - 20 :]!r} and writes {whole[parted - 20 : parted + 20]!r}"
        yield Check("rows", "prompt and answer", "fail", "a row does not begin as it is served", fix)
    tokens = row_tokens(row, processor, root)[0][1]
    learnt = "".join(token.text for token in tokens if token.learnt)
    yield _learnt(learnt, tokenizer_of(processor))
    yield _one_beginning(tokenizer_of(processor), whole)
    if sees:
        stays = keeps_places(processor)
        words = "stand where the row has them" if stays else "move to the front of their turn"
        yield Check("rows", "pictures in a text", "ok" if stays else "warn", words)


def _learnt(learnt: str, tokenizer: Any) -> Check:
    ends = learnt.rstrip() != _ANSWER
    whole = learnt.strip().startswith(_ANSWER)
    return Check(
        "rows",
        "what is learnt",
        "ok" if whole and ends else "fail",
        f"{learnt!r}" + ("" if ends else f", and not the end of the turn ({tokenizer.eos_token})"),
        "" if whole and ends else "mend the chat template's {% generation %} markers",
    )


def _one_beginning(tokenizer: Any, text: str) -> Check:
    """The template writes the first token; the tokenizer must not add a second."""
    first = tokenizer.bos_token_id
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    count = sum(one == first for one in ids[:2]) if first is not None else 0
    return Check(
        "rows",
        "beginning",
        "ok" if count < 2 else "fail",
        "no token of its own"
        if first is None
        else f"{tokenizer.bos_token} {'once' if count == 1 else f'{count} times'}",
        "" if count < 2 else "take one of them out of the chat template",
    )


def _pictures(at_hand: Checkpoint) -> Iterator[Check]:
    processor = at_hand.processor
    if not sees_images(processor):
        return
    text = render(processor, [Message(role="user", content=_QUESTION)], 1, add_generation_prompt=True)
    counts = TokenBudget(processor).lengths([([text], [size]) for size in _SIZES])
    off = []
    for size, counted in zip(_SIZES, counts, strict=True):
        made = processor(text=[text], images=[[_picture(size)]], add_special_tokens=False)["input_ids"][0]
        if counted != len(made):
            off.append(f"{size[1]}x{size[0]}: {counted} tokens counted, {len(made)} made")
    yield Check(
        "pictures",
        "tokens",
        "fail" if off else "ok",
        "\n".join(off) or f"counted as the processor makes them, on {len(_SIZES)} sizes up to 2000x640",
        "report this family" if off else "",
    )


def _picture(size: Sequence[int]) -> Any:
    from PIL import Image

    return Image.fromarray(np.zeros((*size, 3), dtype=np.uint8))


def _memory(at_hand: Checkpoint) -> Iterator[Check]:
    """LoRA of the language model by the recipes' base, rows as `align plan` assumes them."""
    from dataclasses import replace

    from align.planning.fitting import LORA, QLORA, ROW, predict_step

    shapes, model = at_hand.shapes, find_model(at_hand.section.path)
    row = ROW if shapes.processor is not None else replace(ROW, images=())
    obstacles: dict[str, tuple[str, ...]] = {}
    for stage in ("sft", "dpo"):
        for variant in (LORA, QLORA):
            shape = replace(row, answers=ROW.answers * (1 if stage == "sft" else 2))
            try:
                plan = predict_step(stage, model, variant.changes, shapes, shape)
            except AlignError as error:
                yield Check("memory", f"{stage}, {variant.words}", "warn", error.what, error.fix or "")
                continue
            obstacles[stage] = plan.obstacles
            yield Check("memory", f"{stage}, {variant.words}", "ok", f"a step peaks at {readable(plan.peak)}")
    for stage, why in obstacles.items():
        words = "; ".join(why) or "answers to one prompt are computed behind it once"
        yield Check("sharing", stage, "warn" if why else "ok", words)


def _server(at_hand: Checkpoint) -> Iterator[Check]:
    names = list(at_hand.config.architectures or [])
    known = _served_classes()
    if known is None:
        yield Check("server", "class", "warn", "vLLM is not installed", "pip install 'align-vlm[serve]'")
        return
    there = [name for name in names if name in known]
    yield Check(
        "server",
        "class",
        "ok" if there else "warn",
        f"vLLM has {there[0]}" if there else f"vLLM has no class of its own for {', '.join(names) or 'it'}",
        "" if there else "it may serve it by transformers' own class; `align merge` tries (serve_check)",
    )
    family = FAMILIES.get(at_hand.config.model_type)
    if family is not None:
        takes = family.serving.lora != "none"
        words = "of the language model, beside the base" if takes else "none: merge them"
        yield Check("server", "adapters", "ok" if takes else "warn", words)


def _served_classes() -> set[str] | None:
    """Names of architectures in vLLM's registry, read in its source: importing it takes 15 seconds."""
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "model_executor" / "models" / "registry.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tables = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    keys = [key for table in tables for key in table.keys]
    return {cast(str, key.value) for key in keys if isinstance(key, ast.Constant)}


_GROUPS: tuple[tuple[str, Callable[[Checkpoint], Iterator[Check]]], ...] = (
    ("files", _files),
    ("LoRA", _placement),
    ("rows", _template),
    ("pictures", _pictures),
    ("memory", _memory),
    ("server", _server),
)
