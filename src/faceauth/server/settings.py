"""What a service allows: its address, its model, its limits."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from faceauth.server.keys import Key

WILDCARDS = frozenset({"0.0.0.0", "::"})
LEAST = 64_000  # bytes of a body
WINDOWS = 12  # read timeouts in which a whole body has to come
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service allows.

    Attributes:
        host: what it binds to; hosts: further names under which it may be asked for.
        keys: one of them is wanted where there are any.
        workers: processes that judge; memory: bytes of data that each may hold.
        model, false_alarms, whole_image, learned: as for `Detector`.
        teach: whether /v1/learn is there.
        max_bytes: of a request's body; max_held: of all bodies held at once, of which a client has at most half.
        max_files: in a request; max_pixels: of an image, as in `Limits`; max_faces: in an image.
        timeout: seconds that an image may take once a process has it.
        queue: requests that may be judged or wait for it at once.
        rate: images a minute and key; 0 for any number.
        read_timeout: seconds in which the head of a request, and every further `LEAST` bytes of its body, have to come.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    workers: int = 1
    memory: int = 4_000_000_000
    model: str | Path | None = None
    false_alarms: float | None = None
    whole_image: bool = False
    learned: Path | bool = True
    teach: bool = False
    max_bytes: int = 64_000_000
    max_files: int = 64
    max_pixels: int = 50_000_000
    max_faces: int = 64
    timeout: float = 60.0
    queue: int = 64
    rate: int = 600
    read_timeout: float = 10.0

    @property
    def max_held(self) -> int:
        """Bytes of all bodies that are held at once."""
        return 4 * self.max_bytes

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
