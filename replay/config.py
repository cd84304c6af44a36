"""`ReplayConfig`: how episodes are cut into windows, what the tables hold and how the server is reached."""

from __future__ import annotations

import dataclasses
import ipaddress

from agent.task import TaskSpec


@dataclasses.dataclass
class ReplayConfig:
    """Settings of the replay server, its writers and its samplers.

    Attributes:
        window_length: steps S of a full window; a multiple of 16, at least the longest context in use.
        window_stride: steps between the starts of consecutive windows; divides ``window_length``, so that every step is
            in ``window_length / window_stride`` windows.
        online_capacity, demonstrations_capacity, good_capacity, ends_capacity: windows a table of that source holds for
            each task before its oldest leave. Demonstrations must fit whole: a set of N steps in E episodes makes about
            ``(N + E * (window_length - 1)) / window_stride`` windows.
        best_capacity: windows of the run's own episodes with the highest returns, for each task, of which those of the
            lowest leave first; 0: there is no such table.
        samples_per_insert: None lets writers insert freely and the oldest windows leave. A number makes inserts into
            ``online`` wait until each window has been sampled that often on average; sampling never waits for it.
        insert_slack: windows that ``online`` takes beyond that ratio before inserts wait; at least one longest episode
            per environment.
        ends: keep the last window of each episode in a table of its own (goal prompts).
        keep_alive_windows: of how many windows of an episode the writer keeps hold until the episode is known to be
            good; only the last so many of a longer episode can become good.
        pending_windows: windows a writer may have unconfirmed before a write waits; Reverb warns above 50.
        host: IPv4 address the server listens on and is reached at; 0.0.0.0 listens on all.
        allow_public: whether ``host`` may be one that other machines reach. Reverb has no authentication: whoever
            reaches the port can read and write, so only behind the firewall rule of docs/security.md.
        port: of the server; 0 takes a free one.
        loader: ``light`` talks to Reverb without TensorFlow's Python (about 60 MB a process rather than 450), ``plain``
            imports ``reverb`` itself, ``auto`` is light where its symbols are found and plain otherwise.
        start_deadline: seconds within which the server must be ready.
        write_deadline: seconds a write may wait for the server or for a limited table before it fails.
        poll_seconds: seconds between looks at the tables' sizes.
        sampler_buffer: windows Reverb fetches ahead for a sampler, of one snapshot of the table.
        sampler_queue: decoded windows a sampler holds ready. What is fetched ahead ages: a batch is drawn up to
            ``sampler_buffer + sampler_queue`` windows before it is learned from.
        max_gigabytes: a run whose tables, when full, are estimated to need more is refused.
    """

    window_length: int = 16
    window_stride: int = 8
    online_capacity: int = 10_000
    demonstrations_capacity: int = 200_000
    good_capacity: int = 10_000
    ends_capacity: int = 1_000
    best_capacity: int = 0
    samples_per_insert: float | None = None
    insert_slack: int = 2_000
    ends: bool = True
    keep_alive_windows: int = 512
    pending_windows: int = 32
    host: str = "127.0.0.1"
    allow_public: bool = False
    port: int = 0
    loader: str = "auto"
    start_deadline: float = 90.0
    write_deadline: float = 120.0
    poll_seconds: float = 1.0
    sampler_buffer: int = 4
    sampler_queue: int = 16
    max_gigabytes: float = 16.0

    def __post_init__(self) -> None:
        if self.window_length < 16 or self.window_length % 16:
            raise ValueError(f"replay.window_length must be a multiple of 16, not {self.window_length}")
        if self.window_stride < 1 or self.window_length % self.window_stride:
            raise ValueError(
                f"replay.window_stride must divide window_length ({self.window_length}), not {self.window_stride}: "
                "otherwise some steps are in more windows than others"
            )
        if self.loader not in ("light", "plain", "auto"):
            raise ValueError(f"replay.loader must be light, plain or auto, not {self.loader!r}")
        for name in (
            "online_capacity", "demonstrations_capacity", "good_capacity", "ends_capacity", "insert_slack",
            "keep_alive_windows", "pending_windows", "sampler_buffer", "sampler_queue",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"replay.{name} must be at least 1, not {getattr(self, name)}")
        if self.best_capacity < 0:
            raise ValueError(f"replay.best_capacity must not be negative, not {self.best_capacity}")
        for name in ("start_deadline", "write_deadline", "poll_seconds", "max_gigabytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"replay.{name} must be above 0, not {getattr(self, name)}")
        if self.samples_per_insert is not None and not self.samples_per_insert > 0:
            raise ValueError(f"replay.samples_per_insert must be above 0 or null, not {self.samples_per_insert}")
        if not 0 <= self.port < 65536:
            raise ValueError(f"replay.port must be between 0 and 65535, not {self.port}")
        try:
            address = ipaddress.IPv4Address(self.host)
        except ValueError:
            raise ValueError(f"replay.host must be an IPv4 address of this machine, not {self.host!r}") from None
        if not address.is_loopback and not self.allow_public:
            raise ValueError(
                f"replay.host={self.host} lets other machines in, and Reverb asks nobody for a token: whoever reaches "
                "its port can read and write what is learned from. Leave it at 127.0.0.1, or set "
                "replay.allow_public=true and a replay.port, and have the firewall admit to that port the machines of "
                "your cluster alone, such as: iptables -A INPUT -p tcp --dport PORT ! -s CLUSTER_SUBNET -j DROP (see "
                "docs/security.md)"
            )

    def span(self, task: TaskSpec) -> tuple[int, int]:
        """Length and stride of a task's windows: 1 and 1 where its episodes are one step."""
        return (1, 1) if task.max_episode_steps == 1 else (self.window_length, self.window_stride)

    def capacity(self, source: str) -> int:
        """Windows a table of that source (see `replay.tables.SOURCES`) holds for each task."""
        capacities = {
            "online": self.online_capacity,
            "demonstrations": self.demonstrations_capacity,
            "good": self.good_capacity,
            "ends": self.ends_capacity if self.ends else 0,
            "best": self.best_capacity,
        }
        return capacities[source]
