"""A line between two processes: one JSON object after the other over TCP, and no code in them."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

_MOST_BYTES = 1 << 20

# A machine that vanishes sends no farewell: after so many seconds without an answer the kernel ends the line.
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 10, 5, 3


class Line:
    """Sends and receives JSON objects over a connected socket; any thread may send.

    Args:
      connection: The socket, which it owns.
    """

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._received = bytearray()
        self._sending = threading.Lock()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", _IDLE_SECONDS),
            ("TCP_KEEPINTVL", _PROBE_SECONDS),
            ("TCP_KEEPCNT", _PROBES),
            ("TCP_USER_TIMEOUT", 1000 * (_IDLE_SECONDS + _PROBES * _PROBE_SECONDS)),
        ):
            if hasattr(socket, option):  # Linux has them all
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def wait_at_most(self, seconds: float | None) -> None:
        """Lets sending and receiving raise TimeoutError after so long; None waits for ever."""
        self._socket.settimeout(seconds)

    def send(self, message: dict[str, Any]) -> None:
        """Sends an object.

        Raises:
          OSError: If the line is cut.
        """
        with self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def try_send(self, message: dict[str, Any]) -> None:
        """Sends an object, to whoever may have gone already."""
        with contextlib.suppress(OSError):
            self.send(message)

    def receive(self) -> dict[str, Any]:
        """Waits for an object.

        Raises:
          OSError: If the line is cut; EOFError: if the other end has closed it.
          ValueError: If what comes is something else.
        """
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > _MOST_BYTES:
                raise ValueError("not a line of ours")
            some = self._socket.recv(1 << 16)
            if not some:
                raise EOFError
            self._received += some
        text = bytes(self._received[:end])
        del self._received[: end + 1]
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError("not a line of ours")
        return message

    def messages(self) -> Iterator[dict[str, Any]]:
        """All that come, until the line ends in any way."""
        try:
            while True:
                yield self.receive()
        except (OSError, EOFError, ValueError):
            return

    def close(self) -> None:
        """Ends the line, also for a thread that waits at it."""
        with contextlib.suppress(OSError):  # the other end was first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
