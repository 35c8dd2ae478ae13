"""Steps and probes by turns: when it ends, what is kept, and that a stopped one loses nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.rows import lora, samples
from tests.engine.test_trainer import trainer_of
from tests.models import CHAT_TEMPLATE, make_tokenizer
from tests.recipes.rename_runs import Scripted, found, trained
from whoamai.data.identity import Identity, probe_questions
from whoamai.engine.checkpoint import find_checkpoints, last_checkpoint
from whoamai.engine.signals import StopSignals
from whoamai.engine.until_learned import run_out_after
from whoamai.errors import ModelError
from whoamai.evaluate.grading import IdentityGrader
from whoamai.evaluate.probing import Prober, StopRule
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Progress, Result
from whoamai.model.load import ChatModel
from whoamai.recipes.exam import probe_general
from whoamai.recipes.rename_learning import Learned, Learning, LearningSettings, StoppedLearning

STEPS = 45
# Learned at 20, known at 40, where it is cut short: it would run out beyond the end.
LATE = {20: 99, 40: 100}
# Learned at 10, known at 20, and run out at END.
END = 20 + run_out_after(20)
EARLY = {5: 60, 10: 98, 20: 99, END: 99}


@dataclass
class Run:
    """One training, with what its probes saw."""

    learned: Learned
    prober: Any
    model: Any
    told: list


def learning(
    folder: Path, prober: Any, *, model: Any = None, listen: Any = None, **settings: Any
) -> tuple[Learning, Any]:
    model = model or lora()
    folder.mkdir(exist_ok=True)
    trainer = trainer_of(model, samples(4 * STEPS))
    assert trainer.schedule.total == STEPS
    trainer.schedule = replace(trainer.schedule, save_steps=8)
    return Learning(
        trainer,
        prober,
        LearningSettings(**settings),
        folder=folder,
        facts={},
        events=Events([listen] if listen else []),
    ), model


def run(
    folder: Path,
    recall: dict[int, int] | None = None,
    *,
    stop_at: int | None = None,
    signals: StopSignals | None = None,
    **settings: Any,
) -> Run:
    """A training whose probes find what `recall` says; asked to stop after step `stop_at`."""
    model, told = lora(), []
    prober, stop = Scripted(recall or {}, model), signals or StopSignals()

    def listen(event: Any) -> None:
        told.append(event)
        if isinstance(event, Progress) and event.done == stop_at:
            stop.requested = 2

    job, _ = learning(folder, prober, model=model, listen=listen, **settings)
    return Run(job.run(stop), prober, model, told)


# ---- when it is probed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        (20, [0, 5, 10, 20, 40, 45]),
        (7, [0, 5, 7, 10, 14, 20, 21, 28, 35, 42, 45]),
        (100, [0, 5, 10, 20, 45]),
    ],
)
def test_probes_come_before_the_first_step_early_regularly_and_at_the_end(
    every: int, steps: list[int], tmp_path: Path
):
    done = run(tmp_path / "run", probe_every=every)
    assert done.prober.asked == steps
    assert [record.step for record in done.learned.probes] == steps
    assert [e.data["step"] for e in done.told if isinstance(e, Result)] == steps
    assert {e.name for e in done.told if isinstance(e, Result)} == {"name_probe"}


def test_every_step_is_told_with_its_loss_and_rate(tmp_path: Path):
    done = run(tmp_path / "run")
    told = [e for e in done.told if isinstance(e, Progress)]
    assert [e.done for e in told] == list(range(1, STEPS + 1))
    assert [e.values["loss"] for e in told] == list(done.learned.losses)
    assert [e.values["lr"] for e in told] == list(done.learned.learning_rates)


# ---- when it ends --------------------------------------------------------------------------------


def test_two_probes_in_a_row_end_it_and_the_rate_runs_out(tmp_path: Path):
    whole, done = run(tmp_path / "whole", EARLY, stop=False), run(tmp_path / "run", EARLY)
    stop = done.learned.stop
    assert (stop.learned_at, stop.stopped_at, stop.planned, stop.best_step) == (10, END, STEPS, END)
    assert done.prober.asked == [0, 5, 10, 20, END], "nothing is asked while the rate runs out"
    rates, of_whole = done.learned.learning_rates, whole.learned.learning_rates
    assert rates[:20] == of_whole[:20]
    left = [rate / rates[19] for rate in rates[20:]]
    n = END - 20
    assert left == pytest.approx([(n - i) / (n + 1) for i in range(n)])
    assert stop.seconds_saved > 0


def test_a_probe_that_would_be_due_while_the_rate_runs_out_is_left_out(tmp_path: Path):
    end = 7 + run_out_after(7)
    assert end > 10
    done = run(tmp_path / "run", {5: 99, 7: 99, end: 99}, probe_every=7)
    assert done.prober.asked == [0, 5, 7, end], "10 would have been"


def test_a_probe_that_was_lucky_once_ends_nothing(tmp_path: Path):
    done = run(tmp_path / "run", {5: 100, 20: 100, 45: 100})
    assert done.learned.stop.stopped_at == STEPS
    assert done.learned.stop.learned_at is None
    assert len(done.learned.losses) == STEPS


def test_a_model_that_had_the_name_before_is_not_done_at_once(tmp_path: Path):
    assert run(tmp_path / "run", {0: 100, 5: 100}).learned.stop.stopped_at == STEPS


def test_an_old_name_that_is_left_keeps_it_going(tmp_path: Path):
    class Leaking(Scripted):
        def ask(self, step: int):
            self.asked.append(step)
            return found(step, 100, leak=2)

    model = lora()
    job, _ = learning(tmp_path / "run", Leaking({}, model), model=model)
    learned = job.run(StopSignals())
    assert (learned.stop.stopped_at, learned.stop.learned_at) == (STEPS, None)


def test_without_stop_every_step_is_taken_and_it_is_said_when_it_was_learned(tmp_path: Path):
    done = run(tmp_path / "run", EARLY, stop=False)
    stop = done.learned.stop
    assert (stop.learned_at, stop.stopped_at, stop.planned) == (10, STEPS, STEPS)
    assert stop.seconds_saved == 0
    assert done.prober.asked == [0, 5, 10, 20, 40, 45]


def test_the_rule_can_be_set(tmp_path: Path):
    rule = StopRule(recall=60, in_a_row=3)
    done = run(tmp_path / "run", {5: 60, 10: 70, 20: 80}, rule=rule)
    assert (done.learned.stop.learned_at, done.learned.stop.stopped_at) == (5, END)


def test_a_run_out_beyond_the_end_ends_at_the_end(tmp_path: Path):
    done = run(tmp_path / "run", LATE)
    assert (done.learned.stop.learned_at, done.learned.stop.stopped_at) == (20, STEPS)


# ---- the best adapter ----------------------------------------------------------------------------


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_best_adapter_is_put_back_where_the_last_one_is_worse(tmp_path: Path):
    done = run(tmp_path / "run", {20: 90, 40: 60, 45: 50})
    assert done.learned.stop.best_step == 20
    assert same(trained(done.model), done.prober.seen[20])
    assert not same(done.prober.seen[45], done.prober.seen[20])


def test_of_equally_good_adapters_the_last_is_taken(tmp_path: Path):
    done = run(tmp_path / "run", {20: 90, 40: 90, 45: 90})
    assert done.learned.stop.best_step == STEPS
    assert same(trained(done.model), done.prober.seen[45])


def test_a_few_answers_less_at_the_end_are_chance(tmp_path: Path):
    done = run(tmp_path / "run", {20: 90, 40: 88, 45: 85})
    assert done.learned.stop.best_step == STEPS


def test_the_untrained_adapter_is_never_the_best(tmp_path: Path):
    done = run(tmp_path / "run", {0: 100, 20: 50})
    assert done.learned.stop.best_step == 20


# ---- probes change nothing -----------------------------------------------------------------------


def real_prober(model: Any) -> Prober:
    """Asks the model, as `rename` does."""
    identity = Identity("黄大力")
    chat = ChatModel(model.get_base_model(), make_tokenizer(CHAT_TEMPLATE), "", "tiny")
    asked = probe_questions(identity, languages=("zh", "en"), seed=0, count=6)
    grader = IdentityGrader(identity, ("小初",))
    talk = Talk(chat, Events())
    return Prober(talk, grader, asked, probe_general(("zh",))[:2], max_new_tokens=3)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_probed_training_is_bit_by_bit_the_one_without_probes(dropout: float, tmp_path: Path):
    """Also with dropout, which draws from torch's generator between two probes."""
    ways = []
    for probed in (True, False):
        torch.manual_seed(0)
        model = lora(dropout=dropout)
        prober: Any = real_prober(model) if probed else Scripted({})
        rising = {"rule": StopRule(recall=200)}  # never met, and the last probe is the best one
        job, _ = learning(tmp_path / str(probed), prober, model=model, **rising)
        learned = job.run(StopSignals())
        ways.append((learned.losses, trained(model) if learned.stop.best_step == STEPS else None))
    assert ways[0][0] == ways[1][0]
    assert ways[0][1] is not None
    assert ways[1][1] is not None
    assert same(ways[0][1], ways[1][1])


def test_a_probe_uses_up_no_random_numbers():
    model = lora(dropout=0.2).eval()
    prober = real_prober(model)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=True)
    first, second = prober.ask(0), prober.ask(0)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=True)
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert all(np.array_equal(x, y) for x, y in zip(before[2], after[2], strict=True))
    assert (first.recall, first.leak, first.kept) == (second.recall, second.leak, second.kept)


# ---- stopped and gone on with --------------------------------------------------------------------


def end(done: Run) -> tuple[Any, ...]:
    """What must be the same however often it was stopped; seconds may differ."""
    learned = done.learned
    stop = learned.stop
    return (
        learned.losses,
        learned.learning_rates,
        learned.probes,
        (stop.learned_at, stop.stopped_at, stop.planned, stop.best_step),
        (learned.tokens, learned.computed_tokens, learned.targets),
        [p.tolist() for p in trained(done.model)],
    )


COURSES = {
    "cut short": EARLY,
    "the best one is an early one": {10: 80, 20: 70, 40: 60},
}


@pytest.fixture(scope="module", params=COURSES)
def course(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    recall = COURSES[request.param]
    return recall, end(run(tmp_path_factory.mktemp("whole") / "run", recall))


# 10 and 20 are probed, 20 is where it is cut short, from there to END the rate runs out.
@pytest.mark.parametrize("at", [1, 4, 5, 9, 10, 11, 16, 19, 20, 21, END - 1])
def test_stopped_after_any_step_it_goes_on_as_if_it_had_not_been(at: int, course, tmp_path: Path):
    recall, whole = course
    with pytest.raises(StoppedLearning) as stopped:
        run(tmp_path / "run", recall, stop_at=at)
    assert (stopped.value.done, stopped.value.exit_code) == (at, 130)
    done = run(tmp_path / "run", recall)
    assert end(done) == whole
    assert done.prober.asked == [step for step in done.prober.asked if step > at], "asked anew"


def test_stopped_again_and_again_it_comes_to_the_same_end(course, tmp_path: Path):
    recall, whole = course
    for at in (2, 3, 10, 20, 22):
        with pytest.raises(StoppedLearning):
            run(tmp_path / "run", recall, stop_at=at)
    assert end(run(tmp_path / "run", recall)) == whole


def test_a_wish_to_stop_in_the_last_step_comes_too_late_to_matter(course, tmp_path: Path):
    recall, whole = course
    assert end(run(tmp_path / "run", recall, stop_at=whole[3][1])) == whole


class _Killed(Exception):
    pass


@pytest.mark.parametrize("at", [7, 12, 20, 23, 40])
def test_killed_between_two_checkpoints_it_goes_on_from_the_one_before(
    at: int, course, tmp_path: Path
):
    """Also where a better adapter was kept after the checkpoint, which is not that of its state."""
    recall, whole = course

    def killed(event: Any) -> None:
        if isinstance(event, Progress) and event.done == at:
            raise _Killed

    model = lora()
    job, _ = learning(tmp_path / "run", Scripted(recall, model), model=model, listen=killed)
    if at < whole[3][1]:
        with pytest.raises(_Killed):
            job.run(StopSignals())
    assert end(run(tmp_path / "run", recall)) == whole


def test_a_finished_one_that_failed_afterwards_has_nothing_left_to_train(course, tmp_path: Path):
    recall, whole = course
    run(tmp_path / "run", recall)
    done = run(tmp_path / "run", recall)
    assert end(done) == whole
    assert done.prober.asked == []
    assert not [event for event in done.told if isinstance(event, Progress)]


def test_only_the_last_checkpoint_and_the_best_adapter_stay(tmp_path: Path):
    with pytest.raises(StoppedLearning):
        run(tmp_path / "run", {10: 80, 20: 70, 40: 60}, stop_at=42)
    assert [p.name for p in find_checkpoints(tmp_path / "run").paths] == ["step_000042"]
    (best,) = (tmp_path / "run" / "best").iterdir()
    assert best.name == "step_000010.safetensors"


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_best_adapter_that_cannot_be_read_is_told(damage: str, tmp_path: Path):
    with pytest.raises(StoppedLearning):
        run(tmp_path / "run", {10: 80}, stop_at=12)
    (best,) = (tmp_path / "run" / "best").iterdir()
    if damage == "missing":
        best.unlink()
    else:
        best.write_bytes(best.read_bytes()[:100])
    with pytest.raises(ModelError, match="best"):
        run(tmp_path / "run", {10: 80})


def test_a_checkpoint_is_written_every_so_many_steps(tmp_path: Path):
    seen: list[str] = []

    def look(event: Any) -> None:
        if isinstance(event, Progress) and (last := last_checkpoint(tmp_path / "run")):
            seen.append(last.name)

    model = lora()
    job, _ = learning(tmp_path / "run", Scripted({}, model), model=model, listen=look)
    job.run(StopSignals())
    assert list(dict.fromkeys(seen)) == [f"step_{n:06d}" for n in (8, 16, 24, 32, 40)]
