"""A program that uses the public types; mypy checks it, and nobody runs it."""

from __future__ import annotations

import concurrent.futures
from typing import Any, assert_type

import freehold as fh


@fh.remote
def scale(x: int, factor: float = 2.0) -> float:
    return x * factor


@fh.remote(num_cpus=0.5, max_retries=1)
def named(text: str) -> str:
    return text


class Counter:
    def __init__(self, start: int) -> None:
        self.n = start

    def add(self, k: int) -> int:
        self.n += k
        return self.n


# mypy lets a class decorator change nothing, so a typed program makes the actor class by a call.
RemoteCounter = fh.remote(Counter)
ref = scale.remote(3, factor=1.5)
assert_type(ref, fh.Ref[float])
assert_type(fh.get(ref), float)
assert_type(fh.get([ref, ref]), list[float])
assert_type(fh.get(ref, timeout=1), float)
assert_type(fh.put([1, 2]), fh.Ref[list[int]])
assert_type(fh.put([1, 2], copies=2), fh.Ref[list[int]])
assert_type(
    fh.wait([ref], num_returns=1, timeout=0.5), tuple[list[fh.Ref[float]], list[fh.Ref[float]]]
)
assert_type(scale.options(num_cpus=2).remote(1), fh.Ref[float])
assert_type(ref.future(), concurrent.futures.Future[float])
assert_type(ref.hex(), str)
assert_type(ref.binary(), bytes)
assert_type(named.remote("t"), fh.Ref[str])
assert_type(named.remote(named.remote("t")), fh.Ref[str])  # a reference arrives as its value
assert_type(scale.remote(ref), fh.Ref[float])
assert_type(scale.remote(3, ref), fh.Ref[float])
assert_type(scale.options(num_cpus=2).remote(fh.put(3), factor=2.0), fh.Ref[float])
assert_type(RemoteCounter, fh.ActorClass[Counter])
assert_type(RemoteCounter.remote(1), fh.ActorHandle)
assert_type(fh.remote(num_cpus=1)(Counter), fh.ActorClass[Counter])
assert_type(fh.is_initialized(), bool)
assert_type(fh.status(), dict[str, Any])
assert_type(fh.get_actor("counter"), fh.ActorHandle)
assert_type(fh.get_actor("counter", namespace="all"), fh.ActorHandle)
assert_type(fh.list_named_actors(), list[str])
assert_type(fh.nodes(), list[dict[str, Any]])
assert_type(fh.cluster_resources(), dict[str, float])
assert_type(fh.available_resources(), dict[str, float])
group = fh.placement_group([{"CPU": 1}, {"GPU": 1}], strategy="SPREAD", name="pair")
assert_type(group, fh.PlacementGroup)
assert_type(fh.get(group.ready()), fh.PlacementGroup)
assert_type(group.wait(timeout=1.0), bool)
assert_type(group.bundle_specs, list[dict[str, float]])
assert_type(group.id, str)
assert_type(scale.options(placement_group=group, bundle_index=0).remote(1), fh.Ref[float])
fh.remove_placement_group(group)
assert_type(fh.NodeAffinity("00", soft=True).soft, bool)


async def main() -> None:
    assert_type(await ref, float)


def widened(r: fh.Ref[bool]) -> fh.Ref[int]:
    return r  # a reference to a bool is one to an int


scale.remote("3")  # E: call-overload
scale.remote(1, 2.0, 3)  # E: call-overload
scale.remote(1, fraction=2)  # E: call-overload
scale.remote()  # E: call-overload
fh.get((ref, ref))  # E: call-overload
fh.get(5)  # E: call-overload
fh.get([1, 2])  # E: arg-type
fh.get(ref, 1.0)  # E: call-overload
fh.wait((ref,))  # E: arg-type
fh.kill(ref)  # E: arg-type
fh.remote(5)  # E: call-overload
fh.get_actor(5)  # E: arg-type
fh.placement_group({"CPU": 1})  # E: arg-type
fh.remove_placement_group("group")  # E: arg-type
named.remote(5)  # E: call-overload
