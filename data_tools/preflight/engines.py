"""Where the functions on rows run: in this process, or on all nodes of a Ray cluster.

A stage hands over a worker and the parts of a file. Every node reads its parts from the file itself, which
all nodes see under the same path, and results come back in the file's order: both engines give the same rows.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar

from align.errors import RecipeError
from align.rows.parts import Part

T = TypeVar("T")
Worker = Callable[[Part], Iterator[T]]
"""Results of one part, a few rows at a time. For Ray it must be picklable, and its results too."""

EngineName = Literal["local", "ray"]


def run_parts(engine: EngineName, worker: Worker[T], parts: Iterable[Part]) -> Iterator[T]:
    """The results of all parts, in order.

    Raises:
        RecipeError: Ray is asked for and not installed.
    """
    if engine == "ray":
        return _on_ray(worker, parts)
    return (result for part in parts for result in worker(part))


def _on_ray(worker: Worker[T], parts: Iterable[Part]) -> Iterator[T]:
    """By Ray Data, an actor a CPU of the cluster that `RAY_ADDRESS` names, or of this machine."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray.data import ActorPoolStrategy, from_items  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        fix = "pip install 'align-vlm[ray]', or leave out the engine"
        raise RecipeError(f"Ray Data is not installed: {error}", where="engine: ray", fix=fix) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    items = [{"part": pickle.dumps(part)} for part in parts]
    actors = max(1, min(len(items), int(ray.cluster_resources().get("CPU", 1))))
    dataset = from_items(items, override_num_blocks=max(1, len(items))).map_batches(
        _Actor,
        fn_constructor_args=(worker,),
        batch_size=1,
        num_cpus=1,
        compute=ActorPoolStrategy(size=actors),
    )
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    for row in dataset.iter_rows():
        yield pickle.loads(row["result"])


class _Actor:
    """A worker that stays on its node; Ray Data passes and takes columns."""

    def __init__(self, worker: Worker[Any]) -> None:
        self._worker = worker

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        for part in batch["part"]:
            for result in self._worker(pickle.loads(part)):
                yield {"result": [pickle.dumps(result)]}
