"""Change a model's activations while it runs: add, ablate, swap, patch and cap directions.

An `Edit` says what happens to the vectors of one site, `edited` puts edits on a model, and `add`,
`ablate`, `swap`, `patch` and `cap` do both for one. With x a vector, c the dictionary's center,
u a unit direction, Q orthonormal rows that span several, n the site's median norm, s the strength:

    add     x + s n u                        cap    x - s max(u·(x - c) - limit n, 0) u
    ablate  x - s QᵀQ (x - c)                patch  x + s (‖x - c‖ u + c - x)
    swap    x - s QᵀQ (x - target)

Ablation, swap and patch as in Rumbelow 2026 (arXiv:2605.14347). Vectors are changed in float32 (or
the model's dtype, if that is wider) and rounded back; where nothing is edited, and at strength 0,
they keep their bits. Edits of one site apply in the order given, those of a nested `with` after
those of the outer one.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars.dictionary import Region
from exemplars.errors import ActivationError, MismatchError
from exemplars.geometry import Float32
from exemplars.models import KINDS, Model, Site
from exemplars.tokenization import chat_prefix

if TYPE_CHECKING:
    import torch

OPERATIONS = ("add", "ablate", "swap", "patch", "cap")
POSITIONS = ("edited", "all", "generated")
_SMALLEST = 1e-4
"""Unit directions whose singular value is smaller add no dimension; a shorter sum has cancelled."""

Directions = "Region | Sequence[Region] | NDArray[Any]"
"""A region, several, or arrays (D,) or (k, D) of any length."""
Positions = "str | int | NDArray[np.bool_] | Callable[[NDArray[np.int64]], NDArray[np.bool_]]"
"""Which positions are edited, among those attended to:

- "edited": all after the fixed prefix: after the chat template's where the text begins with it,
  else after the first position (an attention sink in most models);
- "all";
- "generated": what the model reads of its own writing, told by its cache;
- n: all from position n on, counted from 0;
- a mask (B, T) of the first pass; what is generated is then left as it is;
- a function of positions (B, T) int64, -1 in padding, that returns a mask (B, T).
"""

prefix_lengths: ContextVar[NDArray[np.int64] | None] = ContextVar("prefix_lengths", default=None)
"""(B,) tokens of the fixed prefix in each row of the coming pass, where the caller knows them."""


@dataclass(frozen=True, eq=False)
class Edit:
    """What happens to the vectors of one site. Made by `Edit.add` and its like."""

    site: str
    operation: str
    directions: Float32
    """(k, D) float32; orthonormal rows for "ablate" and "swap", one unit row for the others."""
    point: Float32
    """(D,) raw: the center, for "swap" the target; not used by "add"."""
    strength: float
    unit: float
    """Length of a strength or limit of 1 in raw units: the site's median activation norm."""
    limit: float = np.inf
    """Of "cap": the largest coordinate along the direction, in `unit`s."""
    positions: Any = field(default="edited", repr=False)

    @classmethod
    def add(
        cls,
        what: Any,
        strength: float,
        *,
        site: str | None = None,
        unit: float | None = None,
        basis: str = "exemplar",
        positions: Any = "edited",
    ) -> Edit:
        """Add the direction of `what` (of several, that of the sum), `strength` norms long.

        Args:
            what: A region, several, or an array; see `Directions`.
            strength: In units of the site's median activation norm; negative subtracts.
            site: Of an array; a region knows its own.
            unit: What a strength of 1 is in raw units; a region's median norm by default, and 1
                for an array.
            basis: "exemplar" or "mean": the direction of a region.
            positions: See `Positions`.

        Raises:
            ValueError: Not a finite direction, no site, or an argument out of range.
        """
        rows, place, _, norm = _resolved(what, site, None, unit, basis)
        return cls(
            place, "add", _sum(rows), np.zeros_like(rows[0]), strength, norm, **_at(positions)
        )

    @classmethod
    def ablate(
        cls,
        what: Any,
        strength: float = 1.0,
        *,
        site: str | None = None,
        center: NDArray[Any] | None = None,
        basis: str = "exemplar",
        positions: Any = "edited",
    ) -> Edit:
        """Remove the span of directions from the centered vector; a region lends its center.

        Args as of `add`; strength 1 removes the span, 2 mirrors at it; center is zero for an
        array, unless given.
        """
        rows, place, middle, norm = _resolved(what, site, center, None, basis)
        return cls(place, "ablate", _orthonormal(rows), middle, strength, norm, **_at(positions))

    @classmethod
    def swap(
        cls,
        what: Any,
        target: Region | NDArray[Any],
        strength: float = 1.0,
        *,
        site: str | None = None,
        basis: str = "exemplar",
        positions: Any = "edited",
    ) -> Edit:
        """Move the vector, inside the span of directions, to where the target lies in that span.

        Args as of `ablate`, and:
            target: (D,) a raw point, such as a mean of raw activations; a region stands for its
                mean direction at the site's median distance from the center.
        """
        rows, place, _, norm = _resolved(what, site, None, None, basis)
        if isinstance(target, Region):
            _same_site([target], place)
            point = target.center + np.float32(target.median_centered_norm) * target.mean
        else:
            point = _array(target)
        if point.shape != rows.shape[1:] or not np.isfinite(point).all():
            raise ValueError(
                f"the target has shape {point.shape}, expected {rows.shape[1:]} finite values"
            )
        return cls(place, "swap", _orthonormal(rows), point, strength, norm, **_at(positions))

    @classmethod
    def patch(
        cls,
        what: Any,
        strength: float = 1.0,
        *,
        site: str | None = None,
        center: NDArray[Any] | None = None,
        basis: str = "mean",
        positions: Any = "edited",
    ) -> Edit:
        """Replace the vector's direction by that of `what`, at its own distance from the center.

        Args as of `ablate`; a strength below 1 goes only part of the way.
        """
        rows, place, middle, norm = _resolved(what, site, center, None, basis)
        return cls(place, "patch", _sum(rows), middle, strength, norm, **_at(positions))

    @classmethod
    def cap(
        cls,
        what: Any,
        limit: float,
        strength: float = 1.0,
        *,
        site: str | None = None,
        center: NDArray[Any] | None = None,
        unit: float | None = None,
        basis: str = "exemplar",
        positions: Any = "edited",
    ) -> Edit:
        """Hold the centered vector's coordinate along a direction at `limit` norms at most.

        Args as of `add` and `ablate`, and:
            limit: In units of the site's median activation norm; of either sign.
        """
        rows, place, middle, norm = _resolved(what, site, center, unit, basis)
        if not np.isfinite(limit):
            raise ValueError(f"the limit is {limit}, expected a finite number of median norms")
        return cls(place, "cap", _sum(rows), middle, strength, norm, limit, **_at(positions))

    def __post_init__(self) -> None:
        """Raise ValueError for a strength or a unit that is no number."""
        if not np.isfinite(self.strength):
            raise ValueError(f"the strength is {self.strength}, expected a finite number")
        if self.operation in ("add", "cap") and not np.isfinite(self.unit):
            raise ValueError(
                "the dictionary does not say its median activation norm; pass unit=, in raw units"
            )

    @property
    def width(self) -> int:
        """D."""
        return int(self.directions.shape[1])

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) vectors -> what is added to them, in float32 or their own dtype if wider."""
        import torch

        x = x.to(torch.promote_types(x.dtype, torch.float32))
        # Autocast would multiply in half precision.
        mixed = torch.is_autocast_enabled(x.device.type)
        with torch.autocast(x.device.type, enabled=False) if mixed else nullcontext():
            return self._delta(x)

    def _delta(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        rows, point = (
            torch.tensor(array, dtype=x.dtype, device=x.device)
            for array in (self.directions, self.point)
        )
        if self.operation == "add":
            return (self.strength * self.unit * rows[0]).expand_as(x)
        away = x - point
        if self.operation in ("ablate", "swap"):
            return -self.strength * ((away @ rows.T) @ rows)
        if self.operation == "patch":
            return self.strength * (away.norm(dim=-1, keepdim=True) * rows[0] - away)
        excess = torch.clamp(away @ rows[0] - self.limit * self.unit, min=0)
        return -self.strength * excess[..., None] * rows[0]


@contextmanager
def edited(model: Model, edits: Edit | Sequence[Edit]) -> Iterator[Model]:
    """The model with edits on it, at one site or several; without them again on every exit.

    Args:
        model: From `load_model`; its `generate`, its module, and everything that reads it.
        edits: In the order in which they apply at one site. One of strength 0 changes nothing.

    Raises:
        MismatchError: The model has another width at a site.
        ActivationError: While it runs: a site gives no vector for each token.
        ValueError: The model has no such site, or `edits` are something else.
    """
    several = isinstance(edits, Sequence) and all(isinstance(edit, Edit) for edit in edits)
    if not several and not isinstance(edits, Edit):
        raise ValueError(
            f"edits are a {type(edits).__name__}, expected an Edit or a list of them; make one "
            "with Edit.add and its like"
        )
    by_site: dict[str, list[Edit]] = {}
    for edit in [edits] if isinstance(edits, Edit) else edits:
        name = model.site(edit.site).name
        by_site.setdefault(name, []).append(edit)
        if name.partition(".")[0] in KINDS and edit.width != model.width:
            raise MismatchError(
                f"the edit at {edit.site} has width {edit.width} and {model.name} has "
                f"{model.width}; use a dictionary of this model"
            )
    running = _Pass(model)
    with ExitStack() as undo:
        acting = {
            name: [edit for edit in at_site if edit.strength != 0]
            for name, at_site in by_site.items()
        }
        if any(acting.values()):
            undo.callback(running.watch().remove)
        for name, at_site in acting.items():
            if at_site:
                undo.callback(_hook(model, model.site(name), at_site, running).remove)
        yield model


@contextmanager
def add(model: Model, what: Any, strength: float, **options: Any) -> Iterator[Model]:
    """The model while `Edit.add` is on it; same arguments."""
    with edited(model, Edit.add(what, strength, **options)):
        yield model


@contextmanager
def ablate(model: Model, what: Any, strength: float = 1.0, **options: Any) -> Iterator[Model]:
    """The model while `Edit.ablate` is on it; same arguments."""
    with edited(model, Edit.ablate(what, strength, **options)):
        yield model


@contextmanager
def swap(
    model: Model, what: Any, target: Any, strength: float = 1.0, **options: Any
) -> Iterator[Model]:
    """The model while `Edit.swap` is on it; same arguments."""
    with edited(model, Edit.swap(what, target, strength, **options)):
        yield model


@contextmanager
def patch(model: Model, what: Any, strength: float = 1.0, **options: Any) -> Iterator[Model]:
    """The model while `Edit.patch` is on it; same arguments."""
    with edited(model, Edit.patch(what, strength, **options)):
        yield model


@contextmanager
def cap(
    model: Model, what: Any, limit: float, strength: float = 1.0, **options: Any
) -> Iterator[Model]:
    """The model while `Edit.cap` is on it; same arguments."""
    with edited(model, Edit.cap(what, limit, strength, **options)):
        yield model


class _Pass:
    """What is known of the forward pass that is running: positions, and what of them is what."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.names = tuple(inspect.signature(model.base.forward).parameters)
        self.ids: torch.Tensor | None = None
        self.prefix: NDArray[np.int64] | None = None
        self.position = np.empty((0, 0), np.int64)
        self.n_cached = 0

    @cached_property
    def template(self) -> NDArray[np.int64]:
        """(n,) what the chat template puts before a user's message."""
        return chat_prefix(self.model.tokenizer)

    def watch(self) -> Any:
        """Look at every call of the base, from now on."""
        return self.model.base.register_forward_pre_hook(self._begin, with_kwargs=True)

    def _begin(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = {**dict(zip(self.names, args, strict=False)), **kwargs}
        self.ids = inputs.get("input_ids", args[0] if args else None)
        given = inputs.get("inputs_embeds") if self.ids is None else self.ids
        if given is None:
            raise ActivationError(
                "a pass began without input_ids or inputs_embeds; edits need one of them to tell "
                "positions"
            )
        shape = (int(given.shape[0]), int(given.shape[1]))
        cache = inputs.get("past_key_values")
        self.n_cached = 0 if cache is None else int(cache.get_seq_length())
        self.position = _positions(
            shape, self.n_cached, inputs.get("attention_mask"), inputs.get("position_ids")
        )
        if self.n_cached == 0 or self.prefix is None or len(self.prefix) != shape[0]:
            self.prefix = None
            known = prefix_lengths.get()
            if known is not None and len(known) == shape[0]:
                self.prefix = known

    def _prefixes(self) -> NDArray[np.int64]:
        """(B,) tokens before the first position that is edited by default."""
        found = np.ones(len(self.position), np.int64)
        if self.ids is None or not len(self.template):
            return found
        ids = self.ids.cpu().numpy()
        for row, (line, position) in enumerate(zip(ids, self.position, strict=True)):
            if np.array_equal(line[position >= 0][: len(self.template)], self.template):
                found[row] = len(self.template)
        return found

    def mask(self, positions: Any) -> NDArray[np.bool_] | None:
        """(B, T) where an edit acts in this pass; None if everywhere."""
        position = self.position
        attended = position >= 0
        if isinstance(positions, str):
            if positions == "generated":
                found = attended & (self.n_cached > 0)
            elif positions == "all":
                found = attended
            else:
                if self.prefix is None:
                    self.prefix = self._prefixes()
                found = attended & (position >= self.prefix[:, None])
        elif callable(positions):
            found = np.asarray(positions(position.copy()))
            if found.shape != position.shape or found.dtype != np.bool_:
                raise ValueError(
                    f"the function of positions returned {found.dtype} of shape {found.shape}; it "
                    f"must return bool of shape {position.shape}"
                )
            found = found & attended
        elif isinstance(positions, np.ndarray):
            if self.n_cached:
                found = np.zeros(position.shape, bool)
            elif positions.shape != position.shape:
                raise ValueError(
                    f"the mask of positions has shape {positions.shape} and the model reads "
                    f"{position.shape} tokens; give a mask of that shape"
                )
            else:
                found = positions & attended
        else:
            found = attended & (position >= positions)
        return None if found.all() else found


def _positions(shape: tuple[int, int], n_cached: int, mask: Any, own: Any) -> NDArray[np.int64]:
    """(B, T) position of each token in its text, -1 in padding.

    Args:
        shape: (B, T) of the pass.
        n_cached: Tokens that earlier passes read.
        mask: Attention mask: (B, T) or (B, n_cached + T), or (B, 1, T, keys) as made for a static
            cache, or several of those by kind of layer.
        own: Position ids, where the caller gave them.
    """
    T = shape[1]
    if getattr(mask, "ndim", 0) == 2:
        attended = (mask != 0).cpu().numpy()
        position = np.where(attended, attended.cumsum(axis=1) - 1, -1)[:, -T:]
        return np.ascontiguousarray(np.broadcast_to(position, shape), np.int64)
    own = own if getattr(own, "ndim", 3) <= 2 else None
    position = n_cached + np.arange(T) if own is None else own.cpu().numpy()
    position = np.array(np.broadcast_to(position, shape), np.int64)
    if mask is None:
        return position
    attends = _attends_itself(mask, n_cached, T)
    if own is None and not attends.all():
        raise ActivationError(
            "a pass came with padding, a mask that is not (batch, tokens) and no position_ids, so "
            "positions cannot be told; pass one of the two"
        )
    return np.where(attends, position, -1)


def _attends_itself(mask: Any, n_cached: int, T: int) -> NDArray[np.bool_]:
    """(B or 1, T) whether each token is attended to by itself: all are but padding."""
    import torch

    if isinstance(mask, Mapping):
        several = [part for part in mask.values() if part is not None]
        mask = mask.get("full_attention", several[0] if several else None)
        if mask is None:
            return np.ones((1, T), bool)
    if not isinstance(mask, torch.Tensor) or mask.ndim != 4:
        raise ActivationError(
            f"a pass came with an attention mask that is a {type(mask).__name__}, of which "
            "positions cannot be told; pass one of shape (batch, tokens)"
        )
    keys = mask.shape[-1]
    # The keys of a static cache go on beyond the tokens; those of a sliding window end with them.
    first = n_cached if keys >= n_cached + T else keys - T
    own = mask[:, 0, :, first : first + T].diagonal(dim1=-2, dim2=-1)
    seen = own if own.dtype == torch.bool else own > torch.finfo(own.dtype).min / 2
    return seen.cpu().numpy()


def _hook(model: Model, site: Site, edits: list[Edit], running: _Pass) -> Any:
    """Register on the site's module what changes its vectors."""
    module = model.module.get_submodule(site.module_path)

    def changed(x: torch.Tensor) -> torch.Tensor:
        import torch

        B, T = running.position.shape
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            raise ActivationError(
                f"{site.name} gave no vectors but a {type(x).__name__}; edit another site"
            )
        if x.shape[:-1] not in ((B, T), (B * T,)):
            raise ActivationError(
                f"{site.name} gave {tuple(x.shape)} for {B} x {T} tokens, not a vector for each; "
                "edit another site"
            )
        for edit in edits:
            if x.shape[-1] != edit.width:
                raise MismatchError(
                    f"the edit at {site.name} has width {edit.width} and the site gives "
                    f"{x.shape[-1]}; use a dictionary of this site"
                )
            mask = running.mask(edit.positions)
            if mask is not None and not mask.any():
                continue
            delta = edit.change(x)
            after = (x.to(delta.dtype) + delta).to(x.dtype)
            if mask is not None:
                where = torch.from_numpy(mask).to(x.device).reshape(x.shape[:-1])
                after = torch.where(where[..., None], after, x)
            x = after
        return x.contiguous()  # the next module may view it in another shape

    if site.io == "in":
        return module.register_forward_pre_hook(
            lambda _, args, kwargs: _with_input(changed, args, kwargs), with_kwargs=True
        )
    return module.register_forward_hook(lambda _, args, output: _with_first(changed, output))


def _with_input(
    changed: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (changed(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": changed(kwargs.get("hidden_states"))}


def _with_first(changed: Callable[[Any], Any], output: Any) -> Any:
    """A module's output with its first tensor changed: a tensor, a tuple, a list, or a mapping."""
    import torch

    if isinstance(output, torch.Tensor):
        return changed(output)
    pairs: list[tuple[Any, Any]] = []
    if isinstance(output, Mapping):
        pairs = list(output.items())
    elif isinstance(output, (tuple, list)):
        pairs = list(enumerate(output))
    first = next((key for key, part in pairs if isinstance(part, torch.Tensor)), None)
    if first is None:
        return changed(output)  # which says what is wrong with it
    if isinstance(output, Mapping):
        after: Any = copy.copy(output)
        after[first] = changed(output[first])
        return after
    parts = [changed(part) if i == first else part for i, part in pairs]
    return type(output)(parts) if type(output) in (tuple, list) else type(output)(*parts)


def _at(positions: Any) -> dict[str, Any]:
    """The argument `positions`, looked at before a model runs."""
    if isinstance(positions, str) and positions not in POSITIONS:
        raise ValueError(
            f'positions is "{positions}"; choose {", ".join(POSITIONS)}, a number, a mask, or a '
            "function"
        )
    if isinstance(positions, np.ndarray) and (positions.ndim != 2 or positions.dtype != np.bool_):
        raise ValueError(
            f"the mask of positions is {positions.dtype} of {positions.ndim} dimensions; give bool "
            "of two, rows of the batch by tokens"
        )
    number = isinstance(positions, int | np.integer) and not isinstance(positions, bool)
    if number and positions < 0:
        raise ValueError(f"positions is {positions}; give the first position, from 0 on")
    if not (number or isinstance(positions, str | np.ndarray) or callable(positions)):
        raise ValueError(
            f"positions is a {type(positions).__name__}; choose {', '.join(POSITIONS)}, a number, "
            "a mask, or a function"
        )
    return {"positions": positions}


def _same_site(regions: Sequence[Region], site: str | None) -> None:
    sites = {region.site for region in regions} | ({site} if site else set())
    if len(sites) > 1:
        raise ValueError(
            f"the regions are of {' and '.join(sorted(map(str, sites)))}; edit each site by itself"
        )


def _resolved(
    what: Any, site: str | None, center: NDArray[Any] | None, unit: float | None, basis: str
) -> tuple[Float32, str, Float32, float]:
    """Directions (k, D) of unit length, the site's name, the center, and the unit of strength."""
    regions = [what] if isinstance(what, Region) else what
    norm = 1.0
    if isinstance(regions, Sequence) and all(isinstance(r, Region) for r in regions):
        if not regions:
            raise ValueError("no region was given; give at least one")
        _same_site(regions, None)
        empty = [r.index for r in regions if not np.isfinite(r.direction(basis)).all()]
        if empty:
            raise ValueError(f"region {empty[0]} has no {basis} direction; use basis exemplar")
        rows = np.stack([region.direction(basis) for region in regions])
        site = site or regions[0].site
        center = regions[0].center if center is None else center
        norm = regions[0].median_norm
    else:
        rows = np.atleast_2d(_array(what))
    lengths = np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ValueError(
            f"directions have shape {rows.shape}, expected (k, D) of finite rows none of which is 0"
        )
    if site is None:
        raise ValueError(
            "the site to edit is not known; pass site=, or use a dictionary built with a model"
        )
    middle = np.zeros(rows.shape[1], np.float32) if center is None else _array(center)
    if middle.shape != rows.shape[1:] or not np.isfinite(middle).all():
        raise ValueError(
            f"the center has shape {middle.shape}, expected {rows.shape[1:]} finite values"
        )
    norm = norm if unit is None else unit
    rows = (rows / lengths).astype(np.float32)
    return rows, site, middle, float(norm)


def _array(values: Any) -> Float32:
    """An array or a tensor in float32."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    try:
        return np.array(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"a {type(values).__name__} is no direction; give a region, several, or an array"
        ) from error


def _sum(rows: Float32) -> Float32:
    """(1, D) the direction of a sum of unit directions."""
    total = rows.astype(np.float64).sum(axis=0)
    length = float(np.linalg.norm(total))
    if length < _SMALLEST:
        raise ValueError("the directions cancel each other; give fewer")
    return (total / length).astype(np.float32)[None]


def _orthonormal(rows: Float32) -> Float32:
    """(r, D) orthonormal rows that span those given; r < k where some add no dimension."""
    _, sizes, spanned = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    return np.asarray(spanned[sizes > _SMALLEST], np.float32)
