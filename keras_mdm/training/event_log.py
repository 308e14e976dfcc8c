"""Files of TensorBoard. Opened by `stage_callback`."""

import itertools
import os
import socket
import struct
import time

from keras_mdm.files import append_whole

_SECONDS = 10  # Between writes.
_numbers = itertools.count()


class EventLog:
    """Appends to a new file of TensorBoard. Needs the package `tensorboardX`.

    Its own writer has a thread, which a full disk ends, and then waits for it for ever.

    Args:
        folder: Path.
        kind: str. The suffix of the file.
        attempts: `Attempts`, of all logs of who writes it.
        first: int or `None`. Step from which on what other files there say is hidden.
    """

    def __init__(self, folder, kind, attempts, first=None):
        from tensorboardX import summary
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import masked_crc32c

        self._summary, self._events, self._sum = summary, event_pb2, masked_crc32c
        self._attempts = attempts
        # Files that are begun in one second are several.
        name = f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        name = f"events.out.tfevents.{name}.{next(_numbers)}.{kind}"
        self._path, self._waiting, self._written = folder / name, b"", 0.0
        self._add(file_version="brain.Event:2")
        if first is not None:
            session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=first, session_log=session)

    def add_scalar(self, tag, value, step):
        """Adds a number."""
        summary = self._summary.scalar(tag, 0.0)
        # Only now: it would warn of one that is not finite, whatever its name.
        summary.value[0].simple_value = value
        self._add(step=step, summary=summary)

    def add_image(self, tag, picture, step):
        """Adds a uint8 array of shape `(height, width, channels)`."""
        found = self._summary.image(tag, picture, dataformats="HWC")
        self._add(step=step, summary=found)

    def close(self):
        """Writes what is not written yet."""
        self._write()

    def _add(self, **values):
        data = self._events.Event(wall_time=time.time(), **values).SerializeToString()
        for part in (struct.pack("<Q", len(data)), data):
            self._waiting += part + struct.pack("<I", self._sum(part))
        if time.monotonic() - self._written > _SECONDS:
            self._write()

    def _write(self):
        self._written = time.monotonic()
        with self._attempts.going_on():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            append_whole(self._path, self._waiting)
            self._waiting = b""
