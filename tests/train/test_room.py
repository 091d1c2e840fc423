"""What Ray Train's controller is told after a failure: start again or end, and how long a wait for room lasts."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.controller.state import ReschedulingState, RestartingState, RunningState
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from bizllm.errors import RunError
from bizllm.train.room import LOST_WORKER_RETRIES, Guard, LossPolicy, reason

TRAINING = WorkerGroupError("", {1: RuntimeError("connection closed by peer")})
STARTING = ControllerError(ActorDiedError())
JOINING = ControllerError(RayTaskError("join", "traceback", RuntimeError("connection closed by peer")))
NO_PLACE = ControllerError(WorkerGroupStartupTimeoutError(2))


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Any:
    """With `told`, and a clock that `guard.at` says."""
    told: list[Any] = []
    recipe: Any = SimpleNamespace(least_workers=2, wait_for_room_s=10.0)
    made: Any = Guard(recipe, {"CPU": 1.0}, SimpleNamespace(put_nowait=told.append))  # type: ignore[arg-type]
    made.told, made.at = told, 100.0
    monkeypatch.setattr("bizllm.train.room.time", SimpleNamespace(monotonic=lambda: made.at, sleep=time.sleep))
    monkeypatch.setattr("bizllm.train.room.no_room", lambda *_: "no room")
    return made


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (TRAINING, "RETRY"),
        (STARTING, "RETRY"),
        (JOINING, "RETRY"),
        (NO_PLACE, "RETRY"),
        (ControllerError(WorkerGroupStartupFailedError("one died")), "RETRY"),
        (ControllerError(RunError("the loss of step 5 is nan")), "RAISE"),
        (ControllerError(TypeError("a mistake of ours")), "RAISE"),
        (ControllerError(STARTING), "RAISE"),  # how the guard says that it is enough
    ],
)
def test_a_loss_is_a_loss_whatever_the_moment(error: TrainingFailedError, decision: str) -> None:
    assert LossPolicy(FailureConfig()).make_decision(error) == FailureDecision[decision]


def test_losses_in_training_and_while_starting_count_together(guard: Any) -> None:
    state = ReschedulingState(training_failed_error=JOINING)
    for _ in range(LOST_WORKER_RETRIES - 1):
        guard.after_controller_state_update(RunningState(), ReschedulingState(training_failed_error=STARTING))
    guard.after_controller_state_update(RunningState(), RestartingState(training_failed_error=TRAINING))
    guard.after_controller_state_update(RunningState(), ReschedulingState(training_failed_error=NO_PLACE))
    with pytest.raises(ControllerError) as enough:
        guard.after_controller_state_update(RunningState(), state)
    assert enough.value is JOINING
    assert guard.told == [("lost", reason(error)) for error in (STARTING, STARTING, TRAINING)]


def test_a_start_is_no_wait_but_what_finds_no_place_goes_on_waiting(guard: Any) -> None:
    first = ReschedulingState(training_failed_error=STARTING)
    guard.after_controller_state_update(RunningState(), first)
    guard.at += 60  # the next start, which fails late
    second = ReschedulingState(training_failed_error=STARTING)
    guard.after_controller_state_update(first, second)
    guard.at += 9
    third = ReschedulingState(training_failed_error=NO_PLACE)
    guard.after_controller_state_update(second, third)
    guard.at += 2
    with pytest.raises(RunError, match="no room"):
        guard.after_controller_state_update(third, third)


def test_reasons_are_in_our_words_without_the_messages_of_others() -> None:
    texts = [reason(error) for error in (TRAINING, STARTING, JOINING)]
    assert texts[0] == "worker 1: RuntimeError"
    assert "while they started" in texts[1] and "GLOO_SOCKET_IFNAME" in texts[2]
    assert not [text for text in texts if "closed by peer" in text]
