"""Names of files and directories that several packages agree on."""

MANIFEST_NAME = "manifest.json"
"""In an episode store: what is committed."""

JOBS = "jobs"
"""In a run that jobs share: a directory for each job."""

BEST = "best"
"""In a run of growth: the directory of each task's best policy so far."""

GROUPS = "groups.json"
"""In a directory of several world models: which one knows which task."""
