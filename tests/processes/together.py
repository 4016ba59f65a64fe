import socket
from concurrent.futures import ThreadPoolExecutor

from griffin_eqx.processes import Group
from griffin_eqx.processes.line import Line


def line_of_two():
    """Both ends of a line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return Line(one), Line(other)


class Together:
    """Groups as of so many processes, a thread for each."""

    def __init__(self, count):
        self.lines = [line_of_two() for _ in range(count - 1)]
        first = Group(0, count, [line for line, _ in self.lines])
        self.groups = [
            first,
            *(Group(index, count, [line]) for index, (_, line) in enumerate(self.lines, 1)),
        ]

    def each(self, work):
        with ThreadPoolExecutor(len(self.groups)) as pool:
            return list(pool.map(work, self.groups))

    def close(self):
        for line in (line for pair in self.lines for line in pair):
            line.close()
