"""Both ends of the `ParameterStore` in Ray: the learner's publications and the actors' questions, never waited for.

A store that died and came back empty costs nothing but age: a publication that failed is followed by the next one, and
actors keep the weights that they have.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Protocol

import ray

from distributed.parameter_store import FlatWeights, ParameterStore, Published
from replay.waiting import Waiting

log = logging.getLogger(__name__)
LOST_AFTER_SECONDS = 30.0
"""An unanswered call counts as lost after this long, and the next one may go out."""


class WeightLink(Protocol):
    """What a learner or an actor holds of the store.

    Attributes:
        failures: publications that did not arrive or were not taken.
        why: of the last of them, in words.
    """

    failures: int
    why: str

    def version(self) -> int:
        """Of the newest publication; -1 before the first."""
        ...

    def ready(self) -> bool:
        """Whether nothing is in flight, so that weights may be published."""
        ...

    def publish(self, version: int, weights: FlatWeights) -> None:
        """Send weights; does not wait for their arrival."""
        ...

    def newest(self, version: int) -> Published | None:
        """Weights above ``version`` where they have arrived. Asks for them and returns at once."""
        ...


class RayWeightLink:
    """`WeightLink` to a `ParameterStoreProcess`: at most one call of each kind in flight."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._publishing: Any = None
        self._asking: Any = None
        self._sent_at = self._asked_at = 0.0
        self._sent = -1
        self.failures, self.why = 0, ""

    def version(self) -> int:
        """See `WeightLink`; waits up to 30 s, and says -1 where the store does not answer."""
        try:
            with Waiting("the parameter store to tell its version"):
                return ray.get(self._store.version.remote(), timeout=LOST_AFTER_SECONDS)
        except ray.exceptions.RayError as error:
            log.warning("the parameter store does not answer: %s", error)
            return -1

    def ready(self) -> bool:
        """See `WeightLink`."""
        if self._publishing is None:
            return True
        if ray.wait([self._publishing], timeout=0)[0]:
            try:
                if not ray.get(self._publishing, timeout=1.0):
                    self._failed("the parameter store has a higher one")
            except ray.exceptions.RayError as error:
                self._failed(" ".join(str(error).split()))
        elif time.monotonic() - self._sent_at > LOST_AFTER_SECONDS:
            self._failed(f"no answer for {LOST_AFTER_SECONDS:g} s")
        else:
            return False
        self._publishing = None
        return True

    def _failed(self, why: str) -> None:
        self.failures, self.why = self.failures + 1, f"version {self._sent}: {why}"

    def publish(self, version: int, weights: FlatWeights) -> None:
        """See `WeightLink`."""
        self._sent, self._sent_at = version, time.monotonic()
        self._publishing = self._store.publish.remote(version, weights, time.time())

    def newest(self, version: int) -> Published | None:
        """See `WeightLink`: asks, and gives what a former question brought."""
        if self._asking is not None:
            ready, _ = ray.wait([self._asking], timeout=0)
            if not ready:
                if time.monotonic() - self._asked_at > LOST_AFTER_SECONDS:
                    self._asking = None
                return None
            try:
                published = ray.get(self._asking, timeout=1.0)
                if published is not None and published.version > version:
                    with Waiting(f"the object store to give weights {published.version}"):
                        weights = ray.get(published.weights[0], timeout=LOST_AFTER_SECONDS)
                    self._asking = None
                    return Published(published.version, weights, published.published_at)
            except ray.exceptions.RayError as error:
                log.warning("no new weights this time: %s", error)
        self._asking, self._asked_at = self._store.newer_than.remote(version), time.monotonic()
        return None


class LocalWeightLink:
    """`WeightLink` to a store in the same process."""

    def __init__(self, store: ParameterStore) -> None:
        self._store = store
        self.failures, self.why = 0, ""

    def version(self) -> int:
        """See `WeightLink`."""
        return self._store.version

    def ready(self) -> bool:
        """See `WeightLink`."""
        return True

    def publish(self, version: int, weights: FlatWeights) -> None:
        """See `WeightLink`."""
        if not self._store.publish(version, weights, time.time()):
            self.failures, self.why = self.failures + 1, f"version {version}: the store has a higher one"

    def newest(self, version: int) -> Published | None:
        """See `WeightLink`."""
        return self._store.newer_than(version)


class Puller:
    """Asks for newer weights on a timer and gives them to a policy."""

    def __init__(self, link: WeightLink, policy: Any, seconds: float) -> None:
        self._link, self._policy, self._seconds = link, policy, seconds
        self._due = 0.0
        self.version = -1

    def pull_if_due(self) -> bool:
        """Give newer weights to the policy if they are there; True once it has had any."""
        now = time.monotonic()
        if now >= self._due:
            published = self._link.newest(self.version)
            if published is not None:
                self._policy.load_weights(published.version, published.weights, published.published_at)
                self.version = published.version
            # Ask often until the first answer, so that an actor does not idle for a whole period at the start.
            self._due = now + (self._seconds if self.version >= 0 else 0.0)
        return self.version >= 0
