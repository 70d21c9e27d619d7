import math

import pytest

from config import TrainingConfig
from engine.schedule import FINAL_SHARE, Schedule, learning_rate


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine():
    rates = [learning_rate(2.0, step, 4, progress=0.0) for step in range(6)]
    assert rates == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert learning_rate(2.0, 10, 4, progress=1.0) == pytest.approx(2.0 * FINAL_SHARE)
    assert learning_rate(2.0, 10, 0, progress=0.25) == pytest.approx(2.0 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 4))))


def test_without_minutes_the_rate_depends_on_the_step_alone():
    schedules = [Schedule.of(TrainingConfig(num_epochs=4), 10, seconds_used=used) for used in (0.0, 1e6)]
    assert [schedule.time_share() for schedule in schedules] == [0.0, 0.0]
    assert [schedule.rate(7, schedule.time_share()) for schedule in schedules] == [schedules[0].rate(7)] * 2


def test_the_minutes_carry_the_rate_down_by_whatever_is_further_on():
    schedule = Schedule.of(TrainingConfig(minutes=1.0, num_epochs=10, lr=1.0, warmup_steps=0), 10)
    assert schedule.rate(5, 1.5) == pytest.approx(FINAL_SHARE)
    assert schedule.rate(50, 0.2) == schedule.rate(20, 0.5) == pytest.approx((1 + FINAL_SHARE) / 2)


def test_a_resumed_run_has_used_what_it_used_before(monkeypatch):
    monkeypatch.setattr("engine.schedule.time.monotonic", lambda: 1000.0)
    schedule = Schedule.of(TrainingConfig(minutes=2.0), 10, seconds_used=90.0)
    assert (schedule.seconds_used(), schedule.time_share()) == (90.0, 0.75)
