"""How many worker processes read the data, and whether this program can start any.

They run its main file again. Where they can't, they die at their start, and whoever
waits for their batches waits for ever. So it is found out before. Used by `pipeline`
and `passes`.
"""

import ast
import multiprocessing
import os
import signal
import sys
import threading

_SECONDS = 60  # That a worker goes on after SIGTERM.


def default_workers():
    """Number of worker processes where nobody chose one.

    Half of the cores, at most eight: the others are for what hands steps to the device,
    and often two cores of a machine are one with two threads. None on one or two cores,
    where workers would take the time of what they work for, and none in a program that
    can't start them.
    """
    # Workers themselves, which import this module, have no need of Keras.
    from keras_mdm import backend

    cores = backend.cores()
    if cores <= 2:
        return 0
    try:
        check_can_start_workers()
    except RuntimeError:
        return 0
    return min(cores // 2, 8)


def check_can_start_workers():
    """Raises a `RuntimeError` if workers could not import this program's main file.

    It may be read from the standard input, or do its work outside of an
    `if __name__ == "__main__":`.
    """
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    spec = getattr(main, "__spec__", None)
    # Workers run no main file after `python -c`, in a notebook and in a package's own.
    if path is None or (spec is not None and spec.name.endswith("__main__")):
        return
    if not os.path.isfile(path):
        raise RuntimeError(
            "`num_workers` needs a program in a file, which worker processes read "
            f"again, and this one comes from {path!r}. Write it to a file, or pass "
            "`num_workers=0`."
        )
    line = _running_line(main, path)
    if line is not None and not _is_guarded(path, line):
        raise RuntimeError(
            f"`num_workers` starts processes that run '{path}' again, and line {line} "
            "would start more of them there. Put what the program does under "
            "`if __name__ == '__main__':`, or pass `num_workers=0`."
        )


def end_with_parent(*_):
    """Ends this worker process when the one that started it is gone, however it ended.

    Workers of a program that was killed would wait for ever, and keep their memory.
    Ctrl-C and SIGTERM reach workers too where they are sent to a whole group. But they
    are for the program, which finishes its step, and needs a batch for that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_SECONDS))

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _running_line(main, path):
    """Line of the main file that this thread is in, at the file's own level."""
    frame = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and frame.f_globals is vars(main):
            return frame.f_lineno if code.co_filename == path else None
        frame = frame.f_back
    return None


def _is_guarded(path, line):
    """Whether a line is within a condition on `__name__`."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return True  # No Python file, such as one that another program runs.
    for node in tree.body:
        if node.lineno <= line <= node.end_lineno:
            names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
            return isinstance(node, ast.If) and "__name__" in names
    return True
