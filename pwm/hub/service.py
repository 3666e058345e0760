"""The hub, as far as it is used here, and its faults as one sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pwm import __version__
from pwm.core.errors import PwmError
from pwm.hub.contents import FILES

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def require_token() -> None:
    """Raise PwmError where no one is logged in, since only a known user may write."""
    with _explained(""):
        from huggingface_hub import get_token

        if get_token() is None:
            raise PwmError(f"no token of the hub is set, and pushing needs one; {LOG_IN}.")


def upload(folder: Path, repo: str, private: bool, message: str) -> str:
    """Put a directory into a model repository in one commit, and make the repository if need be.

    Files of an earlier push that are not in the directory go with the same commit; others stay.

    Args:
        folder: what the repository gets.
        repo: its name, ``user/name``.
        private: whether a repository that is made is private.
        message: of the commit.

    Returns:
        The commit's address.

    Raises:
        PwmError: if the hub refuses or cannot be reached.
    """
    with _explained(repo):
        from huggingface_hub import HfApi

        api = HfApi(library_name="pwm", library_version=__version__)
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            repo_type="model",
            folder_path=folder,
            commit_message=message,
            delete_patterns=list(FILES),
        )
        return str(commit.commit_url)


def download(repo: str, revision: str | None, folder: Path) -> None:
    """Fetch the files of a model repository that commands read, and its card.

    Args:
        repo: its name, ``user/name``.
        revision: a branch, tag or commit; the newest commit by default.
        folder: an empty directory.

    Raises:
        PwmError: if the hub refuses or cannot be reached.
    """
    with _explained(repo, revision):
        from huggingface_hub import HfApi

        HfApi(library_name="pwm", library_version=__version__).snapshot_download(
            repo,
            repo_type="model",
            revision=revision,
            local_dir=folder,
            allow_patterns=[*FILES, "README.md"],
        )


@contextmanager
def _explained(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turns what the library raises into a PwmError of one sentence."""
    try:
        from huggingface_hub import errors
    except ImportError as error:
        raise PwmError(
            "the hub needs the package huggingface_hub, which is not installed; pip install "
            "'pwm-worldmodels[hub]'."
        ) from error
    try:
        try:
            yield
        except errors.LocalEntryNotFoundError as error:
            if isinstance(error.__cause__, errors.OfflineModeIsEnabled | errors.HTTPError):
                raise error.__cause__ from None
            raise
    except errors.HFValidationError as error:
        raise PwmError(f"repo={repo} is no name of a repository; give user/name.") from error
    except errors.LocalTokenNotFoundError as error:
        raise PwmError(f"no token of the hub is set; {LOG_IN}.") from error
    except errors.OfflineModeIsEnabled as error:
        raise PwmError(
            "the hub is not asked, since HF_HUB_OFFLINE is set; unset it and try again."
        ) from error
    except errors.GatedRepoError as error:
        raise PwmError(
            f"{repo} is open to those alone whom its owners let in; ask for that on its page."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PwmError(
            f"the hub has no repository {repo} that you may see; check the name, and if it is "
            f"private {LOG_IN}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise PwmError(f"{repo} has no revision {revision}; give a branch, tag or commit.") from (
            error
        )
    except errors.HfHubHTTPError as error:
        raise PwmError(_refusal(repo, error.response.status_code, str(error))) from error
    except (errors.LocalEntryNotFoundError, errors.HTTPError, ConnectionError) as error:
        raise PwmError(
            f"the hub cannot be reached ({_first_line(error)}); check the connection, and give "
            "the same command again."
        ) from error


def _refusal(repo: str, status: int, said: str) -> str:
    if status in (401, 403):
        return (
            f"the hub does not let you do this with {repo} (status {status}); {LOG_IN} with a "
            "token that may write there."
        )
    return f"the hub failed at {repo} ({_first_line(said)}); try again later."


def _first_line(said: object) -> str:
    return (str(said).strip().splitlines() or [type(said).__name__])[0].rstrip(".:")[:200]
