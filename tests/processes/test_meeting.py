"""Who is to train together meets, or everybody is told what is wrong."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx.processes.meeting import Place, ProcessError, meet
from tests.processes.ports import free_port


def all_meet(*places, seconds=5.0):
    """What `meet` gives, or the error that it raises, for each place in the order given."""

    def one(place):
        try:
            return meet(place.checked(), seconds)
        except ProcessError as error:
            return error

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, places))


def places(count, order=None):
    address = f"127.0.0.1:{free_port()}"
    return [Place(address, count, index) for index in order or range(count)]


@settings(max_examples=5)
@given(st.integers(2, 5).flatmap(lambda count: st.permutations(range(count))))
def test_processes_meet_in_whatever_order_they_start(order):
    lines = {}
    for index, found in zip(order, all_meet(*places(len(order), order)), strict=True):
        assert not isinstance(found, ProcessError), found
        lines[index] = found
    for index in range(1, len(order)):
        lines[0][index - 1].send({"for": index})
    for index in range(1, len(order)):
        assert lines[index][0].receive() == {"for": index}
    for line in (line for each in lines.values() for line in each):
        line.close()


def test_nobody_answers():
    started = time.monotonic()
    (error,) = all_meet(places(2)[1], seconds=0.5)
    assert str(error).startswith("Process 0 did not answer within 0.5 s: Connection refused.\n  127.0.0.1:")
    assert "from process 1 of 2\n  Is it started" in str(error)
    assert time.monotonic() - started < 3


def test_one_that_never_comes_is_named_to_all_who_came():
    zero, one, _, three = places(4)
    errors = all_meet(zero, one, three, seconds=1)
    text = "4 processes should train together, and within 1 s process 2 did not come.\n"
    assert all(str(error).startswith(text) for error in errors)


def test_one_that_comes_twice_is_refused_with_all():
    zero, one, _ = places(3)
    errors = all_meet(zero, one, one)
    assert all(str(error).startswith("There are two processes 1 among 3.\n") for error in errors)


def test_two_that_listen_are_one_too_many():
    zero = places(2)[0]
    first, second = sorted(map(str, all_meet(zero, zero, seconds=1)))
    assert first.startswith("2 processes should train together")
    assert second.startswith("Process 0 cannot listen for the others: Address already in use.\n")


def test_processes_that_count_differently_are_refused():
    zero = places(2)[0]
    errors = all_meet(zero, Place(zero.coordinator, 3, 1))
    text = "The processes do not agree how many they are: process 1 was started for 3, process 0 for 2.\n"
    assert all(str(error).startswith(text) for error in errors)


def test_a_stranger_that_knocks_is_let_go():
    zero, one = places(2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(meet, zero, 10.0)
        for said in (b"GET / HTTP/1.1\r\n\r\n", b'{"hello": 1, "index": []}\n', b"\xff\n", b""):
            for _ in range(100):
                try:
                    with socket.create_connection(zero.address, timeout=5) as stranger:
                        stranger.sendall(said)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)
        (line,) = meet(one, 10.0)
        (other,) = waiting.result()
    line.close()
    other.close()


def test_another_program_at_the_port_is_not_taken_for_process_0():
    zero, one = places(2)
    with socket.create_server(zero.address) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(all_meet, one)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            (error,) = waiting.result()
    assert str(error).startswith("What answers is no process 0 that waits")


@pytest.mark.parametrize(
    ("place", "part"),
    [
        (Place("a:1", 2, 2), "There is no process 2 among 2."),
        (Place("a:1", 2, -1), "There is no process -1 among 2."),
        (Place("a:1", 0, 0), "There is no process 0 among 0."),
        (Place("host", 2, 0), "needs a host and a port: got 'host'"),
        (Place(":80", 2, 0), "needs a host and a port: got ':80'"),
        (Place("host:99999", 2, 0), "needs a host and a port: got 'host:99999'"),
    ],
)
def test_what_is_no_place_is_refused_before_anything_is_tried(place, part):
    with pytest.raises(ProcessError, match=part):
        place.checked()


def test_only_this_machine_is_let_in_where_all_are_on_it():
    local = ["localhost:1", "127.0.0.1:1", "[::1]:1", "127.8.9.1:1"]
    assert all(Place(address, 2, 0).is_local for address in local)
    assert not any(Place(address, 2, 0).is_local for address in ("10.0.0.1:1", "node001:1", "[fe80::1]:1"))
    assert Place("[fe80::1]:80", 2, 0).address == ("fe80::1", 80)
