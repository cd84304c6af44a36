import numpy as np
import pytest

from distributed.parameter_store import ParameterStore


def weights(value):
    return {"embedding": np.full((2, 3), value, np.float32)}


def test_readers_get_only_what_is_newer():
    store = ParameterStore(keep=dict)
    assert store.version == -1 and store.newer_than(-1) is None
    assert store.publish(0, weights(0), 10.0)
    assert store.publish(3, weights(3), 11.0)
    newest = store.newer_than(0)
    assert newest is not None and newest.version == 3 and newest.published_at == 11.0
    assert newest.weights["embedding"][0, 0] == 3
    assert store.newer_than(3) is None


def test_versions_never_go_back():
    store = ParameterStore(keep=dict)
    store.publish(5, weights(5), 0.0)
    for stale in (5, 4, 0):
        assert not store.publish(stale, weights(stale), 1.0)
    assert store.version == 5 and store.newer_than(-1).weights["embedding"][0, 0] == 5


def test_a_failed_copy_leaves_the_old_weights():
    copies = iter([dict, None])

    def keep(flat):
        return next(copies)(flat)

    store = ParameterStore(keep)
    store.publish(1, weights(1), 0.0)
    with pytest.raises(TypeError):
        store.publish(2, weights(2), 0.0)
    assert store.version == 1 and store.newer_than(0).weights["embedding"][0, 0] == 1
