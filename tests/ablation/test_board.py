"""The screen: one table in a terminal, lines elsewhere, nothing when quiet, no colour where none is wanted."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from griffin_eqx.ablation.board import Board
from griffin_eqx.ablation.campaign import Campaign, Live
from griffin_eqx.ablation.design import possible_runs
from griffin_eqx.ablation.messages import Crashed, Finished
from griffin_eqx.ablation.schedule import Broken, Done
from griffin_eqx.training.outcome import SetOutcome

from .designs import make_cell, make_design
from .test_schedule import FakeExecutor

pytestmark = pytest.mark.core


def outcome(value):
    return SetOutcome(
        split="validation",
        name="length 16",
        seq_len=16,
        rows=1,
        targets=1,
        bytes=0,
        loss=value,
        bits_per_byte=None,
        accuracy=value,
        exact=value,
        by_position=(),
    )


@pytest.fixture
def campaign(tmp_path):
    """One cell done but for a failure, one under way, one that waits."""
    import random

    cells = [make_cell(name, "copy", steps=1500, learning_rates=(1e-3, 3e-3)) for name in ("hawk", "griffin")]
    cells.append(make_cell("mqa", "text", steps=1500, metric="loss"))
    design = make_design(cells, seeds=(0, 1))
    campaign = Campaign(tmp_path, design, FakeExecutor(Path(), None, random.Random(0)))
    hawk, griffin = (list(possible_runs(design, cell)) for cell in cells[:2])
    campaign.ends[hawk[0].path] = Done(outcome(0.9375))
    campaign.ends[hawk[2].path] = Broken("diverged", "Training stopped being finite: step 3.\n  more")
    for run in (hawk[1], griffin[0]):
        campaign.live[run.path] = Live(run, campaign._cells[run.path], time.monotonic())
    live = campaign.live[hawk[1].path]
    live.first_step, live.step, live.loss = 1, 700, 1.25
    return campaign


def screen(**options):
    return Console(file=io.StringIO(), width=100, height=20, highlight=False, **options)


def shown(console):
    return console.file.getvalue()


def test_a_terminal_has_one_table(campaign):
    console = screen(force_terminal=True, color_system=None)
    with Board(console=console) as board:
        board.watch(campaign)
        board.heard(None, None)
        text = shown(console)
    rows = [" ".join(line.split()) for line in text.replace("\x1b[?25l", "").splitlines()]
    assert rows[:4] == [
        "variant task runs best now",
        "hawk copy 2/3 1 failed 93.8 % lr 0.001 seed 1: step 700/1,500, loss 1.250",
        "griffin copy 0/3 lr 0.001 seed 0: starts, compiles, 0 s",
        "mqa text 0/2 waits",
    ]
    assert "2 of 8 runs, 0:00, measuring how long it takes" in text


def test_elsewhere_there_are_lines(campaign, monkeypatch):
    console = screen()
    board = Board(console=console)
    board.watch(campaign)
    hawk = list(possible_runs(campaign.design, campaign.design.cells[0]))
    board.heard(hawk[0], Finished())
    board.heard(hawk[2], Finished())
    board.heard(hawk[1], Crashed(reason="it died"))
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    board.heard(None, None)
    lines = shown(console).splitlines()
    assert lines[:3] == [
        "2/8  hawk on copy, lr 0.001 seed 0: 93.8 % on validation",
        "2/8  hawk on copy, lr 0.003 seed 0: diverged: Training stopped being finite: step 3.",
        "hawk on copy, lr 0.001 seed 1: it died; tried again",
    ]
    assert lines[3] == "  hawk on copy, lr 0.001 seed 1: step 700/1,500, loss 1.250"
    assert "\x1b" not in shown(console)


def test_colour_is_left_out_where_it_is_not_wanted(campaign, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console = screen(force_terminal=True)
    console.print(Board(console=console)._table(campaign))
    assert "\x1b[31m" not in shown(console)


def test_quiet_prints_nothing(campaign, capsys):
    with Board(quiet=True) as board:
        board.watch(campaign)
        for run in possible_runs(campaign.design, campaign.design.cells[0]):
            board.heard(run, Finished())
        board.say("nothing")
    assert capsys.readouterr() == ("", "")
