"""The dev check of a training run: when it asks, what it writes, what is kept, and what it costs.

    dev = open_dev_check(recipe, folder, processor, ...)     # None without a `dev` section
    train(trainer, folder, "DPO", dev)                       # asks at step 0, in between and at the end
    following = save_trained(...)                            # of the kept step's weights
    metrics |= dev.metrics()

Several processes share the questions; the main one measures, writes and decides.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from align.dev_check.asked import Asked
from align.dev_check.cost import Cost, check_steps, plan_in_words
from align.dev_check.heldout import heldout_values
from align.dev_check.recipe import DevSection
from align.dev_check.rule import KeepRule, Kept
from align.dev_check.scores import Item, Scorer, values_of
from align.dev_check.state import DevState
from align.dev_check.words import DIGITS
from align.errors import AlignError
from align.progress import say

if TYPE_CHECKING:
    from align.dev_check.answering import Answerer
    from align.dev_check.heldout import Heldout
    from align.dev_check.heldout_loss import HeldoutLoss
    from align.dev_check.judge import Judge, Judgement
    from align.run.folder import RunFolder

T = TypeVar("T")

_TIMED_STEPS = 3


class DevCheck:
    """One run's dev check.

    Args:
        section: the recipe's.
        rule: what is kept; None keeps the last step.
        asked: what every check asks.
        answerer: gets the policy's answers.
        cost: what training and checks take, by an estimate in tokens.
        judge: at an endpoint, of the answers; None without, and where another process asks it.
        heldout: rows whose loss is measured too.

    Attributes:
        stopped_at: the step at which the rule ended the run; None where it did not.
        seconds: that this process spent on checks.
    """

    def __init__(
        self,
        section: DevSection,
        rule: KeepRule | None,
        asked: Sequence[Asked],
        answerer: Answerer,
        cost: Cost,
        folder: RunFolder,
        judge: Judge | None = None,
        heldout: Heldout[Any] | None = None,
    ) -> None:
        self._section, self._rule, self._asked, self._cost = section, rule, asked, cost
        self._answerer, self._judge, self._heldout = answerer, judge, heldout
        self._items: list[Item] = [*asked, *(heldout.items() if heldout is not None else ())]
        self._loss: HeldoutLoss | None = None
        self._state = DevState(folder) if folder.is_main else None
        self._scorer: Scorer | None = None
        self._steps: frozenset[int] = frozenset()
        self._kept: Kept | None = None
        self._start_sums: list[dict[str, float]] = []
        self._train_seconds = 0.0
        self._took: list[float] = []
        self.stopped_at: int | None = None

    @property
    def seconds(self) -> float:
        """That this process spent on checks."""
        return sum(self._took)

    def attach(self, trainer: Any, resumed: int | None) -> None:
        """Ask during the trainer's `train`.

        Args:
            resumed: the step of the checkpoint that training goes on from; None where it starts anew.

        Raises:
            AlignError: the weights are sharded over processes.
        """
        from accelerate.utils import DistributedType

        if trainer.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise AlignError(
                "the dev check needs the whole model in one process, and the weights are sharded",
                where="dev",
                fix="leave dev and keep out, or train with recipes/accelerate/ddp.yaml",
            )
        if self._heldout is not None and self._section.heldout is not None:
            from align.dev_check.heldout_loss import HeldoutLoss

            size = self._section.heldout.batch_size
            self._loss = HeldoutLoss(self._heldout, trainer, size, self._answerer.features)
        if self._state is not None:
            self._state.resume(resumed)
            if self._state.lines:
                self._begin(self._state.start())
        trainer.add_callback(_callback(self, trainer))

    def plan(self, max_steps: int, rows_a_step: int) -> None:
        """Fix the steps of the checks, from recipe and data alone; says what they will cost."""
        self._steps = frozenset(check_steps(self._section, self._cost, max_steps, rows_a_step))
        words = plan_in_words(self._section, self._cost, max_steps, rows_a_step)
        rows = "" if self._heldout is None else f" and {len(self._heldout.rows)} held-out rows"
        say(f"  dev check: {len(self._asked)} questions{rows}, {words}")

    def at(self, step: int, trainer: Any) -> None:
        """Ask at this step if it is time to, and see whether the run goes on."""
        if self.stopped_at is None and step in self._steps and self._is_due(step, trainer):
            began = time.perf_counter()
            self._ask(step, trainer)
            self._took.append(time.perf_counter() - began)
            trainer.accelerator.wait_for_everyone()
        self.stopped_at = self._agreed(trainer)

    def _is_due(self, step: int, trainer: Any) -> bool:
        """Whether no earlier attempt has made this check; the main process knows."""
        is_due = self._state is not None and all(line["step"] != step for line in self._state.lines)
        return bool(_told(is_due, trainer.accelerator))

    def saved(self) -> None:
        """A checkpoint has been sealed: weights that no resume can want are deleted."""
        if self._state is not None and self._rule is not None:
            self._state.drop_losers(self._best_at())

    def step_took(self, seconds: float, done: int, max_steps: int) -> None:
        """A training step's time; after the first ones the measured cost is said."""
        self._train_seconds += seconds
        if done != min(_TIMED_STEPS, max_steps) or not self._took:
            return
        each, step = self._took[0], self._train_seconds / done
        share = len(self._steps) * each / (len(self._steps) * each + step * max_steps)
        words = f"  dev check: about {each:.1f} s each, {share:.0%} of the run's time"
        if share > self._section.share_of_time:
            words += (
                f", more than dev.share_of_time = {self._section.share_of_time:.0%}: "
                "fewer checks, dev.num_pictures or shorter answers take less"
            )
        say(words)

    def finish(self, trainer: Any) -> None:
        """Give the model the weights that the rule keeps; without a rule it keeps the last step's."""
        if self._state is None or self._rule is None:
            return
        self._kept = kept = self._rule.decide(self._state.lines)
        self._state.restore_weights(trainer.accelerator.unwrap_model(trainer.model), kept.step)
        if kept.nothing:
            say(f"  nothing of this training is kept, the result is the start: {kept.why}")
        else:
            say(f"  kept: step {kept.step}, {kept.why}")

    def metrics(self) -> dict[str, Any]:
        """For the manifest: what the checks took, and what was kept and why."""
        if self._state is None:
            return {}
        whole = self.seconds + self._train_seconds
        found: dict[str, Any] = {
            "dev_check": {
                "checks": len(self._state.lines),
                "questions": len(self._asked),
                "heldout_rows": 0 if self._heldout is None else len(self._heldout.rows),
                "seconds_each": round(self.seconds / len(self._took), 2) if self._took else None,
                "share_of_time": round(self.seconds / whole, 4) if whole else None,
                "stopped_at": self.stopped_at,
            }
        }
        if self._kept is not None:
            found["kept"] = self._kept.to_json()
        return found

    def _ask(self, step: int, trainer: Any) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        began = time.perf_counter()
        answers = self._answerer.answers(model, trainer.accelerator) if self._asked else []
        sums = self._loss.sums() if self._loss is not None else []
        if self._state is None:
            return
        values: list[dict[str, float]] = [
            values_of(item, answer) for item, answer in zip(self._asked, answers, strict=True)
        ]
        judgement = None if self._judge is None else self._judge.judge(self._asked, answers)
        if judgement is not None:
            self._check_judgement(judgement, step)
            values = [own | judged for own, judged in zip(values, judgement.values, strict=True)]
        if self._scorer is None:
            self._state.keep_start([*values, *sums])
            self._begin([*values, *sums])
        assert self._scorer is not None
        line = self._line(step, [*values, *self._heldout_values(sums, trainer)], judgement)
        if self._rule is not None:
            judged = self._rule.judge(line)
            if step:
                line |= {"gain": judged.gain, "refused": list(judged.reasons)}
            self._state.save_weights(model, step)
        replies = [_reply(step, item, answer) for item, answer in zip(self._asked, answers, strict=True)]
        self._state.add(line, replies[: self._section.samples], replies, time.perf_counter() - began)
        if self._rule is not None:
            self._state.drop_losers(self._best_at())
        say(f"  dev check at step {step}: {_said(line, self._rule)}")

    def _begin(self, start: Sequence[dict[str, float]]) -> None:
        """Take what step 0 found, of questions and of held-out rows, for the start of all comparisons."""
        count = len(self._asked)
        self._start_sums = list(start[count:])
        beta = 1.0  # at the start a margin is zero whatever it is multiplied with
        rows = [heldout_values(own, own, beta) for own in self._start_sums]
        self._scorer = Scorer(self._items, self._section.level, [*start[:count], *rows])

    def _heldout_values(self, sums: Sequence[dict[str, float]], trainer: Any) -> list[dict[str, float]]:
        beta = float(getattr(trainer, "beta", 1.0))
        return [heldout_values(own, start, beta) for own, start in zip(sums, self._start_sums, strict=True)]

    def _line(
        self, step: int, values: Sequence[dict[str, float]], judgement: Judgement | None
    ) -> dict[str, Any]:
        """The check's line of the log; a judge that failed is not in its measures."""
        assert self._scorer is not None
        line: dict[str, Any] = {"step": step}
        for view, changes in self._scorer.changes(values).items():
            line[view] = {name: change.to_json() for name, change in changes.items()}
            if judgement is not None and not judgement.is_usable:
                line[view].pop("judge", None)
        return line if judgement is None else line | {"judge": judgement.to_json()}

    def _check_judgement(self, judgement: Judgement, step: int) -> None:
        """Say what the judge left out, or stop where it failed and the recipe, or step 0, says so.

        Raises:
            AlignError: with the first failure's reason.
        """
        assert self._section.judge is not None
        words = f"{judgement.failed} of {judgement.asked} requests failed, the first one: {judgement.reason}"
        if judgement.is_usable:
            if judgement.failed:
                say(f"  the judge at step {step}: {words}; their answers are left out")
            return
        words = words if judgement.failed else judgement.reason
        if step == 0 or self._section.judge.on_failure == "stop":
            raise AlignError(
                f"the judge cannot judge the dev check at step {step}: {words}",
                where="dev.judge",
                fix="mend the endpoint and run again, the run goes on from its last checkpoint; after step 0 "
                "dev.judge.on_failure: go_on trains on without it",
            )
        say(
            f"  the judge at step {step}: {words}; this check has no judge, and a rule over it cannot keep it"
        )

    def _best_at(self) -> dict[int, int]:
        """Step of each check -> the step that the rule would keep if the run had ended there."""
        assert self._state is not None and self._rule is not None
        lines = self._state.lines
        return {line["step"]: self._rule.decide(lines[: n + 1]).step for n, line in enumerate(lines)}

    def _agreed(self, trainer: Any) -> int | None:
        """Where the run ends, told to every process by the main one."""
        found = None
        if self._state is not None and self._rule is not None:
            found = self._rule.stops(self._state.lines)
        return found if self._rule is None else _told(found, trainer.accelerator)


def _told(found: T, accelerator: Any) -> T:
    """What the main process found, in every process."""
    if accelerator.num_processes == 1:
        return found
    from accelerate.utils import broadcast_object_list

    told = [found]
    broadcast_object_list(told)
    return told[0]


def _reply(step: int, item: Asked, answer: str) -> dict[str, Any]:
    return {
        "step": step,
        "id": item.id,
        "kind": item.kind,
        "images": list(item.images),
        "prompt": item.messages[-1].marked,
        "answer": answer,
    }


def _said(line: dict[str, Any], rule: KeepRule | None) -> str:
    """The measures that the rule speaks of, or a few; then what speaks against the check."""
    names = list(line["all"]) if rule is None else rule.measures
    shown = [name for name in names if name in line["all"]][:6]
    words = []
    for name in shown:
        one, digits = line["all"][name], DIGITS.get(name, 1)
        words.append(f"{name} {one['value']:.{digits}f} ({one['delta']:+.{digits}f})")
    refused = line.get("refused")
    return ", ".join(words) + (f"; not kept: {refused[0]}" if refused else "")


def _callback(dev: DevCheck, trainer: Any) -> Any:
    from transformers import TrainerCallback

    class DevCallback(TrainerCallback):
        """Asks at step 0 and at the ends of steps; ends the run where the rule does."""

        began = 0.0
        done = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            dev.plan(state.max_steps, rows)
            dev.at(state.global_step, trainer)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.done += 1
            dev.step_took(time.perf_counter() - self.began, self.done, state.max_steps)
            dev.at(state.global_step, trainer)
            if dev.stopped_at is not None:
                control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            dev.saved()

    return DevCallback()
