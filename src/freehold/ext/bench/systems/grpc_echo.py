"""A gRPC echo: generic handlers over bytes, another process, a Unix socket, no generated code.

The server half runs as `python -m systems.grpc_echo SOCKET KIND`.
"""

import asyncio
import importlib
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .plan import CPUS, IN_FLIGHT, Plan, System

BURST = 100
THREADS = 10
LARGE_IN_FLIGHT = 50
SERVICE, METHOD = "bench.Echo", "Call"
UNLIMITED = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


def _handlers(grpc: Any, function: Any) -> tuple[Any, ...]:
    handler = grpc.unary_unary_rpc_method_handler(function)
    return (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)


async def _serve_async(grpc: Any, address: str) -> None:
    aio: Any = importlib.import_module("grpc.aio")

    async def nap(_request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(0.01)
        return b""

    server = aio.server(options=UNLIMITED)
    server.add_generic_rpc_handlers(_handlers(grpc, nap))
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


def _serve_blocking(grpc: Any, address: str) -> None:
    server = grpc.server(ThreadPoolExecutor(CPUS), options=UNLIMITED)
    server.add_generic_rpc_handlers(_handlers(grpc, lambda request, _context: request[:100]))
    server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


class _Client:
    """Two servers and a channel to each."""

    def __init__(self, grpc: Any) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.grpc = grpc
        self.children: list[subprocess.Popen[bytes]] = []
        self.channels: list[Any] = []
        self.echo = self._connect("blocking")
        self.nap = self._connect("async")

    def _connect(self, kind: str) -> Any:
        address = "unix:" + os.path.join(self.place.name, kind)
        command = [sys.executable, "-m", "systems.grpc_echo", address, kind]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.children.append(child)
        assert child.stdout is not None
        if child.stdout.readline().strip() != b"ready":
            raise RuntimeError("the gRPC server did not start")
        channel = self.grpc.insecure_channel(address, options=UNLIMITED)
        self.channels.append(channel)
        return channel.unary_unary(f"/{SERVICE}/{METHOD}")

    def one_at_a_time(self) -> None:
        """BURST calls."""
        for _ in range(BURST):
            self.echo(b"call")

    @staticmethod
    def many(call: Any, number: int, body: bytes) -> None:
        """`number` calls in flight."""
        for future in [call.future(body) for _ in range(number)]:
            future.result()

    def from_threads(self) -> None:
        """BURST calls in flight from each of ten threads."""
        args = (self.echo, BURST, b"call")
        threads = [threading.Thread(target=self.many, args=args) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """End both servers."""
        for channel in self.channels:
            channel.close()
        for child in self.children:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        self.place.cleanup()


def system() -> System:
    """The echo as a system; its calls stand both for tasks and for actor calls."""
    grpc: Any = importlib.import_module("grpc")
    made: list[_Client] = []

    def warm() -> None:
        made[0].one_at_a_time()

    def stop() -> None:
        while made:
            made.pop().close()

    def sync(plan: Plan) -> float:
        return plan.rate(made[0].one_at_a_time, BURST)

    def in_flight(plan: Plan) -> float:
        return plan.rate(lambda: made[0].many(made[0].echo, IN_FLIGHT, b"call"), IN_FLIGHT)

    def awaits(plan: Plan) -> float:
        return plan.rate(lambda: made[0].many(made[0].nap, IN_FLIGHT, b"call"), IN_FLIGHT)

    def large(plan: Plan) -> float:
        numpy: Any = importlib.import_module("numpy")

        array = numpy.ones(1_000_000, dtype=numpy.uint8)
        many = LARGE_IN_FLIGHT
        return plan.rate(lambda: made[0].many(made[0].echo, many, array.tobytes()), many)

    return System(
        version=grpc.__version__,
        start=lambda: made.append(_Client(grpc)),
        stop=stop,
        warm=warm,
        probes={
            "task_sync": sync,
            "task_1000": in_flight,
            "actor_sync": sync,
            "actor_1000": in_flight,
            "async_1000": awaits,
            "arg_value": large,
            "threads_10": lambda plan: plan.rate(made[0].from_threads, THREADS * BURST),
        },
    )


def main(argv: list[str]) -> None:
    """Serve on the socket `argv[0]`; `argv[1]` says which kind of server."""
    grpc: Any = importlib.import_module("grpc")
    if argv[1] == "async":
        asyncio.run(_serve_async(grpc, argv[0]))
    else:
        _serve_blocking(grpc, argv[0])


if __name__ == "__main__":
    main(sys.argv[1:])
