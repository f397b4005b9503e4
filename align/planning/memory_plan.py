"""How much memory a training step takes at its peak, by part, predicted without weights.

The step is run: the trainers' own forward, the reference's, the loss and the backward, on a model of fake
tensors (`align.models.weightless`), while every operator's result is counted as long as it lives
(`align.models.live_memory`). So checkpointing, frozen towers, shared rows, LM-head tiles and dequantised
copies are not modelled but met. Optimizer states are counted by their libraries' rules, since they are made
once and stay. Not in it: what an allocator keeps or rounds up, workspaces inside kernels, the device's
context.

For a GPU TRL's LM head is taken as its Triton kernel, which folds each tile of logits in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from align.config.library_sections import source_fields
from align.errors import AlignError
from align.models.live_memory import LiveMemory, Part
from align.models.loading import ModelSection, first_line, unrounded_experts
from align.models.weightless import fake, fake_like, meta_model
from align.planning.optimizer_states import optimizer_bytes
from align.planning.planned_batch import Batch, RowShape, build_batch
from align.tuning.lora import LoraSection, lora_config

Stage = Literal["sft", "dpo"]


@dataclass(frozen=True)
class Request:
    """What to predict.

    Attributes:
        stage: whose step.
        model: its config.json is read, no weights.
        lora: where the adapter goes; None trains every weight.
        trainer: what the recipe sets of TRL's config.
        sharing: False as `sharing: off`.
        row: all rows of the batch are such rows.
        device: where it will run; the LM head is computed in other tiles on a GPU.
    """

    stage: Stage
    model: ModelSection
    lora: LoraSection | None
    trainer: dict[str, Any]
    row: RowShape
    sharing: bool = True
    device: Literal["gpu", "cpu"] = "gpu"


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes, parameters and tokens of one step.

    Attributes:
        peak: most bytes at once; `parts` are those bytes by part.
        pageable: bytes of optimizer states that a paged optimizer may move to the host's memory.
        weights_by_dtype: bytes of the weights; `uint8` and `int8` are quantised.
        adapter_bytes, checkpoint_bytes, merged_bytes: of the trained weights alone, of a training checkpoint
            (with optimizer states), and of the whole model in the dtype it is merged in.
        rows, sequences, tokens, image_tokens: of the batch; tokens of the longest sequence.
        check: bytes at least during the comparison of both paths before the first step, where 16-bit weights
            are compared in a copy in fp32; 0 where there is none. It goes to the CPU where it does not fit.
        experts: bytes of experts that a quantised base holds unrounded, part of its weights.
        shared: whether rows share their prefix; `obstacles` says why not.
    """

    stage: Stage
    peak: int
    parts: dict[Part, int]
    pageable: int
    weights_by_dtype: dict[str, int]
    trainable: int
    total: int
    adapter_bytes: int
    checkpoint_bytes: int
    merged_bytes: int
    rows: int
    sequences: int
    tokens: int
    image_tokens: int
    check: int
    shared: bool
    obstacles: tuple[str, ...] = ()
    experts: int = 0

    @property
    def trainable_share(self) -> float:
        """Trained parameters of all."""
        return self.trainable / self.total

    def fits(self, gibibytes: float, reserve: float) -> bool:
        """Whether the peak and `reserve` GiB fit a device of that size; the comparison goes to the CPU."""
        return self.peak <= (gibibytes - reserve) * 2**30

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {**asdict(self), "trainable_share": self.trainable_share}


def predict(request: Request, image_processor: Any) -> MemoryPlan:
    """The plan of one step; takes seconds to a minute, by the number of layers.

    Raises:
        AlignError: a config that cannot be built, or a family whose forward cannot be run without values.
    """
    base: Any = meta_model(request.model)
    total, merged = _weights_of(base)
    copied = compared_copy(base)
    model = _with_trained_weights(base, request)
    mode = fake(model)
    options = _options(request)
    if request.stage == "dpo" and options.disable_dropout:
        _disable_dropout(model)
    shared, obstacles = _prepare(model, base, request, options)
    count = int(options.per_device_train_batch_size)

    def faked(tensor: Tensor) -> Tensor:
        return fake_like(mode, tensor)

    try:
        batch = build_batch(base, request.row, count, shared, image_processor, faked)
        with _triton_head() if request.device == "gpu" else nullcontext(), _expert_shapes():
            memory = _run(model, base, batch, request, options, faked)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        what = f"the step of {base.config.model_type} cannot be run without values: {first_line(error)}"
        raise AlignError(what, fix="report this family") from error
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, pageable = optimizer_bytes(trained, str(options.optim))
    parts: dict[Part, int] = {**memory.parts_at_peak, "optimizer": optimizer}
    if request.stage == "dpo" and request.lora is None:
        parts["weights"] *= 2  # the reference is a second model
    adapter = sum(map(_bytes, trained))
    return MemoryPlan(
        stage=request.stage,
        peak=sum(parts.values()),
        parts=parts,
        pageable=pageable,
        weights_by_dtype=_by_dtype(model),
        trainable=sum(p.numel() for p in trained),
        total=total + (0 if request.lora is None else sum(p.numel() for p in trained)),
        adapter_bytes=adapter,
        checkpoint_bytes=adapter + optimizer,
        merged_bytes=merged,
        rows=count,
        sequences=batch.sequences,
        tokens=batch.tokens,
        image_tokens=batch.image_tokens,
        check=parts["weights"] + copied if shared and copied else 0,
        shared=shared,
        obstacles=tuple(obstacles),
        experts=unrounded_experts(base) if request.model.quantization != "none" else 0,
    )


def compared_copy(model: Any) -> int:
    """Bytes of the fp32 copy that `align.trainers.self_check` makes of a 16-bit model; 0 for others."""
    from align.trainers.self_check import compared_bytes

    is_wide = next(model.parameters()).dtype == torch.float32
    if getattr(model, "is_quantized", False) or is_wide or not hasattr(model.get_decoder(), "layers"):
        return 0
    return compared_bytes(model)


def _weights_of(model: nn.Module) -> tuple[int, int]:
    """Weights in all, and their bytes unquantised; a tied weight counts once."""
    seen: dict[int, tuple[int, int]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                width = parameter.element_size() if parameter.is_floating_point() else 2
                count = _num_weights(module, name, parameter)
                seen[id(parameter)] = (count, count * width)
    return sum(count for count, _ in seen.values()), sum(size for _, size in seen.values())


def _num_weights(module: nn.Module, name: str, parameter: Tensor) -> int:
    """4-bit parameters pack two in a byte."""
    packed = name == "weight" and parameter.dtype == torch.uint8
    layer: Any = module
    return layer.in_features * layer.out_features if packed else parameter.numel()


def _with_trained_weights(base: Any, request: Request) -> Any:
    """The model with its adapter, in the dtypes that TRL trains it in; without `lora`, all of it trains."""
    if request.lora is None:
        return base.requires_grad_(True)
    from peft import get_peft_model

    config = lora_config(request.lora, base)
    config.init_lora_weights = False  # the initialisation's arithmetic would need weights
    model = get_peft_model(base, config)
    if getattr(base, "is_quantized", False):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    return model


def _options(request: Request) -> Any:
    """TRL's config as far as memory and sharing depend on it, without building one."""
    kind = "SFTConfig" if request.stage == "sft" else "DPOConfig"
    defaults = {name: field.default for name, field in source_fields(kind).items()}
    stage = {"max_length": 2048, "assistant_only_loss": True, "router_aux_loss_coef": 0.0}
    found = SimpleNamespace(**{**defaults, **stage, **request.trainer})
    found.optim = getattr(found, "optim", None) or "adamw_torch_fused"
    found.bf16 = True if found.bf16 is None and not found.fp16 else found.bf16
    return found


def _prepare(model: Any, base: Any, request: Request, options: Any) -> tuple[bool, list[str]]:
    """What the trainers do to a model before its first step; whether rows are shared, or why not."""
    from trl.trainer.utils import add_fused_lm_head

    from align.trainers.shared_forward import accept_shared_rows
    from align.trainers.sharing import obstacles

    fields = ("log_probs", "entropy", "is_top1") + (("mean_logits",) if request.stage == "dpo" else ())
    add_fused_lm_head(base, outputs=fields)
    model.train()
    if options.gradient_checkpointing:
        if request.lora is not None:
            model.enable_input_require_grads()
        kwargs = options.gradient_checkpointing_kwargs
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    if not request.sharing:
        return False, []
    found = obstacles(model, options)
    if request.stage == "sft" and not request.row.images:
        found.append("the rows have no images")
    if request.stage == "sft" and not options.assistant_only_loss:
        found.append("assistant_only_loss is off")
    if found:
        return False, found
    accept_shared_rows(base)
    return True, []


def _run(model: Any, base: Any, batch: Batch, request: Request, options: Any, faked: Any) -> LiveMemory:
    """One forward and backward, of a later micro-batch where gradients are accumulated."""
    memory = LiveMemory(model)
    if int(options.gradient_accumulation_steps or 1) > 1:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = faked(parameter)
                memory.mark(parameter.grad, "gradients")
    autocast = _autocast(options)
    with memory:
        for value in batch.inputs.values():
            if isinstance(value, Tensor):
                memory.mark(value, "activations")
        with autocast:
            loss = _loss(model, base, batch, request)
        loss.backward()
        del loss
    memory.close()
    return memory


@contextmanager
def _triton_head() -> Iterator[None]:
    """TRL's LM head as on a GPU: scored tokens only, tiles folded by a kernel that keeps nothing."""
    import trl.kernels.chunked_logprob
    import trl.trainer.utils

    from align.trainers import shared_forward

    def nothing(*_: Any, **__: Any) -> None:
        return None

    kernels = trl.kernels.chunked_logprob.__dict__
    callers = (trl.trainer.utils.__dict__, shared_forward.__dict__)
    replaced = {name: kernels[name] for name in ("_forward_tile", "_backward_tile", "_addmm_fp32")}
    asked = [caller["_use_triton"] for caller in callers]
    kernels.update(dict.fromkeys(replaced, nothing))
    for caller in callers:
        caller["_use_triton"] = lambda _: True
    try:
        yield
    finally:
        kernels.update(replaced)
        for caller, before in zip(callers, asked, strict=True):
            caller["_use_triton"] = before


class _GroupedShapes(torch.autograd.Function):
    """A product of each group of rows [S, in] with its expert [experts, in, out]: shapes, and what is kept.

    PyTorch's own rule for shapes takes bfloat16 alone.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, experts: Tensor) -> Tensor:
        """Keeps the experts, and the rows only where the experts train."""
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, experts)
        ctx.shape, ctx.dtype = rows.shape, rows.dtype
        return rows.new_empty(len(rows), experts.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Empty gradients of the inputs that need one."""
        _, experts = ctx.saved_tensors
        (gradient,) = gradients
        of_rows = gradient.new_empty(ctx.shape, dtype=ctx.dtype) if ctx.needs_input_grad[0] else None
        return of_rows, torch.empty_like(experts) if ctx.needs_input_grad[1] else None


@contextmanager
def _expert_shapes() -> Iterator[None]:
    """Experts that transformers multiplies in groups, without values."""
    from transformers.integrations import moe

    def grouped(input: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
        return _GroupedShapes.apply(input.to(weight.dtype), weight)  # pyright: ignore[reportReturnType]

    before = moe._grouped_mm
    moe._grouped_mm = grouped
    try:
        yield
    finally:
        moe._grouped_mm = before


def _autocast(options: Any) -> Any:
    if options.bf16 or options.fp16:
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


def _loss(model: Any, base: Any, batch: Batch, request: Request) -> Tensor:
    """As TRL takes it from the log-probs; its own arithmetic is a few numbers a token."""
    log_probs = model(**batch.inputs, fused_lm_head=True).log_probs
    if request.stage == "sft":
        return -log_probs.sum()
    from trl.models.utils import disable_gradient_checkpointing
    from trl.trainer.utils import use_adapter

    adapter = use_adapter(model, None) if request.lora is not None else nullcontext()
    with torch.no_grad(), disable_gradient_checkpointing(model, None), adapter:
        reference = model(**batch.inputs, fused_lm_head=True).log_probs
    chosen, rejected = (log_probs - reference).sum(1).chunk(2)
    return -nn.functional.logsigmoid(chosen - rejected).mean()


def _disable_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _by_dtype(model: nn.Module) -> dict[str, int]:
    found: dict[str, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        name = str(tensor.dtype).removeprefix("torch.")
        found[name] = found.get(name, 0) + _bytes(tensor)
    return found


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
