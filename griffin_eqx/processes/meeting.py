"""How processes meet before JAX connects them: everybody says who it is, and mistakes are told to all.

JAX's runtime would wait for minutes and then abort where a process never comes or comes twice. So process 0 listens
first, at the address where JAX's coordinator is going to be, and only lets JAX start when all have come.
"""

import dataclasses
import errno
import ipaddress
import os
import selectors
import socket
import time
from typing import Any

from griffin_eqx.errors import GriffinError
from griffin_eqx.processes.line import Line

_GREETING = "griffin_eqx 1"
_RETRY_SECONDS = 0.2
# Who has come waits this much longer than process 0, which knows who is missing.
_MARGIN_SECONDS = 3.0
_HELLO_SECONDS = 2.0


class ProcessError(GriffinError):
    """Processes that cannot train together as they were started."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A process among those that train together.

    Attributes:
      coordinator: Where process 0 listens, HOST:PORT.
      count: How many there are.
      index: Which one this is, from 0.
    """

    coordinator: str
    count: int
    index: int

    def checked(self) -> "Place":
        """The same.

        Raises:
          ProcessError: If it is no place.
        """
        if self.count < 1 or not 0 <= self.index < self.count:
            raise ProcessError(
                f"There is no process {self.index} among {self.count}.\n"
                f"  coordinator {self.coordinator}, processes {self.count}, process index {self.index}\n"
                "  Processes count from 0: every one from 0 to their number - 1 is started once."
            )
        host, port = self.address
        if not host or not 0 < port < 2**16:
            raise ProcessError(
                f"The coordinator needs a host and a port: got {self.coordinator!r}.\n"
                f"  process {self.index} of {self.count}\n  Write HOST:PORT, such as 10.0.0.1:9876."
            )
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host, without the brackets of IPv6, and port; `("", 0)` where it cannot be read."""
        host, _, port = self.coordinator.rpartition(":")
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0
        return host.removeprefix("[").removesuffix("]"), number

    @property
    def is_local(self) -> bool:
        """Whether all are on this machine, so that nobody else need be let in."""
        host, _ = self.address
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def meet(place: Place, seconds: float | int) -> list[Line]:
    """Waits until all processes have come.

    Args:
      place: This process.
      seconds: How long to wait for the others.

    Returns:
      For process 0 the lines to all others, in their order; for the others the one to process 0.

    Raises:
      ProcessError: If one is missing, comes twice or thinks of another number of processes; if the port is in use or
        nobody answers there.
    """
    return _receive(place, seconds) if place.index == 0 else [_call(place, seconds)]


def _receive(place: Place, seconds: float | int) -> list[Line]:
    deadline = time.monotonic() + seconds
    come: dict[int, Line] = {}
    with _listening(place) as listener, selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        while len(come) < place.count - 1:
            if not waiting.select(max(0.0, deadline - time.monotonic())):
                missing = [str(i) for i in range(1, place.count) if i not in come]
                _refuse(
                    come,
                    f"{place.count} processes should train together, and within {seconds:g} s "
                    f"{_few(missing)} did not come.\n"
                    f"  {place.coordinator}\n"
                    "  Were all started, with this address and this number of processes? --join-seconds waits longer.",
                )
            connection, _ = listener.accept()
            line = Line(connection)
            line.wait_at_most(_HELLO_SECONDS)
            try:
                hello = line.receive()
                if hello.get("hello") != _GREETING:
                    raise ValueError
                index, count = int(hello["index"]), int(hello["count"])
            except (OSError, EOFError, ValueError, KeyError, TypeError):
                line.close()  # whoever that was, it is none of us
                continue
            wrong = None
            if count != place.count:
                wrong = (
                    f"The processes do not agree how many they are: process {index} was started for {count}, "
                    f"process 0 for {place.count}."
                )
            elif index in come or not 0 < index < count:
                wrong = f"There are two processes {index} among {count}."
            if wrong:
                _refuse(
                    {**come, -1: line},
                    f"{wrong}\n  {place.coordinator}\n"
                    "  Start each once, all with the same number of processes and an index of its own.",
                )
            come[index] = line
    # The listener is closed: the port is free for JAX's coordinator.
    for line in come.values():
        line.wait_at_most(None)
        line.try_send({"welcome": place.count})  # who has died since, is told of in a moment
    return [come[index] for index in range(1, place.count)]


def _listening(place: Place) -> socket.socket:
    host, port = place.address
    try:
        if place.is_local:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server(
                ("::1" if ":" in host else "127.0.0.1", port), family=family, backlog=1024
            )
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise ProcessError(
            f"Process 0 cannot listen for the others: {_reason(error)}.\n  {place.coordinator}\n"
            "  Is another process 0 running, or another program at that port? Take another port for all."
        ) from None


def _call(place: Place, seconds: float | int) -> Line:
    host, port = place.address
    deadline = time.monotonic() + seconds
    while True:
        left = max(0.1, deadline - time.monotonic())
        try:
            line = Line(_connected(host, port, left))
            break
        except OSError as error:
            if time.monotonic() + _RETRY_SECONDS >= deadline:
                raise ProcessError(
                    f"Process 0 did not answer within {seconds:g} s: {_reason(error)}.\n"
                    f"  {place.coordinator}, from process {place.index} of {place.count}\n"
                    "  Is it started, is this its address, and may this machine connect to it?"
                ) from None
            time.sleep(_RETRY_SECONDS)
    line.wait_at_most(max(0.0, deadline - time.monotonic()) + _MARGIN_SECONDS)
    reply: dict[str, Any] = {}
    try:
        line.send({"hello": _GREETING, "index": place.index, "count": place.count})
        reply = line.receive()
    except TimeoutError:
        line.close()
        raise ProcessError(
            f"Process 0 was there and did not go on within {seconds:g} s.\n"
            f"  {place.coordinator}, from process {place.index} of {place.count}\n"
            "  What does it say? Perhaps it waits for others: --join-seconds waits longer."
        ) from None
    except (OSError, EOFError, ValueError):
        pass
    if "refused" in reply:
        line.close()
        raise ProcessError(str(reply["refused"]))
    if reply.get("welcome") != place.count:
        line.close()
        raise ProcessError(
            "What answers is no process 0 that waits: it has gone, has all its processes, or is another program.\n"
            f"  {place.coordinator}, from process {place.index} of {place.count}\n"
            "  Start all processes anew, with a port of their own."
        )
    line.wait_at_most(None)
    return line


def _connected(host: str, port: int, seconds: float | int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=seconds)
    if connection.getsockname() == connection.getpeername():
        # Nobody listens, and the kernel has given the very same port to this end: it talks to itself.
        connection.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    return connection


def _reason(error: OSError) -> str:
    known = isinstance(error.errno, int) and error.errno in errno.errorcode
    return os.strerror(error.errno) if known and error.errno else str(error)


def _refuse(come: dict[int, Line], text: str) -> None:
    for line in come.values():
        line.try_send({"refused": text})
        line.close()
    raise ProcessError(text)


def _few(names: list[str]) -> str:
    noun = "process" if len(names) == 1 else "processes"
    return f"{noun} {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")
