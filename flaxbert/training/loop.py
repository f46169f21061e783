"""The training loop."""

import contextlib

from flaxbert.errors import Preempted
from flaxbert.pipeline.loader import Loader
from flaxbert.runtime import memory
from flaxbert.runtime.preemption import Preemption
from flaxbert.training.plan import Plan
from flaxbert.training.run import Run
from flaxbert.training.state import TrainState
from flaxbert.training.step import TrainStep


def fit(
    state: TrainState,
    plan: Plan,
    train_step: TrainStep | None,
    loader: Loader,
    run: Run,
    preemption: Preemption,
) -> TrainState:
    """Train from the step of `state` to the last one; return once the last checkpoint is written.

    The host runs ahead of the device: it checks a step, and writes its line, two steps later (see
    `Run.add`). `train_step` may be None if no step is left to take.

    Raises:
      Preempted: if a signal came; the state is saved.
      DivergedError: see `FiniteGuard`.
    """
    step = int(state.step)
    shape, usage = loader.batches.largest_shape, getattr(train_step, "usage", None)
    # At exit, in reverse order: pending writes are completed, and no signal interrupts them.
    with (
        memory.explain_exhaustion("training", memory.TRAINING, shape, usage=usage),
        preemption.holding(),
        contextlib.closing(run.checkpoints),
        contextlib.closing(run),
        loader,
    ):
        if step == plan.stop_step and run.last_logged_step < step:
            run.log(step, state.sums)  # it was not the last step when it was taken
        # A process that stopped may have left its last step without the evaluation that was due.
        take_step = step == 0 or run.evaluated
        last = plan.stop_step if not (run.evaluated and run.stops_early(step)) else step
        while step < last or not take_step:
            if take_step:
                assert train_step is not None
                with run.profile.step(step + 1):
                    state, report = train_step(state, loader.batch(step))
                step += 1
                run.add(step, report.skipped)
                if plan.log_due(step):
                    run.log(step, report.sums)
                run.advance()
            take_step = True
            # Log, evaluate, then save: a checkpoint's step has all its lines, as both first write
            # those that wait for the device; and resuming cuts the file right after them. Only a
            # signal skips the evaluation.
            stopping, evaluated = preemption.requested(), False
            if plan.eval_due(step) and not stopping:
                evaluated = run.evaluate(step, state.averaged, preemption)
                stopping = not evaluated
                last = step if evaluated and run.stops_early(step) else last
            if stopping or evaluated or plan.save_due(step) or run.save_due(step):
                run.save(step, state, evaluated=evaluated)
            if stopping:
                raise _stopped(step, plan)
        run.flush()
        run.checkpoints.wait()
        if preemption.requested():  # since the last step
            raise _stopped(step, plan)
    return state


def _stopped(step: int, plan: Plan) -> Preempted:
    return Preempted(
        f"stopped and saved after step {step} of {plan.stop_step}; the same command continues"
    )
