"""A Ray of one's own."""

import pytest
import ray

from distributed.errors import ClowderError
from distributed.ray_cluster import start_private


def test_a_ray_that_does_not_start_is_a_clear_error():
    with pytest.raises(ClowderError, match=r"Ray did not start on this machine: .*minimum allowed.*clowder doctor"):
        start_private(num_cpus=1, object_store_megabytes=1)
    assert not ray.is_initialized()
