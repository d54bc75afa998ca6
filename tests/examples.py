"""How many examples a law is tried on."""

from __future__ import annotations

from hypothesis import settings

#: What a profile gives a law without settings of its own, under `ci`.
_USUAL = 100


def examples(number: int) -> settings:
    """Settings of a law whose examples take long: so many of them, and more where the profile looks for new ones.

    `@settings(max_examples=N)` would hold under every profile, so that `HYPOTHESIS_PROFILE=explore` explored nothing.
    """
    return settings(max_examples=max(1, number * settings().max_examples // _USUAL))
