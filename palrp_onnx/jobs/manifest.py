"""``manifest.json``: the model, input and settings of a batch, and its progress."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.files import to_json, write_files
from palrp_onnx.inputs.digests import file_digests, sha256_of
from palrp_onnx.jobs.settings import Settings, Shard
from palrp_onnx.version import own_version

NAME = "manifest.json"
State = Literal["running", "stopped", "complete"]
SCHEMA: Literal["palrp-onnx/batch/1.0"] = "palrp-onnx/batch/1.0"


class ModelDigests(Struct, frozen=True):
    """Digests of the model, as in records, and of the files that are read with it."""

    sha256: str
    files: dict[str, str]


class InputDigest(Struct, frozen=True):
    """Kind and digest of the input; no digest for a stream."""

    kind: str
    sha256: str | None


class Job(Struct, frozen=True, kw_only=True):
    """Everything that the bytes of the parts depend on; a batch is resumed only if all is equal."""

    version: str
    model: ModelDigests
    settings: Settings
    input: InputDigest
    shard: Shard
    part_size: int
    parquet: bool

    @property
    def settings_sha256(self) -> str:
        """Digest of the settings."""
        return hashlib.sha256(msgspec.json.encode(self.settings, order="sorted")).hexdigest()


class Counts(Struct, frozen=True, kw_only=True):
    """Progress of a batch."""

    records: int = 0
    explained: int = 0
    failed: int = 0
    parts: int = 0


class BatchManifest(Struct, frozen=True, kw_only=True):
    """The file. ``state`` is ``running`` also if the run was killed."""

    schema: Literal["palrp-onnx/batch/1.0"] = SCHEMA
    state: State
    job: Job
    settings_sha256: str
    counts: Counts

    def write(self, folder: Path) -> None:
        """Replace the file in ``folder``.

        Raises:
            OutputError: It cannot be written.
            ResourceError: The disk is full.
        """
        write_files({folder / NAME: to_json(self)})


def begin(folder: Path, job: Job, *, resume: bool) -> None:
    """Refuse a folder that holds another batch, or this one without ``resume``.

    Raises:
        UsageError: The folder holds another batch, or this one and ``resume`` is false; the message
            names what has changed.
        InputError: The manifest in the folder cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        stray = next(folder.glob("part-*"), None) if folder.is_dir() else None
        if stray is not None:
            raise UsageError(
                "The folder holds parts, but no manifest",
                place=str(stray),
                hint="Name another folder.",
            )
        return
    if not resume:
        raise UsageError(
            "The folder holds a batch already",
            place=str(path),
            hint="Resume it with --resume, or name another folder.",
        )
    if job.input.sha256 is None:
        raise UsageError(
            "A stream cannot be read again from its start",
            place=str(path),
            hint="Only a batch that reads a file or a folder can be resumed.",
        )
    try:
        before = msgspec.json.decode(path.read_bytes(), type=BatchManifest).job
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"The manifest cannot be read: {error}", place=str(path)) from error
    changed = list(_differences(msgspec.to_builtins(before), msgspec.to_builtins(job)))
    if changed:
        raise UsageError(
            f"The batch was started otherwise: {'; '.join(changed)}",
            place=str(path),
            hint="Resume it with the same model, input and options, or name another folder.",
        )


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Descriptions of the values that differ, with their dotted names."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(before.get(key), now.get(key), inner)
    elif before != now:
        then, new = ("not given" if each is None else repr(each) for each in (before, now))
        yield f"{_said(name)} was {then}, and is {new}"


def _said(name: str) -> str:
    """A setting as the option of the command that it is; other values by their dotted name."""
    whole, *parts = name.split(".")
    if whole == "settings":
        whole, *parts = parts
    elif whole not in ("shard", "part_size", "parquet"):
        return name
    option = "role" if whole == "roles" else whole.replace("_", "-")
    return " ".join((f"--{option}", *parts))


def describe_job(
    model: tuple[Path, str],
    settings: Settings,
    source: tuple[str, str | None],
    *,
    shard: Shard,
    part_size: int,
    parquet: bool,
) -> Job:
    """The job for a model (path and digest) and a source (kind and digest)."""
    path, sha256 = model
    given = settings.tokenizer
    digests = file_digests(path, None if given is None else Path(given))
    if settings.example is not None:
        digests["example"] = sha256_of(Path(settings.example))
    return Job(
        version=own_version(),
        model=ModelDigests(sha256, digests),
        # Their content is compared, not their paths.
        settings=structs.replace(settings, tokenizer=None, example=None),
        input=InputDigest(*source),
        shard=shard,
        part_size=part_size,
        parquet=parquet,
    )
