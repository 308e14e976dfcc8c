"""Ctrl-C and SIGTERM: while a model trains, they wait for the end of the step.

In the middle of a step an exception may cost the weights, and Keras drops one where it
reads the losses. So both signals are taken here as long as a step may run, and so are
others whose handler is Python's, such as an alarm's, which may raise. They come into
effect in `check`, which is called between two steps: as they would have without
training, `KeyboardInterrupt` for Ctrl-C, the end of the program (code 143) for SIGTERM,
or a call of the handler that the program had set. Such a handler is called at once
where data are waited for, `at_once`. A second one of both ends the process at once,
whatever it does; in an interactive session, Ctrl-C never does. Nothing of this happens
in threads other than the main one, where no signal arrives.
"""

import contextlib
import os
import signal
import socket
import sys
import threading

import keras

from keras_mdm import backend

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEFAULTS = (signal.default_int_handler, signal.SIG_DFL)
_holder = None


@contextlib.contextmanager
def held(raised=False, whole_epochs=False):
    """Within it the signals wait for `check`, or for its end.

    Args:
        raised: bool. Whether both are raised at once instead, wherever nothing inside
            holds them: for a whole program, whose second signal then ends it too, and
            which may remove what is half written and say how to go on.
        whole_epochs: bool. Whether they wait for the end of an epoch whose steps are
            done, so that all callbacks hear of it.
    """
    global _holder
    outer = _holder
    within = outer is not None and (raised or not outer.raised)
    if within or threading.current_thread() is not threading.main_thread():
        yield
        return
    _holder = holder = outer or _Holder(raised)
    holder.raised, holder.whole_epochs = raised, whole_epochs
    try:
        yield
        if not raised:
            check()
    finally:
        holder.raised, holder.whole_epochs = raised or outer is not None, False
        if outer is None:
            _holder = None
            holder.close()
        # Also beside an error, such as the data's, whose workers were interrupted too.
        holder.deliver()


@contextlib.contextmanager
def at_once():
    """Within it, which is no step, handlers that the program has set are called.

    Not of several processes: one that they end would leave the others waiting.
    """
    holder = _holder if threading.current_thread() is threading.main_thread() else None
    if holder is None:
        yield
        return
    holder.waits = backend.number_of_processes() == 1
    try:
        yield
    finally:
        holder.waits = False


def check(batch=0):
    """Raises what a signal that has come asks for.

    All of several processes must stop at the same batch, or each would wait for the
    others for ever: at every 16th they tell each other.

    Args:
        batch: int. Number of the batch before or after which it is called.
    """
    if _holder is None or threading.current_thread() is not threading.main_thread():
        return
    if backend.number_of_processes() == 1:
        _holder.deliver()
    elif batch % 16 == 0:
        found = max(backend.from_all(max(_holder.pending, default=0)))
        _holder.pending = [found] if found else []
        _holder.deliver()


class StopAtInterrupt(keras.callbacks.Callback):
    """Calls `check` between steps; the last of the callbacks of `fit`."""

    # Without a callback that reads the losses at each step, Keras waits for none, and
    # calls those after a step in another thread; those before the next stop then.
    async_safe = True

    def on_train_batch_begin(self, batch, logs=None):
        check(batch)

    # Not after a training step: the last one of an epoch is followed by its end.

    def on_test_batch_begin(self, batch, logs=None):
        if not (_holder and _holder.whole_epochs and self.model.turns.trains):
            check(batch)

    on_test_batch_end = on_test_batch_begin

    def on_epoch_end(self, epoch, logs=None):
        check()


def with_check(callbacks):
    """Callbacks of the user, then that which stops at an interrupt."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        known = [type(callback) for callback in callbacks.callbacks]
        if StopAtInterrupt not in known:
            callbacks.append(StopAtInterrupt())
        return callbacks
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    return [*(callbacks or ()), StopAtInterrupt()]


class _Holder:
    """Takes the signals; a thread hears of them even while a program is compiled."""

    def __init__(self, raised):
        self.pending, self.waits = [], False
        self.raised, self.whole_epochs = raised, False
        self.previous = {}
        # Of several processes each may have other handlers; a program may not have
        # joined the others yet.
        alone = not raised and backend.number_of_processes() == 1
        for signum in signal.valid_signals() if alone else _SIGNALS:
            previous = signal.getsignal(signum)
            # Ignored ones stay so, and those that another language handles.
            ends = signum in _SIGNALS and previous == signal.SIG_DFL
            if callable(previous) or ends:
                self.previous[signum] = previous
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        for signum in self.previous:
            signal.signal(signum, self._note)

    def _note(self, signum, frame):
        if self.waits and self.previous[signum] not in _DEFAULTS:
            self.previous[signum](signum, frame)
        elif signum not in self.pending:
            self.pending.append(signum)
            if self.raised:
                self.deliver()

    def _listen(self):
        """Says that a signal has come; ends the process at the second."""
        count = 0
        while received := self._reader.recv(16):
            for signum in received:
                if self.previous.get(signum) not in _DEFAULTS:
                    continue
                count += 1
                session = signum == signal.SIGINT and hasattr(sys, "ps1")
                if count == 1:
                    what = "what is computed" if self.raised else "the step"
                    more = "" if session else " A second signal ends at once."
                    told = f"\nInterrupted: {what} is finished first.{more}"
                    print(told, file=sys.stderr, flush=True)
                elif not session:
                    os._exit(128 + signum)

    def deliver(self):
        while self.pending:
            signum = self.pending.pop(0)
            previous = self.previous.get(signum, signal.SIG_DFL)
            if previous not in _DEFAULTS:
                previous(signum, None)
            elif signum == signal.SIGINT:
                raise KeyboardInterrupt
            else:
                raise SystemExit(128 + signum)

    def restore(self):
        for signum, previous in self.previous.items():
            if signal.getsignal(signum) == self._note:
                signal.signal(signum, previous)
        signal.set_wakeup_fd(self._previous_fd)

    def close(self):
        self.restore()
        self._writer.close()
        self._thread.join()
        self._reader.close()


# A forked process, such as a worker that reads pictures, must end when it is told to.
# Around the fork signals wait: one that comes before `_forget` would find our handler.


def _block():
    if _holder is not None:
        _holder.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _unblock():
    if _holder is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _holder.mask)


def _forget():
    global _holder
    holder, _holder = _holder, None
    if holder is not None:
        holder.restore()
        signal.pthread_sigmask(signal.SIG_SETMASK, holder.mask)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_forget)
