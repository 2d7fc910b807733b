"""Exemplar Partitioning dictionaries of neural-network activations.

Names are loaded when they are first used: importing the package imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exemplars.activations import ActivationBatch as ActivationBatch
    from exemplars.activations import ActivationShards as ActivationShards
    from exemplars.activations import read_activations as read_activations
    from exemplars.building import BuildPlan as BuildPlan
    from exemplars.building import build as build
    from exemplars.building import census as census
    from exemplars.building import plan as plan
    from exemplars.calibration import Calibration as Calibration
    from exemplars.calibration import calibrate as calibrate
    from exemplars.contexts import Context as Context
    from exemplars.corpora import Texts as Texts
    from exemplars.corpora import texts as texts
    from exemplars.diagnosis import Diagnosis as Diagnosis
    from exemplars.diagnosis import diagnose as diagnose
    from exemplars.dictionary import Dictionary as Dictionary
    from exemplars.dictionary import Region as Region
    from exemplars.dictionary import partition as partition
    from exemplars.errors import ActivationError as ActivationError
    from exemplars.errors import AuditError as AuditError
    from exemplars.errors import CalibrationError as CalibrationError
    from exemplars.errors import ExemplarsError as ExemplarsError
    from exemplars.errors import FormatError as FormatError
    from exemplars.errors import MismatchError as MismatchError
    from exemplars.errors import SourceError as SourceError
    from exemplars.generation import Answer as Answer
    from exemplars.generation import generate as generate
    from exemplars.generation import stream as stream
    from exemplars.hub import pull as pull
    from exemplars.hub import push as push
    from exemplars.intervene import Edit as Edit
    from exemplars.intervene import ablate as ablate
    from exemplars.intervene import add as add
    from exemplars.intervene import cap as cap
    from exemplars.intervene import edited as edited
    from exemplars.intervene import patch as patch
    from exemplars.intervene import swap as swap
    from exemplars.legacy import import_reference as import_reference
    from exemplars.lens import Lens as Lens
    from exemplars.lens import logit_lens as logit_lens
    from exemplars.members import MemberStatistics as MemberStatistics
    from exemplars.models import Model as Model
    from exemplars.models import Site as Site
    from exemplars.models import load_model as load_model
    from exemplars.nearest import Audit as Audit
    from exemplars.store import load as load
    from exemplars.store import save as save
    from exemplars.streaming import Progress as Progress
    from exemplars.streaming import extract as extract
    from exemplars.tokenization import Tokenization as Tokenization
    from exemplars.tracing import Trace as Trace
    from exemplars.tracing import trace as trace

_MODULE_OF = {
    "ActivationBatch": "activations",
    "ActivationError": "errors",
    "ActivationShards": "activations",
    "Answer": "generation",
    "Audit": "nearest",
    "AuditError": "errors",
    "BuildPlan": "building",
    "Calibration": "calibration",
    "CalibrationError": "errors",
    "Context": "contexts",
    "Diagnosis": "diagnosis",
    "Dictionary": "dictionary",
    "Edit": "intervene",
    "ExemplarsError": "errors",
    "FormatError": "errors",
    "Lens": "lens",
    "MemberStatistics": "members",
    "MismatchError": "errors",
    "Model": "models",
    "Progress": "streaming",
    "Region": "dictionary",
    "Site": "models",
    "SourceError": "errors",
    "Texts": "corpora",
    "Tokenization": "tokenization",
    "Trace": "tracing",
    "ablate": "intervene",
    "add": "intervene",
    "build": "building",
    "calibrate": "calibration",
    "cap": "intervene",
    "census": "building",
    "diagnose": "diagnosis",
    "edited": "intervene",
    "extract": "streaming",
    "generate": "generation",
    "import_reference": "legacy",
    "load": "store",
    "load_model": "models",
    "logit_lens": "lens",
    "partition": "dictionary",
    "patch": "intervene",
    "plan": "building",
    "pull": "hub",
    "push": "hub",
    "read_activations": "activations",
    "save": "store",
    "stream": "generation",
    "swap": "intervene",
    "texts": "corpora",
    "trace": "tracing",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("exemplars")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'exemplars' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"exemplars.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
