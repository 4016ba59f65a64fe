"""The processes of one training: what they agree upon, and what they do when one of them is gone.

Process 0 has a line to each of the others. Whatever depends on a machine (a signal, a clock, what a folder holds) is
decided there, in the order in which all ask; no process then enters a computation over all devices alone.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from griffin_eqx.errors import GriffinError
from griffin_eqx.processes.line import Line

# How long the main thread may take to come out of a computation over all devices by itself, when one has gone. On
# CPU such a computation fails at once, on accelerators it may wait for ever.
_GRACE_SECONDS = 5.0
# The loss of a line and the failure of a computation are seen in either order.
_SOON_SECONDS = 2.0
_INTERRUPTED = 130  # by Ctrl-C, as shells have it


class LostProcessError(GriffinError):
    """Another process of the same training ended."""

    exit_code = 6


class Group:
    """All processes of a training, seen from one of them.

    Args:
      index: Which this is.
      count: How many there are.
      lines: Of process 0: to process 1, 2, ...; of the others: to process 0; of a process on its own: none.
    """

    def __init__(self, index: int, count: int, lines: Sequence[Line]):
        self.index = index
        self.count = count
        self._lines = {(0 if index else number): line for number, line in enumerate(lines, 1)}
        self._inbox: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {
            number: queue.SimpleQueue() for number in self._lines
        }
        self._left = {number: threading.Event() for number in self._lines}
        self._asked = 0
        self._lost: LostProcessError | None = None
        self._is_lost = threading.Event()
        self._noticed = threading.Event()
        self._losing = threading.Lock()
        self._failure: int | None = None
        for number in self._lines:
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.index == 0

    @property
    def is_several(self) -> bool:
        """Whether there are others."""
        return bool(self._lines)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of the processes; all must ask."""
        return self._agree("any", flag, any)

    def told(self, value: Any = None) -> Any:
        """What process 0 gives, in all of them; all must ask. A JSON value."""
        return self._agree("told", value if self.is_first else None, lambda values: values[0])

    def decided(self, value: Any, decide: Callable[[list[Any]], Any]) -> Any:
        """What process 0 makes of the values of all, in their order; all must ask. JSON values."""
        return self._agree("decided", value, decide)

    def _agree(self, what: str, value: Any, decide: Callable[[list[Any]], Any]) -> Any:
        if not self._lines:
            return decide([value])
        self._asked += 1
        question = f"{what} {self._asked}"
        if not self.is_first:
            self._send(0, {"question": question, "value": value})
            return self._received(0, question)["value"]
        values = [value, *(self._received(number, question)["value"] for number in self._lines)]
        answer = decide(values)
        for number in self._lines:
            self._send(number, {"question": question, "value": answer})
        return answer

    def _send(self, number: int, message: dict[str, Any]) -> None:
        try:
            self._lines[number].send(message)
        except OSError:
            if not self._is_lost.wait(_SOON_SECONDS):  # its last words may still be on the line
                self._lose(number, None)
            raise self._told_lost() from None

    def _received(self, number: int, question: str) -> dict[str, Any]:
        message = self._inbox[number].get()
        if message is None:
            self._lose(number, "it had come to its end already")  # says nothing new where one is lost
            raise self._told_lost()
        if message["question"] != question:
            raise AssertionError(f"process {number} is at {message['question']!r}, not at {question!r}")
        return message

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all go through: what ends it in one process by an error ends it in the others.

        Raises:
          LostProcessError: If another process has ended.
        """
        try:
            yield
        except LostProcessError as error:
            self._noticed.set()
            self._failure = error.exit_code
            raise
        except BaseException as error:
            # A computation over all devices fails where one of them is gone, with a message of its library.
            foreign = isinstance(error, Exception) and not isinstance(error, GriffinError)
            if self._lines and foreign and self._is_lost.wait(_SOON_SECONDS):
                self._failure = LostProcessError.exit_code
                raise self._told_lost() from error
            self._noticed.set()
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """Tells the others why this process is going to end."""
        interrupted = isinstance(error, KeyboardInterrupt)
        self._failure = _INTERRUPTED if interrupted else getattr(error, "exit_code", 1)
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        reason = f"{type(error).__name__}: {first}" if first else type(error).__name__
        for line in self._lines.values():
            line.try_send({"failed": reason[:300], "process": self.index})

    def _listen(self, number: int) -> None:
        """Reads a line as long as it is there; runs in a thread of its own."""
        for message in self._lines[number].messages():
            if "question" in message:
                self._inbox[number].put(message)
            elif "failed" in message:
                self._lose(int(message["process"]), message["failed"])
            elif "leaves" in message:
                self._left[number].set()
        if not self._left[number].is_set():
            self._lose(number, None)
        self._left[number].set()
        self._inbox[number].put(None)

    def _lose(self, number: int, reason: str | None) -> None:
        """Process `number` has ended, or is about to; `reason` where it said why."""
        with self._losing:
            if self._lost is not None or self._failure is not None:
                return  # the end has been told
            why, then = (
                (f"it stopped by an error: {reason}", "Mend what it says; then the")
                if reason
                else ("it was killed, or its machine is out of reach", "The")
            )
            self._lost = LostProcessError(
                f"Process {number} of this training is gone, so process {self.index} ends as well.\n"
                f"  {why}\n  {then} same command for all goes on from the last complete checkpoint."
            )
            if number == 0 and reason is None:
                # JAX's runtime is about to abort this process, for its coordinator is gone: be quicker.
                self._end_now()
            self._is_lost.set()
        for inbox in self._inbox.values():
            inbox.put(None)
        if self.is_first:
            for other, line in self._lines.items():
                if other != number:
                    line.try_send({"failed": reason, "process": number})
        threading.Thread(target=self._end_if_stuck, daemon=True).start()

    def _end_if_stuck(self) -> None:
        if not self._noticed.wait(_GRACE_SECONDS):
            self._end_now()

    def _end_now(self) -> None:
        """Ends the process from a thread: the main one waits for a device that waits for the one that is gone."""
        if os.isatty(1):
            os.write(1, b"\n\x1b[?25h")  # below the live line, and with the cursor that it hides
        os.write(2, f"griffin: {self._lost}\n".encode())
        os._exit(LostProcessError.exit_code)

    def _told_lost(self) -> LostProcessError:
        self._noticed.set()
        assert self._lost is not None
        return self._lost

    def leave(self) -> None:
        """Parts from the others at the end of the process; all that is JAX's to do then follows.

        After an error JAX's runtime is left as it is: it would wait for the one that is gone, and then abort.
        """
        if not self._lines:
            return
        if self._failure is None and self._lost is None:
            for number, line in self._lines.items():
                try:
                    line.send({"leaves": self.index})
                except OSError:
                    self._lose(number, None)
            for left in self._left.values():
                left.wait()
        if self._failure is None and self._lost is not None:
            self._end_now()
        sys.stdout.flush()
        sys.stderr.flush()
        if self._failure is None:
            return
        if self.is_first:
            # The others end first: without this process, JAX's runtime aborts them.
            deadline = time.monotonic() + _GRACE_SECONDS + 1
            for left in self._left.values():
                left.wait(max(0.0, deadline - time.monotonic()))
        os._exit(self._failure)


ALONE = Group(0, 1, [])
"""A process on its own: every question is answered by itself."""
