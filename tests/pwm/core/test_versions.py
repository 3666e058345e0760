from __future__ import annotations

import json

from pwm.core.versions import git_revision, versions


def test_the_revision_is_that_of_this_checkout_or_none():
    revision = git_revision()
    assert revision is None or len(revision.removesuffix("-dirty")) >= 7


def test_versions_name_what_results_depend_on():
    found = versions()
    assert {"torch", "numpy", "gymnasium", "dm-control", "metaworld", "mujoco"} <= set(found)
    assert json.loads(json.dumps(found)) == found
