"""What `Fleet` makes of processes that die, say nothing or have no room: small ones in a Ray of their own."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
import ray

from distributed.cluster_config import ClusterConfig
from distributed.deaths import Deaths, FleetFailure
from distributed.fleet import Fleet
from distributed.member import Member
from distributed.process_environment import set_process_environment
from distributed.processes import ParameterStoreProcess, spawn
from distributed.ray_cluster import leave, start_private
from distributed.ray_state import actor_process, machine
from distributed.store_supervisor import StoreSupervisor
from distributed.weight_exchange import RayWeightLink
from learner.learner import Diverged


def make_part() -> type:
    """A class that workers need not import."""
    diverged = Diverged

    class Part:
        def __init__(self) -> None:
            self.stopped = False
            self.beat = 0

        def build(self) -> None:
            pass

        def run(self, ends: str) -> dict:
            import time

            if ends == "diverges":
                raise diverged("no finite loss in 10 updates in a row")
            if ends == "dies":
                raise RuntimeError("it fell over")
            while not self.stopped:
                self.beat += 1
                time.sleep(0.05)
            return self.report() | {"phase": "done"}

        def report(self, slow: float = 0.0) -> dict:
            import os
            import time

            import ray

            time.sleep(slow)
            here = {"pid": os.getpid(), "machine": ray.get_runtime_context().get_node_id()}
            return {"phase": "working", "beat": self.beat, "waits": ()} | here

        def stop(self) -> None:
            self.stopped = True

    return Part


QUICK = ClusterConfig(
    report_seconds=0.2, start_deadline_seconds=12.0, answer_deadline_seconds=4.0, stall_deadline_seconds=6.0, restarts=0
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray with one core."""
    set_process_environment()
    start_private(num_cpus=1, object_store_megabytes=80)
    yield
    leave()


class Told:
    """A fleet and what it said."""

    def __init__(self, config: ClusterConfig = QUICK, dispensable: bool = False) -> None:
        self.said: list[str] = []
        self.fleet = Fleet(config, lambda member: None, self.said.append, lambda member: dispensable)

    def add(self, name: str, cpus: float = 0.0, ends: str = "", slow: float = 0.0) -> Member:
        part = make_part()
        member = Member(
            name, start=lambda: spawn(part, cpus=cpus), arguments=lambda: (ends,), ask=lambda: (slow,), kept=True
        )
        self.fleet.add(member)
        self.fleet.run([member])
        return member

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            self.fleet.poll(0.1)
            assert time.monotonic() < end, (self.said, [vars(member) for member in self.fleet.members])


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    end = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def told(cluster: None) -> Iterator[Told]:
    made = Told()
    yield made
    made.fleet.dismiss(list(made.fleet.members))


def test_deaths_are_forgotten_after_minutes_of_work_and_not_of_time() -> None:
    config = ClusterConfig(restarts=2, restart_minutes=1.0)
    works, never, free = Deaths(), Deaths(), Deaths()
    assert [works.add(config, 31.0) for _ in range(10)] == [0.5] * 10  # at most two in any minute of its work
    assert [never.add(config, 0.0) for _ in range(3)] == [1.0, 2.0, None]  # however long each of them took
    assert all(free.add(config, 0.0, free=True) is not None for _ in range(10))
    assert free.add(config, 0.0) == 30.0  # waits have grown all the same
    assert "died 3 times in 1 minutes of work (cluster.restarts=2)" in never.describe(config)


def test_what_would_only_come_again_ends_the_run_at_once(told: Told) -> None:
    told.fleet.config = ClusterConfig(report_seconds=0.2, restarts=5)
    member = told.add("learner/0", ends="diverges")
    with pytest.raises(FleetFailure, match=r"learner/0 ended the run: .*no finite loss in 10 updates"):
        told.until(lambda: False)
    assert not told.said and not member.deaths.at
    assert (
        ray.get(member.handle.report.remote(), timeout=10)["phase"] == "working"
    )  # what it learned can still be saved


@pytest.mark.long
def test_a_crash_is_tried_again_within_the_budget(told: Told) -> None:
    told.fleet.config = ClusterConfig(report_seconds=0.2, restarts=1)
    told.add("learner/0", ends="dies")
    with pytest.raises(FleetFailure, match=r"died 2 times .* it fell over"):
        told.until(lambda: False)
    assert "starts again in 1.0 s" in told.said[0] and told.fleet.restarts == 1


@pytest.mark.long
def test_room_is_waited_for_and_that_is_no_death(cluster: None) -> None:
    told = Told(dispensable=True)
    first = told.add("environment_actor/x-0", cpus=1.0)
    told.until(lambda: first.alive)
    second = told.add("environment_actor/x-1", cpus=1.0)
    told.until(lambda: told.said)
    assert re.match(r"environment_actor/x-1 has waited 1\d s for room in the cluster; free now: ", told.said[0])
    waited = time.monotonic()
    told.until(lambda: time.monotonic() - waited > 14)
    assert len(told.said) == 1 and not second.deaths.at and not second.lost
    told.fleet.dismiss([first])
    told.until(lambda: second.alive)
    told.fleet.dismiss([second])


@pytest.mark.long
def test_what_a_run_cannot_do_without_must_have_room_at_first(told: Told) -> None:
    first = told.add("learner/0", cpus=1.0)
    told.until(lambda: first.alive)
    told.add("environment_actor/x-0", cpus=1.0)
    with pytest.raises(FleetFailure, match=r"x-0 has waited 1\d s for room .* or ask for less \(cluster\.\*_cpus"):
        told.until(lambda: False)


@pytest.mark.long
def test_a_process_that_runs_and_has_never_answered_is_killed_by_its_id(told: Told) -> None:
    member = told.add("learner/0", slow=60.0)
    told.until(lambda: actor_process(member.handle) is not None)
    pid, _ = actor_process(member.handle)
    told.until(lambda: psutil.Process(pid).cmdline()[0].startswith("ray::Part"))
    os.kill(pid, signal.SIGSTOP)  # then it does not hear that Ray would have it end
    with pytest.raises(FleetFailure, match=r"it did not start within cluster.start_deadline_seconds=12"):
        told.until(lambda: False)
    assert member.handle is None and gone(pid)


@pytest.mark.long
def test_a_coordinator_that_stood_still_longer_than_all_deadlines_replaces_nobody(told: Told) -> None:
    members = [told.add(f"environment_actor/x-{number}", slow=0.5) for number in range(3)]
    told.until(lambda: all(member.alive for member in members))
    told.until(lambda: all(member.asked is not None for member in members))
    time.sleep(8.0)  # nobody looks; cluster.answer_deadline_seconds is 4, cluster.stall_deadline_seconds 6
    for _ in range(20):
        told.fleet.poll(0.1)
    assert not told.said and all(member.alive and not member.deaths.at for member in members)


def test_a_member_that_moves_ends_in_order_and_starts_again_without_a_death(told: Told) -> None:
    had: list[str] = []
    member = told.add("learner/0")

    def farewell() -> ray.ObjectRef:
        had.append(member.report["phase"])
        return member.handle.report.remote()

    member.farewell = farewell
    told.until(lambda: member.alive)
    pid = member.report["pid"]
    told.fleet.move(member, 10.0)
    told.until(lambda: member.alive and member.report["pid"] != pid)
    assert had == ["done"] and not member.deaths.at and not member.finished
    assert "moves: its machine is to be taken away" in told.said[0]
    told.until(lambda: len(told.said) == 2)
    assert "learner/0 is back after" in told.said[1]


@pytest.mark.long
def test_a_member_that_moves_when_the_fleet_stops_is_not_started_again(told: Told) -> None:
    members = [told.add(f"environment_actor/x-{number}") for number in range(2)]
    members[1].farewell = lambda: members[1].handle.report.remote(2.0)
    told.until(lambda: all(member.alive for member in members))
    for member in members:
        told.fleet.move(member, 10.0)
    told.until(lambda: members[1].parting)
    assert told.fleet.stop(members, 10.0) == []
    assert all(member.finished and member.running is None for member in members if member.handle is not None)
    processes = [actor_process(member.handle) for member in members if member.handle is not None]
    told.fleet.dismiss(members)
    assert all(gone(found[0]) for found in processes if found is not None)


@pytest.mark.long
def test_a_death_on_a_machine_that_is_taken_away_does_not_count(told: Told) -> None:
    member = told.add("environment_actor/x-0")
    told.until(lambda: member.alive)
    pid = member.report["pid"]
    os.kill(pid, signal.SIGSTOP)
    told.fleet.move(member, 60.0)
    told.until(lambda: member.alive and member.report["pid"] != pid)
    assert not member.deaths.at and member.moving is None and not member.lost


def test_a_member_that_is_sent_away_while_it_moves_goes(told: Told) -> None:
    member = told.add("environment_actor/x-0")
    told.until(lambda: member.alive)
    told.fleet.move(member, 60.0)
    told.fleet.retire(member, 20.0)
    told.until(lambda: member not in told.fleet.members)
    assert member.handle is None and told.fleet.restarts == 0


@pytest.mark.long
@pytest.mark.parametrize("announced", [True, False], ids=["taken away", "not"])
def test_a_store_that_dies_with_a_machine_that_is_taken_away_may(told: Told, announced: bool) -> None:
    """Ray starts it again, and no death is allowed."""
    store = StoreSupervisor(QUICK, told.fleet)
    end = time.monotonic() + 60

    def check(pid: int | None) -> int:
        """Until it answers as another process than ``pid``."""
        while store.report.get("pid", pid) == pid:
            store.check({machine()} if announced else ())
            assert time.monotonic() < end
            time.sleep(0.05)
        return store.report["pid"]

    first = check(None)
    os.kill(first, signal.SIGKILL)
    try:
        if announced:
            assert check(first) != first and told.fleet.restarts == 1
        else:
            with pytest.raises(FleetFailure, match="the parameter store died 1 times"):
                check(first)
    finally:
        ray.kill(store.handle)


def test_weights_that_the_store_does_not_take_are_counted_with_the_reason(cluster: None) -> None:
    store = spawn(ParameterStoreProcess, cpus=0.0, threads=1)
    link, end = RayWeightLink(store), time.monotonic() + 60

    def publish(version: int) -> None:
        link.publish(version, {"w": np.zeros(3, np.float32)})
        while not link.ready():
            assert time.monotonic() < end
            time.sleep(0.05)

    publish(3)
    assert link.failures == 0
    publish(2)
    assert (link.failures, link.why) == (1, "version 2: the parameter store has a higher one")
    ray.kill(store)  # it is dead a little later
    version = 4
    while link.failures < 2:
        publish(version)
        version += 1
    assert link.why.startswith(f"version {version - 1}: ") and "higher" not in link.why
