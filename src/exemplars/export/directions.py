"""Directions of regions in the words of other libraries: to add to a model, or to remove from it.

| name               | file                          | opened by                          |
|--------------------|-------------------------------|------------------------------------|
| `gguf`             | a control vector, GGUF        | llama.cpp, repeng                  |
| `steering-vectors` | a tensor of each layer        | steering-vectors, by two lines     |
| `lm-eval`          | a CSV, and a coder beside it  | lm-evaluation-harness's `steered`  |

With u the unit direction of a region (of several: of the sum of theirs), n the site's median
activation norm and s the strength, s n u is added; ablation is x − u uᵀ(x − c).

Layers are numbered as the dictionary's sites are: `resid_post.L` is the output of decoder layer L,
counted from 0. All three agree: llama.cpp adds `direction.L` to the sum that leaves its layer L, as
it counts from 0 too, and refuses `direction.0` (`common_control_vector_load_one`, `build_cvec`);
repeng 0.4.0 wraps `model.model.layers[L]` and adds to its output; steering-vectors 0.12.2 adds to
that of the Lth decoder block.
"""

from __future__ import annotations

import contextlib
import csv
import inspect
import io
import json
import math
import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exemplars.dictionary import Dictionary
from exemplars.errors import FormatError, MismatchError
from exemplars.export.selection import record_of, spellings_of
from exemplars.export.sparsify import WEIGHTS, hookpoint_of, to_sparsify
from exemplars.export.writing import REGIONS
from exemplars.geometry import Float32, Float64
from exemplars.store.folders import place_of, write_bytes

ACTIONS = ("ablate", "add")
COLUMNS = (
    "loader", "action", "sparse_model", "hookpoint", "feature_index", "steering_coefficient",
    "sae_id", "description",
)  # fmt: skip
"""Of the harness's CSV; it reads the first six of a row for sparsify."""
_ARCHITECTURE = "controlvector"
_RECORD = "exemplars"
"""Where a file says what its direction is, in JSON."""
_SHORTEST = 1e-4
"""Unit directions whose sum is shorter cancel."""
_DIFFERS = 1e-3
"""Cosine distance between a direction and its row in a sparsify export: bfloat16 makes 1e-5."""
_NO_ADDITION = (
    "lm-eval 0.4.9.2 to 0.4.13 refuse to add what a CSV names, by an assertion that "
    "`python -O -m lm_eval` leaves out; 0.4.8 and 0.4.9 add it"
)
_GGUF_NAMES = {
    "mistral": "llama", "mixtral": "llama", "phi": "phi2", "cohere": "command-r",
    "gptoss": "gpt-oss", "deepseekv2": "deepseek2", "deepseekv3": "deepseek2",
}  # fmt: skip
"""Classes of models whose GGUF architecture has another name."""


@dataclass(frozen=True)
class DirectionExport:
    """What was written."""

    format: str
    file: Path
    regions: tuple[int, ...]
    layers: tuple[int, ...]
    """That the vector is added to, from 0; empty for lm-eval, which goes by the hookpoint."""
    basis: str
    action: str
    strength: float | None
    """In units of the site's median activation norm; None for an ablation."""
    length: float | None
    """Of the vector of each layer, in raw units; None for an ablation."""
    bytes: int
    warnings: tuple[str, ...] = ()
    sparsify: Path | None = None
    """The folder that the rows of an lm-eval CSV refer to."""
    hookpoint: str | None = None


def to_control_vector(
    dictionary: Dictionary,
    out: str | os.PathLike[str],
    regions: Sequence[int],
    *,
    strength: float = 1.0,
    unit: float | None = None,
    basis: str = "exemplar",
    layers: Sequence[int] | None = None,
    model_hint: str | None = None,
    overwrite: bool = False,
) -> DirectionExport:
    """Write a control vector that `llama-cli --control-vector` and repeng's `import_gguf` read.

    Args:
        dictionary: Of a `resid_post` site, or of none if `layers` are given.
        out: The GGUF file: `controlvector.model_hint`, `controlvector.layer_count`, and a float32
            tensor `direction.L` (D,) for each layer.
        regions: One, or several: then the direction is that of the sum of their unit directions.
        strength: At the reader's scale 1.0, in units of `unit`; negative subtracts.
        unit: Raw length of a strength of 1; default: the site's median activation norm.
        basis: "exemplar" or "mean".
        layers: Decoder layers from 0, each of which gets an equal share of the length, so that
            the whole strength is added once; default: the dictionary's own. llama.cpp has no
            vector for layer 0.
        model_hint: GGUF's name of the architecture; default: from the class of the model. Readers
            keep it and check nothing with it.
        overwrite: Replace a control vector that is there.

    Raises:
        ValueError: A region, layer or strength that there is not, or a site that is no layer's
            output.
        FormatError: The file is there, and is something else or not to be overwritten.
        ImportError: The package gguf is not installed.
        OSError: It cannot be written.
    """
    found = _Direction.of(dictionary, regions, basis)
    chosen = _layers(dictionary, layers)
    if chosen[0] == 0:
        raise ValueError(
            "llama.cpp has no control vector for layer 0; use a dictionary of a later layer, or "
            "add it elsewhere with --layers"
        )
    vectors = _vectors(dictionary, found, chosen, strength, unit)
    hint = model_hint or _architecture(dictionary)
    warnings = []
    if hint is None:
        hint = "unknown"
        warnings.append(
            'the dictionary does not name the class of its model, so the model hint is "unknown"; '
            "llama.cpp does not look at it; give it with --model-hint"
        )
    try:
        import gguf
    except ImportError:
        raise ImportError(
            "control vectors need gguf, which is not installed; pip install 'exemplars[gguf]'"
        ) from None
    with _new_file(out, _is_control_vector, "a control vector", overwrite) as new:
        writer = gguf.GGUFWriter(new, _ARCHITECTURE)
        try:
            writer.add_string(f"{_ARCHITECTURE}.model_hint", hint)
            writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vectors))
            writer.add_string(_RECORD, json.dumps(found.record("gguf", strength)))
            for layer, vector in vectors.items():
                writer.add_tensor(f"direction.{layer}", vector)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    return _done("gguf", out, found, strength, vectors, warnings)


def to_steering_file(
    dictionary: Dictionary,
    out: str | os.PathLike[str],
    regions: Sequence[int],
    *,
    strength: float = 1.0,
    unit: float | None = None,
    basis: str = "exemplar",
    layers: Sequence[int] | None = None,
    overwrite: bool = False,
) -> DirectionExport:
    """Write safetensors of which two lines make a `steering_vectors.SteeringVector`.

    That package (0.12.2) has no file of its own; its users pickle the object. Here each tensor is
    named by its layer: "15" (D,) float32.

    Args and errors: as of `to_control_vector`; layer 0 is one like others.
    """
    from safetensors.numpy import save

    found = _Direction.of(dictionary, regions, basis)
    vectors = _vectors(dictionary, found, _layers(dictionary, layers), strength, unit)
    record = found.record("steering-vectors", strength)
    named = {str(layer): vector for layer, vector in vectors.items()}
    content = save(named, {_RECORD: json.dumps(record)})
    with _new_file(out, _is_steering_file, "a steering vector of ours", overwrite) as new:
        write_bytes(new, content)
    return _done("steering-vectors", out, found, strength, vectors, [])


def to_steering_vector(
    dictionary: Dictionary,
    regions: Sequence[int],
    *,
    strength: float = 1.0,
    unit: float | None = None,
    basis: str = "exemplar",
    layers: Sequence[int] | None = None,
) -> Any:
    """A `steering_vectors.SteeringVector`, whose `apply(model)` adds it at multiplier 1.0.

    Args and errors: as of `to_steering_file`.

    Raises:
        ImportError: The package steering-vectors is not installed.
    """
    found = _Direction.of(dictionary, regions, basis)
    vectors = _vectors(dictionary, found, _layers(dictionary, layers), strength, unit)
    try:
        from steering_vectors import SteeringVector  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError(
            f"steering_vectors cannot be imported ({error}); pip install steering-vectors"
        ) from None
    import torch

    tensors = {layer: torch.from_numpy(vector) for layer, vector in vectors.items()}
    return SteeringVector(layer_activations=tensors, layer_type="decoder_block")


def to_lm_eval(
    dictionary: Dictionary,
    out: str | os.PathLike[str],
    regions: Sequence[int],
    *,
    action: str = "ablate",
    strength: float | None = None,
    unit: float | None = None,
    basis: str = "exemplar",
    hookpoint: str | None = None,
    sparsify: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> DirectionExport:
    """Write a CSV for `lm_eval --model steered --model_args pretrained=MODEL,steer_path=OUT`.

    It has one row, as the harness (0.4.13) keeps only the last row of a hookpoint. The row names a
    latent of a sparsify export: of one latent, the direction, written beside the CSV; or of one
    that is there.

    Args:
        dictionary: Of the output of any module.
        out: The CSV; its name must end in .csv.
        regions: One; for "add" also several: then the direction is that of the sum.
        action: "ablate" (the harness's clamp to 0, about the center: x − u uᵀ(x − c)) or "add".
        strength: Of "add", in units of `unit`; default 1.
        unit: Raw length of a strength of 1; default: the site's median activation norm.
        basis: "exemplar" or "mean".
        hookpoint: A module of the base model; default: from the dictionary's site.
        sparsify: A folder that `to_sparsify` wrote of this dictionary and that has the region;
            default: the CSV's name with "-sparsify" for ".csv", written now.
        overwrite: Replace a CSV and a coder that are there.

    Raises:
        ValueError: A region, strength, hookpoint or action that there is not.
        FormatError: A file is there, and is something else or not to be overwritten; or
            `sparsify` is no export.
        MismatchError: `sparsify` is of another dictionary, or lacks the region.
        OSError: It cannot be written.
    """
    found = _Direction.of(dictionary, regions, basis)
    coefficient = _coefficient(dictionary, found, action, strength, unit)
    if not str(out).endswith(".csv"):
        raise ValueError(
            f'the file is "{Path(out).name}", expected a name that ends in .csv; lm-eval goes by it'
        )
    hookpoint = hookpoint_of(dictionary) if hookpoint is None else hookpoint
    place = place_of(out)
    with _new_file(out, _is_lm_eval_csv, "a CSV for lm-eval", overwrite) as new:
        if sparsify is None:
            folder, latent = place.with_name(f"{place.stem}-sparsify"), 0
            _write_coder(dictionary, folder, found, hookpoint, overwrite)
        else:
            folder = Path(sparsify).resolve()
            latent = _latent_of(dictionary, folder / hookpoint, found)
        operation = "clamp" if action == "ablate" else "add"
        what = f"{action} {found.name}"
        row = ("sparsify", operation, folder, hookpoint, latent, coefficient, "", what)
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, row])
        write_bytes(new, text.getvalue().encode("utf-8", "surrogateescape"))
    adds = action == "add"
    warnings = (_NO_ADDITION,) if adds else ()
    return DirectionExport(
        format="lm-eval",
        file=Path(out),
        regions=found.regions,
        layers=(),
        basis=basis,
        action=action,
        strength=(1.0 if strength is None else float(strength)) if adds else None,
        length=abs(coefficient) if adds else None,
        bytes=place.stat().st_size,
        warnings=warnings,
        sparsify=folder,
        hookpoint=hookpoint,
    )


DIRECTION_FORMATS: Mapping[str, Callable[..., DirectionExport]] = {
    "gguf": to_control_vector,
    "steering-vectors": to_steering_file,
    "lm-eval": to_lm_eval,
}
"""What writes each format: `f(dictionary, out, regions, **options)`."""


def export_direction(
    dictionary: Dictionary,
    format_: str,
    out: str | os.PathLike[str],
    regions: Sequence[int],
    **options: Any,
) -> DirectionExport:
    """Write the direction of regions in a format by its name.

    Args:
        dictionary: Whose regions.
        format_: A key of `DIRECTION_FORMATS`.
        out: The file.
        regions: See the format.
        options: Of that format; None stands for its default.

    Raises:
        ValueError: An unknown format, or an option that it does not have.
    """
    if format_ not in DIRECTION_FORMATS:
        raise ValueError(
            f'there is no format "{format_}" for directions, expected one of '
            f"{', '.join(DIRECTION_FORMATS)}"
        )
    write = DIRECTION_FORMATS[format_]
    given = {name: value for name, value in options.items() if value is not None}
    unknown = set(given) - set(inspect.signature(write).parameters)
    if unknown:
        raise ValueError(f"the format {format_} has no option {', '.join(sorted(unknown))}")
    return write(dictionary, out, regions, **given)


@dataclass(frozen=True, eq=False)
class _Direction:
    """The direction of regions, and where it comes from."""

    regions: tuple[int, ...]
    basis: str
    vector: Float64
    """(D,) of length 1."""
    about: Mapping[str, Any]

    @classmethod
    def of(cls, dictionary: Dictionary, regions: Sequence[int], basis: str) -> _Direction:
        """The direction of a region, or of the sum of the unit directions of several."""
        rows = dictionary.basis(basis)
        numbers = _numbers(dictionary, regions)
        empty = [k for k in numbers if not np.isfinite(rows[k]).all()]
        if empty:
            raise ValueError(
                f"region {empty[0]} has no members, so it has no mean; use the basis exemplar"
            )
        units = rows[list(numbers)].astype(np.float64)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        total = units.sum(axis=0)
        length = float(np.linalg.norm(total))
        if length < _SHORTEST:
            raise ValueError("the directions of these regions cancel each other; give fewer")
        about = record_of(dictionary, "", basis, np.asarray(numbers, np.int64))
        return cls(tuple(numbers), basis, total / length, about)

    @property
    def name(self) -> str:
        """As people say it: region 42, regions 3 + 17."""
        plural = "s" if len(self.regions) > 1 else ""
        return f"region{plural} {' + '.join(map(str, self.regions))}"

    def record(self, format_: str, strength: float) -> dict[str, Any]:
        """What a file says of itself."""
        return {**self.about, "format": format_, "strength": float(strength)}


def _numbers(dictionary: Dictionary, regions: Sequence[int]) -> list[int]:
    """Regions as numbers from 0; negative ones count from the end."""
    numbers = []
    for region in regions:
        if isinstance(region, (bool, np.bool_)) or not hasattr(region, "__index__"):
            raise ValueError(f"a region is {region!r}, expected its number")
        numbers.append(dictionary.region(operator.index(region)).index)
    if not numbers:
        raise ValueError("no region was given; name one with --region")
    twice = next((k for k in numbers if numbers.count(k) > 1), None)
    if twice is not None:
        raise ValueError(f"region {twice} was given twice; name each region once")
    return numbers


def _layers(dictionary: Dictionary, layers: Sequence[int] | None) -> list[int]:
    """Decoder layers, ascending: those given, or the one whose output the dictionary is of."""
    own = _layer_of(dictionary)
    if layers is None:
        if own is None:
            raise ValueError(
                "the dictionary does not say which site it is of; name the layers with --layers, "
                "counted from 0"
            )
        return [own]
    chosen = sorted(set(map(operator.index, layers)))
    if not chosen:
        raise ValueError("no layer was given; give a number, or nothing for the dictionary's own")
    about = dictionary.provenance.get("model")
    n_layers = about.get("n_layers") if isinstance(about, dict) else None
    last = n_layers - 1 if isinstance(n_layers, int) else math.inf
    wrong = [layer for layer in chosen if not 0 <= layer <= last]
    if wrong:
        there_are = f"0 to {last}" if last < math.inf else "numbers from 0"
        raise ValueError(f"there is no layer {wrong[0]}; expected {there_are}")
    return chosen


def _layer_of(dictionary: Dictionary) -> int | None:
    """The decoder layer whose output the rows are; None if the dictionary names no site."""
    names = spellings_of(dictionary)
    for name in names.values():
        found = re.fullmatch(r"resid_post\.(\d+)|blocks\.(\d+)\.hook_resid_post", name, re.ASCII)
        if found:
            return int(found[1] or found[2])
    if not names:
        return None
    site = names.get("exemplars") or next(iter(names.values()))
    raise ValueError(
        f"the dictionary is of {site}, and these vectors are added to the output of a whole layer; "
        "use a dictionary of a site resid_post.N"
    )


def _vectors(
    dictionary: Dictionary,
    found: _Direction,
    layers: Sequence[int],
    strength: float,
    unit: float | None,
) -> dict[int, Float32]:
    """(D,) for each layer: equal shares of the strength."""
    length = _length(dictionary, strength, unit) / len(layers)
    vector = (length * found.vector).astype(np.float32)
    return {layer: vector.copy() for layer in layers}


def _length(dictionary: Dictionary, strength: float, unit: float | None) -> float:
    """A strength in raw units."""
    if not math.isfinite(strength) or strength == 0:
        raise ValueError(f"the strength is {strength:g}, expected a finite number other than 0")
    norm = float(dictionary.calibration.vector_norms[1]) if unit is None else unit
    if unit is None and not math.isfinite(norm):
        raise ValueError(
            "the dictionary does not say its median activation norm, which is the unit of "
            "strengths; give the raw length of a strength of 1 with --unit"
        )
    if not (math.isfinite(norm) and norm > 0):
        raise ValueError(f"the unit of strengths is {norm:g}, expected a positive number")
    if abs(strength * norm) > float(np.finfo(np.float32).max):
        raise ValueError(f"the strength is {strength:g}, too large for float32; give a smaller one")
    return strength * norm


def _coefficient(
    dictionary: Dictionary,
    found: _Direction,
    action: str,
    strength: float | None,
    unit: float | None,
) -> float:
    """What lm-eval multiplies the direction by, or clamps it to."""
    if action not in ACTIONS:
        raise ValueError(f'the action is "{action}", expected one of {", ".join(ACTIONS)}')
    if action == "add":
        return _length(dictionary, 1.0 if strength is None else strength, unit)
    if strength is not None or unit is not None:
        raise ValueError("an ablation is whole and has no strength; give one with --action add")
    if len(found.regions) > 1:
        raise ValueError(
            f"lm-eval changes one direction at a hookpoint, and {len(found.regions)} regions were "
            "given to ablate; give one"
        )
    return 0.0


def _write_coder(
    dictionary: Dictionary, folder: Path, found: _Direction, hookpoint: str, overwrite: bool
) -> None:
    """A sparsify export of one latent: the direction, about the dictionary's center."""
    vector = found.vector.astype(np.float32)[None]
    done = to_sparsify(
        replace(dictionary, exemplars=vector), folder, hookpoint=hookpoint, overwrite=overwrite
    )
    regions = list(found.regions) if len(found.regions) == 1 else [list(found.regions)]
    record = {**found.about, "format": "sparsify", "regions": regions}
    aside = done.folder / f".{REGIONS}.new"
    write_bytes(aside, json.dumps(record, indent=1).encode() + b"\n")
    aside.replace(done.folder / REGIONS)


def _latent_of(dictionary: Dictionary, coder: Path, found: _Direction) -> int:
    """The latent of a sparsify export that is the region's direction."""
    if len(found.regions) > 1:
        raise ValueError(
            f"{len(found.regions)} regions were given, and their sum is no latent of a sparsify "
            "export; leave --sparsify out"
        )
    try:
        record = json.loads((coder / REGIONS).read_bytes())
        latents = list(record["regions"])
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        raise FormatError(
            f"{coder} holds no sparsify export of ours; write one with `exemplars export sparsify`"
        ) from None
    keys = ("format", "basis", "percentile", "threshold", "model_fingerprint", "site")
    here = {**found.about, "format": "sparsify"}
    other = [key for key in keys if record.get(key) != here[key]]
    if other:
        raise MismatchError(
            f"{coder} is an export with {other[0]} {record.get(other[0])}, and the dictionary has "
            f"{here[other[0]]}; export this dictionary"
        )
    if found.regions[0] not in latents:
        raise MismatchError(
            f"{coder} has {len(latents):,} regions, and {found.name} is not among them; export "
            "with fewer filters"
        )
    latent = latents.index(found.regions[0])
    row = _decoder_row(coder / WEIGHTS, latent)
    if row.shape != found.vector.shape or row @ found.vector < (1 - _DIFFERS) * math.sqrt(
        row @ row
    ):
        raise MismatchError(
            f"latent {latent} of {coder} is not the direction of {found.name}; export this "
            "dictionary"
        )
    return latent


def _decoder_row(path: Path, latent: int) -> Float64:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            row = file.get_slice("W_dec")[latent]
    except (SafetensorError, OSError, IndexError) as error:
        raise FormatError(f"{path} cannot be read ({error}); export it again") from None
    return np.asarray(row.double().numpy())


def _architecture(dictionary: Dictionary) -> str | None:
    """GGUF's name of the model's architecture, from its class: LlamaForCausalLM is llama."""
    about = dictionary.provenance.get("model")
    name = about.get("class") if isinstance(about, dict) else None
    if not isinstance(name, str):
        return None
    stem = re.fullmatch(r"(\w+?)(ForCausalLM|LMHeadModel|ForConditionalGeneration)", name, re.ASCII)
    if stem is None:
        return None
    plain = stem[1].lower()
    return _GGUF_NAMES.get(plain, plain)


@contextlib.contextmanager
def _new_file(
    out: str | os.PathLike[str], ours: Callable[[Path], bool], what: str, overwrite: bool
) -> Iterator[Path]:
    """A path to write to, which takes the place of `out` if the block succeeds."""
    place = place_of(out)
    if place.exists() and not place.is_file():
        raise FormatError(f"{place} is not a file, expected one or nothing; choose another name")
    if place.exists():
        if not ours(place):
            raise FormatError(f"{place} is a file that is not {what}; choose another name")
        if not overwrite:
            raise FormatError(f"{place} is already there; choose another name, or --overwrite")
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}.new")
    new.unlink(missing_ok=True)
    try:
        yield new
        new.replace(place)
    finally:
        new.unlink(missing_ok=True)


def _is_control_vector(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"GGUF") and _ARCHITECTURE.encode() in head


def _is_steering_file(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
    except SafetensorError:
        return False
    return _RECORD in (metadata or {})


def _is_lm_eval_csv(path: Path) -> bool:
    head = ",".join(COLUMNS).encode()
    with path.open("rb") as file:
        return file.read(len(head)) == head


def _done(
    format_: str,
    out: str | os.PathLike[str],
    found: _Direction,
    strength: float,
    vectors: Mapping[int, Float32],
    warnings: Sequence[str],
) -> DirectionExport:
    first = next(iter(vectors.values()))
    return DirectionExport(
        format=format_,
        file=Path(out),
        regions=found.regions,
        layers=tuple(vectors),
        basis=found.basis,
        action="add",
        strength=float(strength),
        length=float(np.linalg.norm(first.astype(np.float64))),
        bytes=place_of(out).stat().st_size,
        warnings=tuple(warnings),
    )
