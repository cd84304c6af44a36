"""How many windows of each batch come from each task and source: exactly, by largest remainder, carried over."""

from __future__ import annotations

from collections.abc import Mapping

Key = tuple[str, str]
"""(task name, source)."""


class Mixture:
    """Integer splits whose running totals never stray from the asked shares by more than one window.

    Shares are relative weights; all-zero or negative ones raise ValueError.
    """

    def __init__(self, shares: Mapping[Key, float]) -> None:
        self.carry = dict.fromkeys(shares, 0.0)
        self.change(shares)

    def change(self, shares: Mapping[Key, float]) -> None:
        """Go on with other shares of the same keys; what is carried over stays."""
        total = sum(shares.values())
        if total <= 0 or min(shares.values()) < 0:
            raise ValueError(f"shares must not be negative and must sum to more than 0: {dict(shares)}")
        if shares.keys() != self.carry.keys():
            raise ValueError(f"shares of other keys: {sorted(shares)} in the place of {sorted(self.carry)}")
        self.shares = {key: share / total for key, share in shares.items()}

    def split(self, windows: int) -> dict[Key, int]:
        """Windows of the next batch by key; they sum to ``windows``."""
        quota = {key: share * windows + self.carry[key] for key, share in self.shares.items()}
        counts = {key: max(0, int(value // 1)) for key, value in quota.items()}
        missing = windows - sum(counts.values())
        # Rounded, so that the order of equal remainders does not hang on the last bit; ties go by name.
        by_remainder = sorted(quota, key=lambda key: (-round(quota[key] - counts[key], 9), key))
        for index in range(missing):
            counts[by_remainder[index % len(by_remainder)]] += 1
        for key in reversed(by_remainder):
            if missing >= 0:
                break
            if counts[key]:
                counts[key] -= 1
                missing += 1
        self.carry = {key: quota[key] - counts[key] for key in quota}
        return counts
