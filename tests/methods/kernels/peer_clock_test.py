# SPDX-License-Identifier: Apache-2.0
"""Does the clock of Python peers hide the launch, and does it say so where it cannot? On a device made up for
it: one queue, a flush takes 0.2 ms, and the host's time passes only when a test says so."""
import importlib.util
import pathlib
import sys
import types

import pytest

PEERS = pathlib.Path(__file__).resolve().parents[3] / "methods/kernels/peers"


class FakeTorch:
    """What CudaClock uses of torch; milliseconds."""

    uint8 = "uint8"

    def __init__(self):
        self.host = self.device = 0.0  # the host's time; when the device will have done what is queued
        self.flushed = 0
        self.cuda = types.SimpleNamespace(Event=lambda enable_timing: Event(self), synchronize=self.synchronize)

    def empty(self, *_, **__):
        return types.SimpleNamespace(zero_=self.flush)

    def flush(self):
        self.flushed += 1
        self.launch(0.2)

    def launch(self, milliseconds):
        self.device = max(self.device, self.host) + milliseconds

    def synchronize(self):
        self.host = max(self.host, self.device)


class Event:
    def __init__(self, torch):
        self.torch, self.at = torch, None

    def record(self):
        self.at = max(self.torch.device, self.torch.host)

    def query(self):
        return self.at <= self.torch.host

    def elapsed_time(self, other):
        return other.at - self.at


@pytest.fixture
def tensors(monkeypatch):
    plan = types.ModuleType("raingauge_plan")
    plan.Unsupported = Exception
    monkeypatch.setitem(sys.modules, "raingauge_plan", plan)
    spec = importlib.util.spec_from_file_location("raingauge_tensors", PEERS / "tensors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sample(tensors, torch, launching, working=0.05):
    """One phase whose launch takes the host `launching` ms and the device `working` ms."""
    clock = tensors.CudaClock(torch)
    torch.host += launching
    torch.launch(working)
    clock.mark()
    return clock.phases()[0], clock.launch_hidden


def test_a_launch_shorter_than_the_flush_is_no_part_of_the_time(tensors):
    torch = FakeTorch()
    time, hidden = sample(tensors, torch, 0.3)
    assert hidden and time == pytest.approx(0.05) and torch.flushed == tensors.FLUSHES


def test_a_longer_launch_is_noticed_and_then_hidden(tensors):
    torch = FakeTorch()
    time, hidden = sample(tensors, torch, 3.0)
    assert not hidden and time == pytest.approx(3.0 - 0.8 + 0.05)
    tries = [sample(tensors, torch, 3.0) for _ in range(3)]
    assert [hidden for _, hidden in tries] == [False, True, True]
    assert tries[-1][0] == pytest.approx(0.05)


def test_what_waits_for_the_device_is_never_hidden_and_the_flush_has_an_end(tensors):
    torch = FakeTorch()
    for _ in range(12):
        clock = tensors.CudaClock(torch)
        torch.launch(1.0)
        torch.synchronize()
        clock.mark()
        clock.phases()
        assert not clock.launch_hidden
    assert tensors.CudaClock.flushes == tensors.MOST_FLUSHES


def test_the_hosts_clock_has_nothing_to_hide(tensors):
    clock = tensors.Clock()
    clock.mark()
    assert clock.launch_hidden and clock.phases()[0] >= 0
