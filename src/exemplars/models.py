"""Load a Hugging Face model, name the sites in it, and say exactly which model it is.

A *site* is a place in a model where activations are read. It goes by three spellings, and
`Model.site` takes any of them: `resid_post.12`, TransformerLens's `blocks.12.hook_resid_post`,
and the module path `model.layers.12`, with `:in` for a module's input. `attn_out` and `mlp_out`
are what a layer adds to its residual stream, so after a norm where the architecture has one there.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exemplars.errors import SourceError

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

KINDS = ("resid_pre", "attn_out", "mlp_out", "resid_post")
"""The named places of a layer, in the order of its computation."""

# Of each kind: a norm that always follows it, one that does so in some architectures, and what
# computes it.
_PARTS = {
    "attn_out": (
        "post_self_attn_layernorm",
        "post_attention_layernorm",
        ("self_attn", "attn", "attention", "self_attention", "linear_attn"),
    ),
    "mlp_out": (
        "post_mlp_layernorm",
        "post_feedforward_layernorm",
        ("mlp", "feed_forward", "block_sparse_moe", "fc2"),
    ),
}
_FINAL_NORM = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "norm_f", "final_norm")
_TRANSFORMER_LENS = {
    **{f"hook_{kind}": kind for kind in KINDS},
    "hook_in": "resid_pre",
    "hook_out": "resid_post",
}


@dataclass(frozen=True)
class Site:
    """A place in a model where activations are read or changed."""

    name: str
    """`resid_pre.N`, `attn_out.N`, `mlp_out.N`, `resid_post.N`, or the module path (`:in` after it
    for the input). One place has one name, whichever spelling asked for it."""
    module_path: str
    io: str
    """"in": the first input of the module; "out": its output (the first, of several)."""
    layer: int | None
    spellings: dict[str, str | None] = field(compare=False)
    """The place in the words of "exemplars", "transformer_lens" (None if it has none), "module"."""


@dataclass(frozen=True, eq=False)
class Model:
    """A language model and its tokenizer, with its layers, sites and identity."""

    module: nn.Module = field(repr=False)
    tokenizer: Any = field(repr=False)
    name: str
    """As the user wrote it; the class name for a module given as an object."""
    revision: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating-point weight."""
        return next(p.dtype for p in self.module.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        """Where the first weight is, and so where token ids go."""
        return next(self.module.parameters()).device

    @cached_property
    def base(self) -> nn.Module:
        """What computes the residual stream and stops short of the unembedding."""
        decoder = getattr(self.module, "get_decoder", None)
        found = decoder() if decoder is not None else getattr(self.module, "base_model", None)
        return self.module if found is None else found

    @cached_property
    def accepts(self) -> frozenset[str]:
        """The names of the arguments that `base` takes."""
        return frozenset(inspect.signature(self.base.forward).parameters)

    @cached_property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers, in order.

        Raises:
            ValueError: If the module has no list of as many layers as its config says.
        """
        from torch import nn

        expected = getattr(self._config, "num_hidden_layers", None)
        lists = [
            (path.count("."), module)
            for path, module in self.base.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == (expected or len(module))
        ]
        if not lists:
            raise ValueError(
                f"{type(self.module).__name__} has no list of {expected or 'its'} layers; "
                "name the site by its module path"
            )
        # The longest (where no config says) and shallowest: a layer may hold as many experts.
        longest = max(len(module) for _, module in lists)
        return min((found for found in lists if len(found[1]) == longest), key=lambda f: f[0])[1]

    @property
    def n_layers(self) -> int:
        """How many layers the decoder has."""
        return len(self.layers)

    @cached_property
    def width(self) -> int:
        """Width of the residual stream."""
        hidden_size = getattr(self._config, "hidden_size", None)
        if hidden_size is None:
            embed = getattr(self.module, "get_input_embeddings", lambda: None)()
            hidden_size = getattr(embed, "embedding_dim", None)
        if hidden_size is None:
            raise ValueError(
                f"{type(self.module).__name__} has no config.hidden_size to say how wide its "
                "residual stream is; set one"
            )
        return int(hidden_size)

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last layer and the unembedding.

        Raises:
            ValueError: If none is found beside the layers.
        """
        above = self._path(self.layers).rpartition(".")[0]
        children = dict(self.module.get_submodule(above).named_children())
        for name in _FINAL_NORM:
            if name in children:
                return children[name]
        raise ValueError(
            f"no final norm beside the layers of {type(self.module).__name__}, only "
            f"{', '.join(children)}"
        )

    @property
    def unembedding(self) -> nn.Module:
        """The linear map from the final norm's output to logits.

        Raises:
            ValueError: If the module has none.
        """
        found = getattr(self.module, "get_output_embeddings", lambda: None)()
        if found is None:
            raise ValueError(
                f"{type(self.module).__name__} has no unembedding; load the model with its "
                "language-model head"
            )
        return found

    @property
    def embedding(self) -> nn.Module:
        """The table of input vectors, a row for each token.

        Raises:
            ValueError: If the module has none.
        """
        found = getattr(self.module, "get_input_embeddings", lambda: None)()
        if found is None:
            raise ValueError(f"{type(self.module).__name__} has no input embedding")
        return found

    @cached_property
    def max_positions(self) -> int | None:
        """Most tokens in one piece, where the config says."""
        limit = getattr(self._config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    @cached_property
    def separates_packed(self) -> bool:
        """Whether documents packed into one row leave each other alone; two short passes tell.

        Not every architecture that takes position ids does so (OPT and Falcon do not).
        """
        import torch

        numbers = torch.arange(1, 17, device=self.device).reshape(2, 8)
        one, two = numbers % min(17, len(self.tokenizer))
        position_ids = torch.arange(8, device=self.device).repeat(2)[None]
        ends = []
        # A cache would turn the separation off.
        no_cache = {"use_cache": False} if "use_cache" in self.accepts else {}
        with evaluating(self.module), torch.no_grad():
            for before in (one, one.flip(0)):
                ids = torch.cat([before, two])[None]
                out = self.base(input_ids=ids, position_ids=position_ids, **no_cache)
                hidden = out if isinstance(out, torch.Tensor) else out[0]
                ends.append(hidden[0, 8:].float())
        change = (ends[1] - ends[0]).norm(dim=1) / ends[0].norm(dim=1)
        # Exactly 0 where nothing leaks, but for a mixture of experts, whose batches then differ.
        return bool(change.max() < 0.02)

    @cached_property
    def pads_left_cleanly(self) -> bool:
        """Whether a prompt padded on the left gives the logits it gives alone; two passes tell."""
        import torch

        ids = (torch.arange(1, 9, device=self.device) % min(17, len(self.tokenizer)))[None]
        padding = torch.zeros((1, 5), dtype=ids.dtype, device=self.device)
        found = []
        with evaluating(self.module), torch.no_grad():
            for before in (padding[:, :0], padding):
                attention = torch.cat([torch.zeros_like(before), torch.ones_like(ids)], dim=1)
                inputs = {
                    "attention_mask": attention,
                    "position_ids": (attention.cumsum(1) - 1).clamp(min=0),
                }
                taken = {key: value for key, value in inputs.items() if key in self.accepts}
                out = self.module(input_ids=torch.cat([before, ids], dim=1), **taken)
                found.append(out.logits[0, -8:].float())
        change = (found[1] - found[0]).norm() / found[0].norm()
        return bool(change < 0.02)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names, shapes and bfloat16-rounded values of the weights.

        The rounding gives one checkpoint one fingerprint, loaded in float32 or in bfloat16. A
        weight used twice counts once. Computed once: change the weights, make a new `Model`.
        """
        import torch

        digest, seen = hashlib.sha256(), set()
        for name, tensor in sorted(self.module.state_dict().items()):
            if tensor.is_meta:
                raise ValueError(f"the weight {name} is offloaded; load the model into memory")
            storage = (tensor.device, tensor.data_ptr(), tensor.shape)
            if storage in seen and tensor.numel():
                continue
            seen.add(storage)
            if tensor.is_floating_point():
                tensor = tensor.to(torch.bfloat16)
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(raw.numpy().data)
        return digest.hexdigest()

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """SHA-256 over the vocabulary, the rules, the special tokens and the chat template."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = json.loads(backend.to_str()) if backend is not None else {}
        # Left behind by the last call that truncated or padded; no part of the tokenizer.
        rules.pop("truncation", None)
        rules.pop("padding", None)
        special = getattr(self.tokenizer, "special_tokens_map", {})
        identity = {
            "vocabulary": sorted(self.tokenizer.get_vocab().items()),
            "rules": rules,
            "special": {name: str(token) for name, token in special.items()},
            "chat_template": getattr(self.tokenizer, "chat_template", None),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a manifest says about the model."""
        return {
            "name": self.name,
            "revision": self.revision,
            "class": type(self.module).__name__,
            "fingerprint": self.fingerprint,
            "tokenizer_fingerprint": self.tokenizer_fingerprint,
            "dtype": str(self.dtype).removeprefix("torch."),
            "width": self.width,
            "n_layers": self.n_layers,
        }

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own `generate`."""
        return self.module.generate(*args, **kwargs)

    def site(self, name: str | Site) -> Site:
        """The site of that name, in any of the three spellings.

        Args:
            name: "resid_post.12", "blocks.12.hook_resid_post", or "model.layers.12" (":in" or
                ":out" after it; out if neither). A negative layer counts from the last.

        Raises:
            ValueError: If the model has no such site.
        """
        text = name.name if isinstance(name, Site) else name
        ours = re.fullmatch(rf"({'|'.join(KINDS)})\.(-?\d+)", text)
        lens = re.fullmatch(r"blocks\.(-?\d+)\.(hook_\w+)", text)
        if ours:
            return self._layer_site(text, ours[1], int(ours[2]))
        if lens and lens[2] in _TRANSFORMER_LENS:
            return self._layer_site(text, _TRANSFORMER_LENS[lens[2]], int(lens[1]))
        path, _, io = text.partition(":")
        if path not in self._modules or io not in ("", "in", "out"):
            raise ValueError(self._no_such_site(text))
        place = (path, io or "out")
        if place in self._named_places:
            return self._layer_site(text, *self._named_places[place])
        return self._path_site(*place)

    @property
    def _config(self) -> Any:
        config = getattr(self.module, "config", None)
        text_config = getattr(config, "get_text_config", None)
        return config if text_config is None else text_config()

    @cached_property
    def _modules(self) -> dict[str, nn.Module]:
        return {path: module for path, module in self.module.named_modules() if path}

    def _path(self, module: nn.Module) -> str:
        return str(next(path for path, found in self.module.named_modules() if found is module))

    @cached_property
    def _named_places(self) -> dict[tuple[str, str], tuple[str, int]]:
        """(module path, "in" or "out") of each place that has a kind and a layer."""
        try:
            above = self._path(self.layers)
        except ValueError:
            return {}
        places = {}
        for number, layer in enumerate(self.layers):
            for kind in KINDS:
                child = _child_of_kind(layer, kind)
                if child is not None:
                    path = f"{above}.{number}.{child}".rstrip(".")
                    places[path, "in" if kind == "resid_pre" else "out"] = (kind, number)
        return places

    def _layer_site(self, asked: str, kind: str, number: int) -> Site:
        if not -self.n_layers <= number < self.n_layers:
            raise ValueError(self._no_such_site(asked))
        number %= self.n_layers
        for (path, io), place in self._named_places.items():
            if place == (kind, number):
                spellings: dict[str, str | None] = {
                    "exemplars": f"{kind}.{number}",
                    "transformer_lens": f"blocks.{number}.hook_{kind}",
                    "module": path if io == "out" else f"{path}:in",
                }
                return Site(f"{kind}.{number}", path, io, number, spellings)
        above, layer = self._path(self.layers), self.layers[number]
        children = ", ".join(f"{above}.{number}.{child}" for child, _ in layer.named_children())
        raise ValueError(
            f"what {kind} is in a {type(layer).__name__} is not known; give the path of the module "
            f"whose output the layer adds to its residual stream: {children}"
        )

    def _path_site(self, path: str, io: str) -> Site:
        try:
            inside = re.match(rf"{re.escape(self._path(self.layers))}\.(\d+)", path)
        except ValueError:
            inside = None
        name = path if io == "out" else f"{path}:in"
        spellings: dict[str, str | None] = {
            "exemplars": name,
            "transformer_lens": None,
            "module": name,
        }
        return Site(name, path, io, int(inside[1]) if inside else None, spellings)

    def _no_such_site(self, name: str) -> str:
        try:
            kinds = ", ".join(f"{kind}.N" for kind in KINDS)
            known = f"{kinds} with N from 0 to {self.n_layers - 1}"
            names = [f"{kind}.{number}" for kind, number in self._named_places.values()]
        except ValueError:
            known, names = "its module paths", []
        close = difflib.get_close_matches(name, [*names, *self._modules], n=3)
        hint = f"; close to it: {', '.join(close)}" if close else ""
        return f"{self.name} has no site {name!r}, but {known}, or the path of any module{hint}"


def load_model(
    source: Any,
    tokenizer: Any = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """A model with its tokenizer, in eval mode, on the CPU unless `device` says otherwise.

    Args:
        source: A hub id, a folder, a `.gguf` file, "package:NAME" (a model that an installed
            distribution carries), or an `nn.Module`, which keeps its mode, dtype and device
            unless those are given.
        tokenizer: A tokenizer, or the id or folder of one; the model's own by default.
        device: Where the model goes, "cuda" say; a module stays where it is by default.
        dtype: The checkpoint's own by default, float32 for a GGUF file.
        revision: Of a hub id: branch, tag or commit.
        trust_remote_code: Run the code that a hub repository carries.

    Raises:
        SourceError: If the model or its tokenizer cannot be found or read.
        ValueError: If an argument does not fit.

    The first load of a GGUF file converts it, which takes a while, and keeps the result in
    `$EXEMPLARS_CACHE` (`~/.cache/exemplars`), four bytes per weight.
    """
    from torch import nn

    wanted = _dtype(dtype)
    if device is not None:
        _check_device(device)
    if isinstance(source, nn.Module):
        if tokenizer is None:
            raise ValueError("a module given as an object needs its tokenizer; pass tokenizer=")
        loaded = _load_tokenizer(tokenizer, None, trust_remote_code)
        if device is not None or wanted is not None:
            source.to(device=device, dtype=wanted)
        return Model(source, loaded, type(source).__name__)

    place = _locate(str(source))
    if place.endswith(".gguf"):
        place = str(_converted(Path(place)))
    with _quiet():
        module = _pretrained(
            "AutoModelForCausalLM",
            place,
            dtype=wanted or "auto",
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
        loaded = _load_tokenizer(
            place if tokenizer is None else tokenizer,
            revision if tokenizer is None else None,
            trust_remote_code,
        )
    module.eval()
    return Model(module if device is None else module.to(device), loaded, str(source), revision)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode; afterwards each submodule is in the mode it was in."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _child_of_kind(layer: nn.Module, kind: str) -> str | None:
    """Which child's output (for resid_*, "" the layer itself) is of that kind; None if unknown."""
    if kind in ("resid_pre", "resid_post"):
        return ""
    has = dict(layer.named_children())
    # What is added is not one module's output: scaled, mixed with a state-space branch, spread
    # over several streams.
    if getattr(layer, "residual_multiplier", 1.0) != 1.0 or has.keys() & {"mamba", "altup"}:
        return None
    # `post_attention_layernorm` follows the attention in Gemma and OLMo-2, but in Llama it comes
    # before the MLP: only the company it keeps tells which.
    sandwich = "pre_feedforward_layernorm" in has or (
        "input_layernorm" not in has and "post_feedforward_layernorm" in has
    )
    norm, sandwich_norm, children = _PARTS[kind]
    if norm in has:
        return norm
    if sandwich and sandwich_norm in has:
        return sandwich_norm
    child = next((child for child in children if child in has), None)
    # A child that is handed the residual stream (BLOOM) gives back the sum, not what it adds.
    if child is None or "residual" in inspect.signature(has[child].forward).parameters:
        return None
    return child


def _dtype(dtype: Any) -> Any:
    import torch

    if dtype is None or dtype == "auto" or isinstance(dtype, torch.dtype):
        return None if dtype == "auto" else dtype
    if dtype not in ("bfloat16", "float16", "float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; choose bfloat16, float16 or float32")
    return getattr(torch, dtype)


def _check_device(device: Any) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device {str(device)!r} cannot be used ({reason}); choose one this machine has"
        ) from error


def _locate(source: str) -> str:
    """A hub id as it is; else the path of a GGUF file or a model folder."""
    if source.startswith("package:"):
        return str(_in_package(source.removeprefix("package:")))
    path = Path(source).expanduser()
    if path.is_dir():
        if (path / "config.json").exists() or (path / "adapter_config.json").exists():
            return str(path)
        found = sorted(path.glob("*.gguf"))
        if len(found) != 1:
            raise SourceError(
                f"the folder {source} holds no config.json and {len(found)} GGUF files; "
                "give a model folder or one .gguf file"
            )
        return str(found[0])
    if path.is_file() and path.suffix == ".gguf":
        return str(path)
    if path.exists():
        raise SourceError(
            f"{source} is neither a model folder nor a .gguf file; give one of those or a hub id"
        )
    if path.suffix == ".gguf" or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        raise SourceError(f"there is no {source}; give a folder, a .gguf file, or a hub id")
    return source


def _in_package(name: str) -> Path:
    """The GGUF file or model folder that an installed distribution carries; imports nothing."""
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise SourceError(
            f"no installed package is called {name!r}; install it into this environment"
        ) from None
    found = sorted(
        str(distribution.locate_file(file if file.suffix == ".gguf" else file.parent))
        for file in distribution.files or ()
        if file.suffix == ".gguf" or file.name == "config.json"
    )
    if len(found) != 1:
        models = f"{len(found)} models ({', '.join(found)})" if found else "no model"
        raise SourceError(
            f"the package {name} carries {models}; give the path of one .gguf file or model folder"
        )
    return Path(found[0])


def _load_tokenizer(source: Any, revision: str | None, trust_remote_code: bool) -> Any:
    if not isinstance(source, (str, os.PathLike)):
        return source
    return _pretrained(
        "AutoTokenizer", str(source), revision=revision, trust_remote_code=trust_remote_code
    )


def _pretrained(auto_class: str, source: str, **options: Any) -> Any:
    """`from_pretrained` of a transformers class, its failures as one sentence."""
    import transformers
    from safetensors import SafetensorError

    local = Path(source).exists()
    try:
        return getattr(transformers, auto_class).from_pretrained(source, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = re.split(r"\.?\s*\n|\. ", str(error).strip())[0].strip(" .")
        advice = (
            "check that the folder is complete"
            if local
            else "check the id and the network, log in if it is gated, or give a local folder"
        )
        what = "model" if auto_class == "AutoModelForCausalLM" else "tokenizer"
        raise SourceError(
            f"no {what} could be loaded from {source} ({reason}); {advice}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the bars that transformers draws for its own work; a download keeps its bar."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as bars

    def draw(own: bool, downloads: bool) -> None:
        with warnings.catch_warnings():  # the hub's variable in the environment has the last word
            warnings.simplefilter("ignore")
            (bars.enable_progress_bar if own else bars.disable_progress_bar)()  # the hub's too
            (enable_progress_bars if downloads else disable_progress_bars)()

    own, downloads = bars.is_progress_bar_enabled(), not are_progress_bars_disabled()
    draw(False, downloads)
    try:
        yield
    finally:
        draw(own, downloads)


def cache_folder() -> Path:
    """Where what was computed once is kept: `$EXEMPLARS_CACHE`, or `~/.cache/exemplars`."""
    return Path(os.environ.get("EXEMPLARS_CACHE") or Path.home() / ".cache" / "exemplars")


def _converted(file: Path) -> Path:
    """The GGUF file as a folder of float32 safetensors and a tokenizer, made once."""
    digest = _sha256(file)
    folder = cache_folder() / "converted" / digest
    if folder.exists():
        return folder
    if not all(importlib.util.find_spec(name) for name in ("gguf", "accelerate")):
        raise SourceError(
            f"reading {file.name} needs the packages gguf and accelerate, and they are not "
            "installed; pip install 'exemplars[gguf]'"
        )
    aside = folder.with_name(f"{digest}.{os.getpid()}.partial")
    try:
        aside.mkdir(parents=True)
        logger.info("converting %s, once, into %s", file, folder)
        # transformers draws this one bar whatever it is told.
        with _quiet(), redirect_stderr(StringIO()):
            _convert(file, aside)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was first; its copy is the same
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _convert(file: Path, folder: Path) -> None:
    import torch
    import transformers

    options: dict[str, Any] = {"gguf_file": file.name, "dtype": torch.float32}
    if hasattr(transformers, "GgufConfig"):  # else the weights may stay packed
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = _pretrained("AutoModelForCausalLM", str(file.parent), **options)
    tokenizer = _pretrained("AutoTokenizer", str(file.parent), gguf_file=file.name)
    # The weights are plain now, but the marks of the file's quantization forbid saving them.
    for owner, mark in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "quantization_method"),
    ):
        if hasattr(owner, mark):
            delattr(owner, mark)
    model.is_quantized = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
