"""A machine of the cluster is gone: two of Ray's nodes, each with its own raylet, here on one machine."""

import pytest
from ray.cluster_utils import Cluster

from distributed.run_folder import RunFolder
from tests.clowder_process import SMALL, clowder, descendants, output, wait_for


@pytest.mark.timeout(400)
def test_an_actor_of_a_machine_that_is_gone_starts_again_on_another(cartpole_set, tmp_path):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    try:
        lost = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        words = [
            *SMALL, f"cluster.address={cluster.address}", "learner.steps=1000000", "cluster.learner_cpus=0.9",
            "cluster.actor_cpus=0.5", "checkpoint.every_seconds=2", f"actors.cartpole_v1.demonstrations={cartpole_set}",
        ]  # fmt: skip
        with clowder("train", *words, "--name", "shot", cwd=tmp_path) as process:
            wait_for((tmp_path / "runs/shot/status.json").exists, process, tmp_path)
            run = RunFolder.open(tmp_path / "runs" / "shot")

            def metrics():
                return run.read_status()["metrics"]

            wait_for(lambda: metrics().get("environment_steps"), process, tmp_path)
            cluster.remove_node(lost, allow_graceful=False)
            wait_for(lambda: "cartpole_v1-0 died" in run.log.read_text(), process, tmp_path)
            taken, learned = metrics()["environment_steps"], metrics()["learner_steps"]
            wait_for(lambda: metrics()["learner_steps"] > learned + 20, process, tmp_path)  # nobody waits for it
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
            wait_for(lambda: "cartpole_v1-0 is back" in run.log.read_text(), process, tmp_path)
            wait_for(lambda: metrics()["environment_steps"] > taken + 20, process, tmp_path)
            process.terminate()
            assert process.wait(60) == 0, output(tmp_path)
            assert not descendants(process.pid)
    finally:
        cluster.shutdown()
