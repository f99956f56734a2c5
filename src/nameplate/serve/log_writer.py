"""`LogWriter`: log lines are written by a thread, so that nobody waits for who reads them."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from contextlib import suppress

from nameplate.serve.observability import LOG, LineFormatter

LINES = 1000
"""The most lines that wait to be written; further ones are lost."""
REST_SECONDS = 0.02
"""Seconds that the thread rests when it has written all: to wake it for each line took a third of the time that the
event loop spent on a request that is refused."""


class LogWriter(logging.Handler):
    """Passes records to a thread that writes them to stderr as lines.

    A reader that stalls (a pipe whose other end is not read) would otherwise stop whoever logs, and so the whole
    service. `logging.handlers.QueueListener` waits for its thread without limit when it is stopped.
    """

    def __init__(self) -> None:
        """Start the thread."""
        super().__init__()
        self.setFormatter(LineFormatter())
        self.dropped = 0
        """Lines that were lost, because too many waited."""
        self._told = 0
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(LINES)
        # A daemon: while stderr is stalled it cannot end, and the process must.
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, or count it as dropped."""
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def end(self, patience: float) -> None:
        """Write what waits, for up to so many seconds."""
        with suppress(queue.Full):
            self._records.put_nowait(None)
            self._thread.join(patience)

    def _write_all(self) -> None:
        while (record := self._records.get()) is not None:
            self._write(record)
            if self.dropped > self._told and self._records.qsize() < LINES // 2:
                lost, self._told = self.dropped - self._told, self.dropped
                facts = {"facts": {"event": "log lines dropped", "lines": lost}}
                self._write(LOG.makeRecord(LOG.name, logging.WARNING, "", 0, "", (), None, extra=facts))
            if self._records.empty():
                time.sleep(REST_SECONDS)

    def _write(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # stderr is closed, or a value cannot be shown: the line is lost, requests go on
            line = memoryview((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
            # Not sys.stderr.write: its lock would be held while the reader stalls, and Python takes it when it ends.
            while line:
                line = line[os.write(sys.stderr.fileno(), line) :]
