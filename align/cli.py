"""The command line: `align run PIPELINE`, and every stage as `align STAGE RECIPE [section.key=value ...]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from align import __version__
from align.config.library_sections import Passthrough
from align.config.recipe import load_recipe, nearest, read_words, validate
from align.errors import AlignError, RecipeError
from align.pipeline.stages import Stage, command_names, load_command, load_stage, stage_names
from align.progress import say

_COMMANDS = ("run", "doctor", "init", "plan", "schema", "serve", "show")

_OVERVIEW = """\
align: turn a vision-language model that invents objects into one that doesn't, and prove it.

  align run recipes/quickstart/pipeline.yaml     the whole road on the embedded model, no GPU needed
  align init qwen3_vl_8b --gpu 24                recipes for any known model, made to fit your GPU
  align sft recipes/qwen2_5_vl_7b/sft.yaml       LoRA SFT
  align dpo recipes/qwen2_5_vl_7b/dpo.yaml       LoRA DPO against a frozen reference
  align run recipes/qwen2_5_vl_7b/pipeline.yaml --only score --only report
                                                 a hallucination report one can believe
  align score pope --predictions answers.jsonl --data data/pope
                                                 anyone's answers to a benchmark, without a GPU
  align import rlaif_v openbmb/RLAIF-V-Dataset pairs.parquet
                                                 a published dataset as rows
  align plan recipes/qwen2_5_vl_7b/dpo.yaml      the memory that training will take, and which GPUs it fits
  align doctor                                   what works on this machine, and what to do
  align doctor MODEL                             what holds for a checkpoint at hand, without training

Override any key on the command line: `align sft RECIPE trainer.learning_rate=1e-4`.
`align STAGE --help` explains a stage and every key of its recipe.
"""

_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


# What a stopped command finds again when it is run again; the others begin anew.
_KEPT = {
    "sft": "it goes on from its last checkpoint",
    "dpo": "it goes on from its last checkpoint",
    "run": "stages that are complete are kept, and the stopped one goes on if it can",
    "sample": "answers so far are kept",
    "judge": "answers so far are kept",
    "generate": "answers so far are kept",
    "eval": "answers so far are kept",
    "decontaminate": "pictures hashed so far are kept",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `align` command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    try:
        return _dispatch(words)
    except AlignError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        kept = _KEPT.get(words[0] if words else "", "it begins anew")
        print(f"\nstopped; run the same command again: {kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        others = sorted([*command_names(), *_COMMANDS])
        say(f"{_OVERVIEW}\nstages:   {'  '.join(stage_names())}\nothers:   {'  '.join(others)}\n")
        return 0
    if words[0] in ("-V", "--version"):
        say(f"align {__version__}")
        return 0
    command, rest = words[0], words[1:]
    if command == "run":
        return _run(rest)
    if command == "schema":
        return _schema(rest)
    if command == "serve":
        return _serve(rest)
    if command == "doctor":
        from align.doctor.command import main as doctor

        return doctor(rest)
    if command == "init":
        from align.planning.starting import main as start

        return start(rest)
    if command == "plan":
        from align.planning.command import main as plan

        return plan(rest)
    if command == "show":
        from align.show.command import main as show

        return show(rest)
    if command in command_names():
        return load_command(command)(rest)
    if command not in stage_names():
        known = [*stage_names(), *command_names(), *_COMMANDS]
        raise RecipeError(f"unknown command {command!r}{nearest(command, known)}", fix="see `align --help`")
    return _stage(load_stage(command), rest)


_RUN_HELP = """\
Run a pipeline in order. Complete stages are skipped, an interrupted one resumes, a stale one is done anew.

What a stage reads is found in its recipe: a path in the folder of another stage reads that stage.
"""
_RUN_EXAMPLES = """\
examples:
  align run recipes/quickstart/pipeline.yaml                         all of it
  align run recipes/quickstart/pipeline.yaml seed=1 dpo.trainer.beta=0.2
  align run recipes/quickstart/pipeline.yaml --dry-run               what would run, and why
  align run recipes/quickstart/pipeline.yaml --from pairs --until dpo_merged
  align run recipes/quickstart/pipeline.yaml --only score --only report
  align run recipes/quickstart/pipeline.yaml rounds=3                preference training three times over
  align run recipes/quickstart/pipeline.yaml rounds=3 round2_sample.sampling.temperature=0.9

rounds: the stages that the file's `round.stages` names are repeated as `round2_sample`, `round3_sample`, each
from the checkpoint that the round before made. The loop ends early where DPO's keep rule keeps nothing, where
the judge's agreement with the truth falls (`round.min_agreement`), or where a later round has too few
pairs or a judge near chance; later stages then use the last kept checkpoint, and rounds.json in the run's
folder tells why.
"""


def _run(words: list[str]) -> int:
    from align.pipeline import Selection, describe, load_pipeline, run_pipeline

    parser = argparse.ArgumentParser(
        prog="align run",
        description=_RUN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_RUN_EXAMPLES,
    )
    parser.add_argument("pipeline", help="a pipeline file")
    parser.add_argument("overrides", nargs="*", metavar="stage.key=value")
    parser.add_argument(
        "--only", action="append", default=[], metavar="STAGE", help="run this stage (repeatable)"
    )
    parser.add_argument("--from", dest="since", metavar="STAGE", help="run from this stage on")
    parser.add_argument("--until", metavar="STAGE", help="stop behind this stage")
    parser.add_argument(
        "--dry-run",
        "--plan",
        action="store_true",
        help="check all recipes, say of each stage whether it is complete, stale, partial or to do, and why; "
        "run nothing",
    )
    options = parser.parse_intermixed_args(words)
    pipeline = load_pipeline(options.pipeline, options.overrides)
    selection = Selection(options.only, options.since, options.until)
    if options.dry_run:
        say(describe(pipeline, selection))
        return 0
    run_pipeline(pipeline, selection)
    return 0


def _stage(stage: Stage, words: list[str]) -> int:
    if stage.direct is not None and (code := stage.direct(words)) is not None:
        return code
    parser = argparse.ArgumentParser(
        prog=f"align {stage.name}",
        description=stage.help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="recipe keys:\n" + "\n".join(_describe_fields(stage.recipe)),
    )
    parser.add_argument(
        "recipe", help="a YAML recipe; may be left out when every required key is given as key=value"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = parser.parse_args(words)
    if "=" in options.recipe and not Path(options.recipe).exists():
        words = [options.recipe, *options.overrides]
        recipe = validate(stage.recipe, read_words(words), where="command line")
    else:
        recipe = load_recipe(stage.recipe, options.recipe, options.overrides)
    stage.run(recipe)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from align.run.processes import end_processes

        end_processes()
    return 0


def _schema(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="align schema", description="Print a stage recipe's JSON schema, for editors."
    )
    parser.add_argument("stage", help="one of: " + ", ".join(stage_names()))
    stage = load_stage(parser.parse_args(words).stage)
    say(json.dumps(stage.recipe.model_json_schema(), indent=1))
    return 0


def _serve(words: list[str]) -> int:
    from align.config.model_ref import ModelRef
    from align.config.recipe import validate
    from align.serving.server import ServeSettings, serve

    parser = argparse.ArgumentParser(
        prog="align serve", description="Serve a merged checkpoint over vLLM's OpenAI API until Ctrl-C."
    )
    parser.add_argument("checkpoint", help="a checkpoint folder or hub id")
    parser.add_argument("--revision", help="hub revision (commit or tag); the newest by default")
    parser.add_argument(
        "--thinking",
        action=argparse.BooleanOptionalAction,
        help="whether it thinks before it answers, for whoever asks without saying so; off by default",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the `serve` section")
    options = parser.parse_intermixed_args(words)
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(OmegaConf.from_dotlist(options.overrides), resolve=True)
    try:
        settings = ServeSettings.model_validate(plain)
    except ValueError as error:
        raise RecipeError(str(error), where="command line") from error
    named = {"path": options.checkpoint, "revision": options.revision, "thinking": options.thinking}
    model = validate(ModelRef, named, where="command line")
    import signal
    import tempfile

    with serve(model, settings, Path(tempfile.mkdtemp(prefix="align-serve-"))) as server:
        say(f"serving {model.name} at {server.url} (Ctrl-C stops it)")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


def _describe_fields(cls: type[BaseModel], prefix: str = "") -> list[str]:
    """One line a recipe key: dotted name, type, default and what it is for."""
    lines = []
    for own, field in cls.model_fields.items():
        name = field.alias or own
        section = _section(field.annotation)
        if section is not None:
            lines.append(f"  {prefix}{name}: {field.description or 'section'}")
            if issubclass(section, Passthrough):
                lines.extend(_describe_passthrough(section, prefix + name + "."))
            else:
                item = "[n]" if get_origin(field.annotation) is list else ""
                lines.extend(_describe_fields(section, f"{prefix}{name}{item}."))
            continue
        required = field.default is PydanticUndefined and field.default_factory is None
        default = "required" if required else f"default {field.get_default(call_default_factory=True)!r}"
        lines.append(f"  {prefix}{name} ({default})")
        if field.description:
            lines.append(f"      {field.description}")
    return lines


def _describe_passthrough(cls: type[Passthrough], prefix: str) -> list[str]:
    """Our own keys a line each; the library's, of which there are a hundred, by name alone."""
    own, theirs = cls.own_and_passed()
    lines = []
    for name in own:
        field = cls.model_fields[name]
        lines += [f"  {prefix}{name} (default {field.default!r})", f"      {field.description}"]
    names = textwrap.wrap(", ".join(theirs), 92)
    return [*lines, f"  {prefix}<key>, with the library's defaults:", *(f"      {line}" for line in names)]


def _section(annotation: Any) -> type[BaseModel] | None:
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


if __name__ == "__main__":
    sys.exit(main())
