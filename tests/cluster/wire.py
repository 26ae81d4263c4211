"""A wire between two network devices that takes its time: frames are carried by hand, and late.

The kernel's own means (``netem``) is not everywhere.  The wire reads frames from each of the two
devices and writes them to the other one, in order, ``delay_s`` later.  What sends through it must
send whole frames: see ``send_whole_frames``.
"""

from __future__ import annotations

import array
import collections
import contextlib
import fcntl
import select
import socket
import struct
import threading
import time

ALL = 0x0003  # ETH_P_ALL
OUTGOING = 4  # PACKET_OUTGOING: a frame that was sent, rather than has come
FRAME_MAX = 1 << 16
LOOK_S = 0.1  # until the thread sees that it is to end
SIOCETHTOOL = 0x8946
NO_CHECKSUM_OFFLOAD = 0x17  # ETHTOOL_STXCSUM; segmentation goes with it


class Wire:
    """Two devices of the namespace of the thread that makes it, joined until it is closed."""

    def __init__(self, one: str, other: str, delay_s: float) -> None:
        self.delay_s = delay_s
        self._ends = [_listen(one), _listen(other)]
        self._late: collections.deque[tuple[float, socket.socket, bytes]] = collections.deque()
        self._over = False
        self._thread = threading.Thread(target=self._carry, name=f"wire {one} {other}")
        self._thread.start()

    def close(self) -> None:
        """Carry nothing any more."""
        self._over = True
        self._thread.join()
        for end in self._ends:
            end.close()

    def _carry(self) -> None:
        one, other = self._ends
        across = {one: other, other: one}
        while not self._over:
            rest = self._late[0][0] - time.monotonic() if self._late else LOOK_S
            ready, _, _ = select.select(self._ends, [], [], max(0.0, min(rest, LOOK_S)))
            due = time.monotonic() + self.delay_s
            for end in ready:
                with contextlib.suppress(OSError):  # the device is down
                    frame, address = end.recvfrom(FRAME_MAX)
                    if address[2] != OUTGOING:
                        self._late.append((due, across[end], frame))
            while self._late and self._late[0][0] <= time.monotonic():
                _, end, frame = self._late.popleft()
                with contextlib.suppress(OSError):  # down, or its queue is full: it is lost
                    end.send(frame)


def _listen(device: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    sock.bind((device, ALL))
    sock.setblocking(False)
    return sock


def send_whole_frames(device: str) -> None:
    """Have that device of this thread's namespace leave no checksum and no cutting to others."""
    value = array.array("I", [NO_CHECKSUM_OFFLOAD, 0])
    request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, request)
