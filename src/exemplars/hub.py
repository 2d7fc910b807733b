"""Dictionaries on the Hugging Face Hub: `push` puts one there, `pull` gets one."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from exemplars.dictionary import Dictionary
from exemplars.errors import SourceError
from exemplars.store import load, manifest_of, save
from exemplars.store.folders import MANIFEST, OURS, PARTS, place_of, sync_file, written_aside
from exemplars.store.manifest import first_line

_HUB_LIBRARIES = frozenset({"huggingface_hub", "httpx", "httpx2", "httpcore", "requests"})


def push(
    folder_or_dictionary: str | os.PathLike[str] | Dictionary,
    repo_id: str,
    *,
    path_in_repo: str = "",
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Put a dictionary on the Hugging Face Hub, in a model repository made if there is none.

    Only the files of the dictionary are sent; run.jsonl, which may say things about a machine,
    is not. Files of an older dictionary at the same place are removed in the same commit. A
    repository without a README.md gets a short model card.

    Args:
        folder_or_dictionary: What `save` wrote, verified first; or a dictionary.
        repo_id: "owner/name".
        path_in_repo: A folder in the repository, so that it may hold one for each site.
        token: Of a Hub account; the one logged in, if None.
        private: For a repository that is made now.
        revision: A branch, made if there is none; the main one if None.

    Returns:
        The address of the commit.

    Raises:
        FormatError: The folder is not a sound dictionary.
        SourceError: The Hub refused or could not be reached.
    """
    prefix = _repo_folder(path_in_repo)
    if isinstance(folder_or_dictionary, Dictionary):
        with tempfile.TemporaryDirectory() as temporary:
            folder = save(folder_or_dictionary, Path(temporary) / "dictionary")
            return _push(folder, folder_or_dictionary, repo_id, prefix, token, private, revision)
    folder = Path(folder_or_dictionary)
    return _push(folder, load(folder), repo_id, prefix, token, private, revision)


def pull(
    repo_id: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    path_in_repo: str = "",
    token: str | None = None,
) -> Dictionary:
    """Get a dictionary from the Hugging Face Hub, verify it, and open it.

    Args:
        repo_id: "owner/name".
        folder: Where to put it; it must not exist. None for the Hub's cache.
        revision: A branch, tag, or commit; the main branch if None.
        path_in_repo: The folder in the repository.
        token: Of a Hub account; the one logged in, if None.

    Raises:
        FormatError: What came is not a sound dictionary, or `folder` holds something.
        SourceError: There is none, the Hub refused, or it could not be reached.
    """
    prefix = _repo_folder(path_in_repo)
    if folder is None:
        return load(_download(repo_id, prefix, revision, token, None) / prefix)
    place = place_of(folder)
    with written_aside(place, False, 0) as new:
        found = _download(repo_id, prefix, revision, token, new / ".download") / prefix
        for name in OURS:
            if (found / name).is_file():
                shutil.move(found / name, new / name)
                sync_file(new / name)
        shutil.rmtree(new / ".download")
        load(new)
    return load(place, verify=False)


def _repo_folder(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    if ".." in parts or "." in parts or "\\" in path:
        raise ValueError(
            f'path_in_repo is "{path}", expected a folder of the repository such as "layer-12"'
        )
    return "/".join(parts)


def _push(
    folder: Path,
    dictionary: Dictionary,
    repo_id: str,
    prefix: str,
    token: str | None,
    private: bool,
    revision: str | None,
) -> str:
    import huggingface_hub

    names = [MANIFEST, *manifest_of(folder).files, "README.md"]
    api = huggingface_hub.HfApi(token=token)
    with _hub_errors(repo_id):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            path_in_repo=prefix,
            revision=revision,
            allow_patterns=names,
            delete_patterns=sorted(OURS),
            commit_message=f"Add the dictionary {prefix or repo_id}",
        )
        if not api.file_exists(repo_id, "README.md", revision=revision):
            api.upload_file(
                repo_id=repo_id,
                path_or_fileobj=_model_card(dictionary, repo_id, prefix).encode(),
                path_in_repo="README.md",
                revision=revision,
                commit_message="Add a model card",
            )
    return str(commit.commit_url)


def _download(
    repo_id: str, prefix: str, revision: str | None, token: str | None, folder: Path | None
) -> Path:
    import huggingface_hub

    start = f"{prefix}/" if prefix else ""
    with _hub_errors(repo_id):
        root = huggingface_hub.snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            local_dir=folder,
            allow_patterns=[glob.escape(start + name) for name in (MANIFEST, *PARTS)],
        )
    if not (Path(root) / start / MANIFEST).is_file():
        where = f"{repo_id}/{prefix}" if prefix else repo_id
        raise SourceError(
            f"{where} on the Hub has no {MANIFEST}, so it is not a dictionary; "
            "check the name and path_in_repo"
        )
    return Path(root)


@contextlib.contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """What the Hub's client raises, as one sentence."""
    from huggingface_hub import utils as hub

    try:
        yield
    except hub.GatedRepoError as error:
        raise SourceError(f"{repo_id} on the Hub is gated; ask its owner for access") from error
    except hub.RepositoryNotFoundError as error:
        raise SourceError(
            f"{repo_id} does not exist on the Hub, or this account may not see it; "
            "check the name, or log in with `hf auth login`"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise SourceError(
            f"{repo_id} on the Hub has no such revision; give a branch, tag, or commit it has"
        ) from error
    except hub.HFValidationError as error:
        raise SourceError(f'"{repo_id}" is not a name on the Hub; give "owner/name"') from error
    except hub.LocalEntryNotFoundError as error:  # an HfHubHTTPError in older versions
        raise _unreached(repo_id, error) from error
    except hub.HfHubHTTPError as error:
        code = getattr(getattr(error, "response", None), "status_code", None)
        advice = {
            401: "log in with `hf auth login`",
            403: "use a token that may write there",
        }.get(code or 0, "try again later")
        raise SourceError(
            f"the Hub answered {code} about {repo_id} ({first_line(error)}); {advice}"
        ) from error
    except Exception as error:
        library = type(error).__module__.split(".")[0]
        if library not in _HUB_LIBRARIES and not isinstance(error, (ConnectionError, TimeoutError)):
            raise
        raise _unreached(repo_id, error) from error


def _unreached(repo_id: str, error: Exception) -> SourceError:
    return SourceError(
        f"{repo_id} could not be reached on the Hub ({first_line(error)}); check the connection"
    )


def _model_card(dictionary: Dictionary, repo_id: str, prefix: str) -> str:
    model = dictionary.provenance.get("model")
    name = str(model.get("name") or "") if isinstance(model, Mapping) else str(model or "")
    site = dictionary.provenance.get("site")
    where = str(site.get("name") or "") if isinstance(site, Mapping) else str(site or "")
    of = " of " + ", ".join(part for part in (where, name) if part) if where or name else ""
    path = f', path_in_repo="{prefix}"' if prefix else ""
    base = f"base_model: {json.dumps(name)}\n" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
    return f"""---
library_name: exemplars
tags:
- exemplars
- exemplar-partitioning
- interpretability
{base}---

# {repo_id.split("/")[-1]}

Exemplar Partitioning{of}: {dictionary.n_regions:,} regions from {dictionary.rows:,} rows,
width {dictionary.width}, percentile {dictionary.percentile:g}, θ = {dictionary.threshold:.4f}.

```python
from exemplars import pull

dictionary = pull("{repo_id}"{path})
regions, distances = dictionary.assign(vectors)  # (N, {dictionary.width}) raw activations
```
"""
