"""What an episode store is told of environments and policies, which may be remade."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pwm.core.fingerprints import in_words, require_unchanged
from pwm.core.progress import console
from pwm.data.store import EpisodeStore
from pwm.envs import environment_sources

POLICY_DIGESTS = "policy_sha256"
"""In a source's description: by task, the content of the policy that acted."""


def note_environments(
    store: EpisodeStore, tasks: Iterable[str], parts: Iterable[EpisodeStore] = ()
) -> None:
    """Record what the environments are made of; raises PwmError if episodes are of other ones.

    ``parts`` are stores of episodes that are to be put into this one.
    """
    unknown = []
    for name in tasks:
        made_of = environment_sources(store.suite[name])
        for part in parts:
            require_unchanged(f"{part.path} ({name})", part.environments.get(name, {}), made_of)
        if store.set_environment(name, made_of):
            unknown.append(name)
    if unknown:
        console.print(
            f"{store.path} has episodes of {in_words(unknown)}, and which source the environment "
            "had when they were made is not on record; they are kept.",
            soft_wrap=True,
        )


def tell_other_policy(
    store: EpisodeStore, policy: str | None, source: str, description: Mapping[str, Any]
) -> None:
    """Say if episodes are of another policy than the one that is there now, by the same name."""

    def otherwise(known: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in known.items() if name != POLICY_DIGESTS}

    known = store.sources
    if source not in known and otherwise(description) in map(otherwise, known.values()):
        console.print(
            f"{policy} has changed since its episodes in {store.path} were made; those of now are "
            "added as another source.",
            soft_wrap=True,
        )
