"""A machine of the cluster is gone: two of Ray's nodes, each with its own raylet, here on one machine."""

import time

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from distributed.run_folder import RunFolder
from distributed.stop_request import INTERRUPTED
from tests.clowder_process import SMALL, clowder, descendants, output, wait_for

MACHINE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


def take_away(cluster, machine):
    """As a cloud does with machines that are cheap because it may: it says so first."""
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int(1000 * (time.time() + 60))
    accepted, why = ray._raylet.GcsClient(address=cluster.address).drain_node(machine.node_id, reason, "", deadline)
    assert accepted, why


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("announced", [pytest.param(False, id="lost"), pytest.param(True, id="taken away")])
def test_an_actor_of_a_machine_that_is_gone_starts_again_on_another(cartpole_set, tmp_path, announced):
    cluster = Cluster(initialize_head=True, head_node_args=MACHINE)
    try:
        machine = cluster.add_node(**MACHINE)
        words = [
            *SMALL, f"cluster.address={cluster.address}", "learner.steps=1000000", "cluster.learner_cpus=0.9",
            "cluster.actor_cpus=0.5", "checkpoint.every_seconds=2", f"actors.cartpole_v1.demonstrations={cartpole_set}",
            f"cluster.restarts={0 if announced else 3}",  # preemption is free
        ]  # fmt: skip
        with clowder("train", *words, "--name", "shot", cwd=tmp_path) as process:
            wait_for((tmp_path / "runs/shot/status.json").exists, process, tmp_path)
            run = RunFolder.open(tmp_path / "runs" / "shot")

            def metrics():
                return run.read_status()["metrics"]

            wait_for(lambda: metrics().get("environment_steps"), process, tmp_path)
            if announced:
                take_away(cluster, machine)
                wait_for(lambda: "cartpole_v1-0 moves" in run.log.read_text(), process, tmp_path)
                time.sleep(5)  # a notice is given some time before; then nothing new is put there
            cluster.remove_node(machine, allow_graceful=False)
            if not announced:
                wait_for(lambda: "cartpole_v1-0 died" in run.log.read_text(), process, tmp_path)
            taken, learned = metrics()["environment_steps"], metrics()["learner_steps"]
            wait_for(lambda: metrics()["learner_steps"] > learned + 20, process, tmp_path)  # it waits for nobody
            cluster.add_node(**MACHINE)
            wait_for(lambda: "cartpole_v1-0 is back" in run.log.read_text(), process, tmp_path)
            wait_for(lambda: metrics()["environment_steps"] > taken + 20, process, tmp_path)
            assert ("cartpole_v1-0 died" in run.log.read_text()) != announced
            started = descendants(process.pid)
            process.terminate()
            assert process.wait(60) == INTERRUPTED, output(tmp_path)
            assert not any(each.is_running() for each in started)
    finally:
        cluster.shutdown()
