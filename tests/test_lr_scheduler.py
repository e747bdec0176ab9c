"""Schedules: what PyTorch has not, captured steps, saving, errors."""

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn.optim import lr_scheduler
from fastnn.program import capture
from fastnn.train import LambdaCallback, LearningRateSchedule
from training import blobs, make


def sgd(lr=0.5):
    return optim.SGD([nn.Parameter(np.zeros(3, np.float32))], lr=lr)


def test_inverse_scaling():
    schedule = lr_scheduler.InverseScalingLR(sgd(), power=0.5)
    rates = []
    for _ in range(4):
        rates += schedule.get_last_lr()
        schedule.step()
    np.testing.assert_allclose(rates, 0.5 / np.sqrt([1, 2, 3, 4]))


def test_adaptive_is_scikit_learns():
    """The bookkeeping of sklearn.neural_network's _update_no_improvement_count and trigger_stopping, written out."""
    losses = np.abs(np.random.default_rng(0).normal(1, 0.3, 400))
    optimizer = sgd(0.1)
    schedule = lr_scheduler.AdaptiveLR(optimizer, tol=0.01, n_iter_no_change=3)
    rate, best, count, stopped = 0.1, np.inf, 0, False
    for loss in losses:
        count = count + 1 if loss > best - 0.01 else 0
        best = min(best, loss)
        if count > 3:
            count, stopped = 0, rate <= 1e-6
            rate = rate if stopped else rate / 5
        schedule.step(loss)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-12) and schedule.exhausted == stopped
        if stopped:
            break
    assert stopped


def test_a_captured_step_follows_the_schedule():
    optimizer = sgd(1.0)
    (p,) = optimizer.param_groups[0]["params"]
    schedule = lr_scheduler.StepLR(optimizer, 2, 0.5)

    def step(g):
        p.grad = g
        optimizer.step()
        optimizer.zero_grad()

    program, moves = capture(step), []
    for _ in range(8):
        before = p.detach().numpy().copy()
        program(fastnn.ones(3))
        moves.append((before - p.detach().numpy())[0])
        schedule.step()
    assert moves == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


def one_after_another(optimizer):
    warm = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3)
    return lr_scheduler.SequentialLR(optimizer, [warm, lr_scheduler.CosineAnnealingLR(optimizer, 5)], [3])


@pytest.mark.parametrize("make", [
    one_after_another, lambda o: lr_scheduler.OneCycleLR(o, 0.5, 9), lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.5, 3),
    lambda o: optim.swa_utils.SWALR(o, 0.05),
    lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 2), lr_scheduler.ConstantLR(o)])])
def test_a_schedule_goes_on_where_it_was(make):
    first, second = make(sgd()), make(sgd())
    for _ in range(5):
        first.step()
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        assert second.get_last_lr() == first.get_last_lr()
        assert second.optimizer.param_groups[0]["momentum"] == first.optimizer.param_groups[0]["momentum"]
        first.step()
        second.step()


def test_a_sequence_has_the_momentum_of_its_part():
    optimizer = sgd()
    parts = [lr_scheduler.OneCycleLR(optimizer, 0.5, 4, anneal_strategy="linear", pct_start=0.5),
             lr_scheduler.ConstantLR(optimizer, 1.0)]
    schedule, momenta = lr_scheduler.SequentialLR(optimizer, parts, [4]), []
    for _ in range(6):
        momenta.append(optimizer.param_groups[0]["momentum"])
        schedule.step()
    assert momenta == pytest.approx([0.95, 0.85, 0.9, 0.95, 0.95, 0.95])


def test_a_trainer_does_not_show_figures_to_schedules_that_may_be_given_a_step():
    x, y = blobs(50)
    trainer = make(lr=0.4)
    trainer.fit(x, y, epochs=3, verbose=0, callbacks=[
        LearningRateSchedule(lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 4))])
    assert trainer.learning_rate == pytest.approx(0.2 * (1 + np.cos(0.75 * np.pi)))


@pytest.mark.parametrize("kind, options", [(lr_scheduler.AdaptiveLR, dict(n_iter_no_change=1)),
                                           (lr_scheduler.ReduceLROnPlateau, dict(patience=1, cooldown=1))])
def test_schedules_of_figures_go_on(kind, options):
    first, second = (kind(sgd(), **options) for _ in range(2))
    for loss in (3.0, 2.0, 2.5):
        first.step(loss)
    second.load_state_dict(first.state_dict())
    for loss in (2.6, 1.0, 1.5, 1.4, 1.3):
        first.step(loss)
        second.step(loss)
        assert second.optimizer.param_groups[0]["lr"] == first.optimizer.param_groups[0]["lr"]
        assert second.state_dict() == first.state_dict()
    assert first.optimizer.param_groups[0]["lr"] < 0.5


@pytest.mark.parametrize("every, expected", [("epoch", [0.4, 0.2, 0.1]), ("batch", [0.1, 0.025, 0.00625])])
def test_a_trainer_goes_through_a_schedule(every, expected):
    x, y = blobs(50)
    trainer, rates = make(lr=0.4), []
    schedule = LearningRateSchedule(lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5), every)
    trainer.fit(x, y, batch_size=25, epochs=3, verbose=0, callbacks=[
        LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(trainer.learning_rate)), schedule])
    assert rates == pytest.approx(expected)


def test_a_schedule_is_of_the_trainer_s_optimiser():
    """A function makes one for every optimiser; that of another would change nothing."""
    x, y = blobs(50)
    schedule = LearningRateSchedule(lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5))
    trainers = [make(lr=0.4), make(lr=0.4)]
    for k, rate in ((0, 0.1), (0, 0.025), (1, 0.1)):  # the first one's second run goes on
        trainers[k].fit(x, y, epochs=2, verbose=0, callbacks=[schedule])
        assert trainers[k].learning_rate == pytest.approx(rate)
    other = LearningRateSchedule(lr_scheduler.StepLR(trainers[0].optimizer, 1))
    with pytest.raises(ValueError, match="schedule is a StepLR of another optimizer"):
        trainers[1].fit(x, y, verbose=0, callbacks=[other])


def test_a_trainer_stops_when_the_rate_is_exhausted():
    x, y = blobs(50)
    trainer = make(lr=0.1)
    schedule = lr_scheduler.AdaptiveLR(trainer.optimizer, tol=100.0, n_iter_no_change=1, min_lr=0.01)
    history = trainer.fit(x, y, epochs=50, verbose=0, callbacks=[LearningRateSchedule(schedule)])
    # the first loss beats infinity; two epochs later 0.1 becomes 0.02, two later 0.004, and two later nothing is left
    assert len(history.history["loss"]) == 7 and schedule.exhausted
    with pytest.raises(ValueError, match="monitor is 'val_loss', expected one of loss, accuracy"):
        trainer.fit(x, y, epochs=1, verbose=0, callbacks=[LearningRateSchedule(schedule, monitor="val_loss")])
    with pytest.raises(ValueError, match="every is 'step', expected 'epoch' or 'batch'"):
        LearningRateSchedule(schedule, every="step")
    with pytest.raises(TypeError, match="schedule is 0.5"):
        LearningRateSchedule(0.5)


@pytest.mark.parametrize("build, error, message", [
    (lambda o: lr_scheduler.StepLR(o, 0), ValueError, "StepLR: step_size is 0, but must be an integer of at least 1"),
    (lambda o: lr_scheduler.StepLR(o, 1, -0.1), ValueError, "StepLR: gamma is -0.1, but must be a number above 0"),
    (lambda o: lr_scheduler.StepLR("adam", 1), TypeError, "StepLR: optimizer is a str, but must be an Optimizer"),
    (lambda o: lr_scheduler.ConstantLR(o, 1.5), ValueError, "factor is 1.5, but must be above 0 and at most 1"),
    (lambda o: lr_scheduler.LinearLR(o, 0), ValueError, "start_factor is 0"),
    (lambda o: lr_scheduler.LinearLR(o, total_iters=0), ValueError, "total_iters is 0"),
    (lambda o: lr_scheduler.MultiStepLR(o, [5, 2]), ValueError, r"milestones are \[5, 2\], but must be increasing"),
    (lambda o: lr_scheduler.ExponentialLR(o, 0), ValueError, "gamma is 0"),
    (lambda o: lr_scheduler.InverseScalingLR(o, -1), ValueError, "power is -1"),
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 0), ValueError, "T_max is 0"),
    (lambda o: lr_scheduler.CosineAnnealingLR(o, 5, -1), ValueError, "eta_min is -1"),
    (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 0), ValueError, "T_mult is 0"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 1), ValueError,
     "total_steps is 1, but must be an integer of at least 2"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 9, pct_start=2), ValueError,
     "pct_start is 2, but must be a number from 0 to 1"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 9, anneal_strategy="up"), ValueError, "must be 'cos' or 'linear'"),
    (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 1)], [3]), ValueError,
     "1 schedulers and 1 milestones"),
    (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(sgd(), 1)], []), ValueError,
     "SequentialLR: .* is not a schedule of this optimizer by step number"),
    (lambda o: lr_scheduler.ChainedScheduler([]), ValueError, r"ChainedScheduler: schedulers is \[\], but must be a seq"),
    (lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 1), lr_scheduler.StepLR(sgd(), 1)]), ValueError,
     "is not a schedule of this optimizer"),
    (lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ReduceLROnPlateau(o)], o), ValueError, "by step number"),
    (lambda o: lr_scheduler.StepLR(o, 1, last_epoch=3), ValueError,
     "StepLR: last_epoch is 3, but must be -1 where a parameter group has no 'initial_lr'"),
    (lambda o: lr_scheduler.StepLR(o, 1, last_epoch=-2), ValueError, "last_epoch is -2, but must be an integer of at lea"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1), ValueError, "needs total_steps, or epochs and steps_per_epoch"),
    (lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.2], 9), ValueError,
     r"max_lr is \[0.1, 0.2\], but must be one value, or 1: one for each parameter group"),
    (lambda o: lr_scheduler.OneCycleLR(optim.Adagrad([nn.Parameter(np.zeros(3))]), 0.1, 9), ValueError,
     "cycle_momentum is True, but must be False for Adagrad, which has neither momentum nor betas"),
    (lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, max_momentum=1), ValueError,
     "max_momentum is 1, but must be at least 0 and below 1"),
    (lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, scale_mode="step"), ValueError, "must be 'cycle' or 'iterations'"),
    (lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5).step(-1), ValueError, "epoch is -1"),
    (lambda o: lr_scheduler.LambdaLR(o, 0.5), TypeError, "lr_lambda is 0.5, but must be a function"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, "low"), ValueError, "mode is 'low', but must be 'min' or 'max'"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), ValueError,
     "factor is 1.0, but must be above 0 and below 1"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=-1), ValueError, "patience is -1"),
    (lambda o: lr_scheduler.AdaptiveLR(o, n_iter_no_change=0), ValueError, "n_iter_no_change is 0"),
    (lambda o: lr_scheduler.AdaptiveLR(o, factor=2), ValueError, "factor is 2, but must be above 0 and below 1")])
def test_errors_say_what_is_allowed(build, error, message):
    with pytest.raises(error, match=message):
        build(sgd())


def test_three_phases_are_three_whatever_says_so():
    """What is true is True: 2 made four phases, 2**63 an OverflowError."""
    def rates(three_phase):
        schedule = lr_scheduler.OneCycleLR(optim.SGD([fastnn.zeros(2)], lr=0.1), 0.5, 20, three_phase=three_phase)
        return [(schedule.step(), schedule.get_last_lr())[1] for _ in range(19)]

    assert rates(2) == rates(2**63) == rates(True) != rates(False) == rates(0)
