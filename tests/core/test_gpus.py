"""Which GPUs a lease gets: whole ones alone, parts together, and nothing is given twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.node.gpus import Devices, gpus_in


def test_whole_devices_are_taken_by_number_and_come_back() -> None:
    devices = Devices(3.0)
    assert devices.take(2.0) == [0, 1]
    assert devices.find(2.0) is None
    assert devices.take(1.0) == [2]
    devices.give(2.0, [0, 1])
    assert devices.find(2.0) == [0, 1]


def test_parts_fill_a_device_before_the_next_is_broken() -> None:
    devices = Devices(2.0)
    assert [devices.take(0.5) for _ in range(3)] == [[0], [0], [1]]
    assert devices.find(1.0) is None  # there is one in all, but not in one piece
    devices.give(0.5, [1])
    assert devices.take(1.0) == [1]


def test_thirds_of_a_device_are_three() -> None:
    devices = Devices(1.0)
    assert [devices.take(1 / 3) for _ in range(3)] == [[0]] * 3
    assert devices.find(0.1) is None


def test_a_node_may_have_a_part_of_a_device() -> None:
    devices = Devices(1.5)
    assert devices.take(0.5) == [1]
    assert devices.take(1.0) == [0]


def test_no_gpus_are_no_devices() -> None:
    assert Devices(0.0).find(0.0) == []
    assert Devices(0.0).find(0.5) is None


@pytest.mark.parametrize(
    ("resources", "amount"),
    [({}, 0.0), ({"GPU": 2.0}, 2.0), ({"GPU/aa": 0.5, "GPU/aa/1": 0.5, "CPU/aa": 1.0}, 0.5)],
)
def test_a_group_s_gpus_count(resources: dict[str, float], amount: float) -> None:
    assert gpus_in(resources) == amount


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, -1.0]), max_size=40))
def test_no_device_is_ever_overfull(steps: list[float]) -> None:
    devices = Devices(3.0)
    leases: list[tuple[float, list[int]]] = []
    for amount in steps:
        if amount < 0 and leases:
            devices.give(*leases.pop(0))
        elif amount > 0 and devices.find(amount) is not None:
            leases.append((amount, devices.take(amount)))
        used = [3.0 - sum(devices.free), sum(amount for amount, _ in leases)]
        assert used[0] == pytest.approx(used[1])
        assert all(-1e-9 <= left <= 1 + 1e-9 for left in devices.free)
        whole = [number for amount, found in leases if amount >= 1 for number in found]
        assert len(whole) == len(set(whole))
