"""Upload a trained model to the Hugging Face Hub.

usage: flaxbert push RUN REPO [--private] [--dry-run]

for example:
  flaxbert push runs/squad me/bert-squad --private --dry-run

RUN is the workdir of a finished run, whose export/ is uploaded, or a directory with a config.json,
such as one that flaxbert export wrote; it may be a URL, such as gs://BUCKET/DIR. REPO is the id of
a model repository, which is created if it does not exist. The token comes from the environment
variable HF_TOKEN, or from `hf auth login`. It needs write access. Another hub is used with
HF_ENDPOINT. --dry-run needs neither.

exit codes:
  0   done
  2   bad usage, no such run, no token, or the hub cannot be reached or refuses
  1   internal error
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxbert import hub
from flaxbert.commands import failures, help_text
from flaxbert.data import stores
from flaxbert.errors import ConfigError, HubError, WeightsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = help_text.parser("push", __doc__)
    parser.add_argument("run", metavar="RUN", help="workdir of a finished run, or a directory")
    parser.add_argument("repo", metavar="REPO", help="id of the repository, such as me/bert-squad")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--dry-run", action="store_true", help="list the files, upload nothing")
    given = parser.parse_args(argv)
    try:
        directory = directory_of(given.run)
        check_repo(given.repo)
        files = files_of(directory)
        for name, size in files.items():
            print(f"{size:>14,}  {name}")
        total = f"{len(files)} files, {sum(files.values()):,} bytes"
        kind = "private" if given.private else "public"
        if given.dry_run:
            from huggingface_hub import constants

            print(
                f"{total}; would be uploaded to {constants.ENDPOINT}/{given.repo}. If it does not "
                f"exist, a {kind} repository would be created."
            )
        else:
            print(f"{total}; uploaded: {upload(directory, given.repo, private=given.private)}")
    except Exception as error:
        return failures.report(error, given.run)
    return 0


def directory_of(run: str) -> Path:
    """Return the directory to upload: the export of a run, or a directory with a model.

    Raises:
      RemoteError: if a URL cannot be fetched.
      WeightsError: if there is no such directory, or no model in it.
    """
    if stores.is_url(run):
        from flaxbert.pretrained import source  # imports JAX, which others do not need

        path = source.local(run, everything=True)
    else:
        path = Path(run).expanduser()
    if (path / "export" / "config.json").is_file():
        return path / "export"
    if (path / "checkpoints").is_dir():
        raise WeightsError(
            f"{path}: a run that has not finished (no export/). Run the same command again to "
            f"finish it, or export its latest checkpoint: flaxbert convert {path} DIR"
        )
    if not (path / "config.json").is_file():
        raise WeightsError(
            f"{path}: no config.json, so there is no model to upload. Give the workdir of a "
            "finished run, or the directory of a model."
        )
    return path


def check_repo(repo: str) -> None:
    """Check the id of a repository.

    Raises:
      ConfigError: if it is malformed.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(
            f"{repo!r} is not the id of a repository: {hub.reason(error)} Give NAMESPACE/NAME, "
            "such as me/bert-squad."
        ) from None


def files_of(directory: Path) -> dict[str, int]:
    """Return the files that are uploaded, {path in the repository: bytes}.

    `upload_folder` leaves out the files of Git and of the hub's own cache.
    """
    from huggingface_hub import utils

    hub: Any = utils  # which exports more than its types say
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    names = (path.relative_to(directory).as_posix() for path in paths)
    kept = hub.filter_repo_objects(names, ignore_patterns=hub.DEFAULT_IGNORE_PATTERNS)
    return {name: (directory / name).stat().st_size for name in kept}


def upload(directory: Path, repo: str, *, private: bool) -> str:
    """Create the repository if it does not exist, upload all files, and return its address.

    Raises:
      HubError: without a token, or if the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if not token:
        raise HubError(
            "no token of the Hugging Face Hub: set the environment variable HF_TOKEN to one with "
            "write access (https://huggingface.co/settings/tokens), or run `hf auth login`."
        )
    api = HfApi(token=token)
    try:
        # An existing repository keeps its visibility.
        url = api.create_repo(repo, private=private, exist_ok=True)
        # The id of the answer has the namespace, which a user may leave out.
        api.upload_folder(
            repo_id=url.repo_id, folder_path=directory, commit_message="Upload with flaxbert"
        )
    except Exception as error:  # of the client, of its HTTP library, or of the system
        raise HubError(
            f"{repo}: the upload failed ({hub.reason(error)}). Check the network, that the token "
            "has write access, and that the namespace is yours. The same command can be repeated."
        ) from error
    return str(url)
