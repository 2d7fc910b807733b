"""Graded scores of texts by rule: how much of a text is Spanish, code, upper case, and so on.

Each rule gives a share in [0, 1] of words, letters, lines or characters. They are crude, quick, and
the same for everyone; none knows what a text means. A text without what a rule counts scores 0.

Kinds of scores as in Rumbelow 2026 (arXiv:2605.14347, concept and partition steering); the lists
and patterns are this project's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exemplars.analyses.fluency import words
from exemplars.geometry import Float64


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SPANISH = _listed("""
    el los las una unos unas del al y o pero que no es son está están fue ser hay por para con sin
    sobre entre como más muy también cuando donde porque su sus este esta esto ese esa lo le les
    se mi tu nosotros ellos ella usted puede pueden hacer todo todos cada
""")
_FRENCH = _listed("""
    le les des du aux et ou mais où donc que qui est sont était être il elle ils elles nous vous
    je ce cette ces cet son sa ses leur leurs dans sur avec pour par sans sous entre chez pas plus
    très aussi une au comme quand parce peut peuvent faire tout tous chaque c'est n'est d'un
    d'une qu'il l'on
""")
_SPANISH_LETTERS, _FRENCH_LETTERS = "ñáíóú¿¡", "àâçèêëîïôœùû"
_LETTER_WEIGHT = 5.0
"""What a share of a language's own letters counts, against a share of its function words."""

_CODE = re.compile(
    r"^\s*(?:"
    r"(?:from\s+[\w.]+\s+)?import\s+[\w.{*\"'(]|"
    r"(?:async\s+)?(?:def|class|function|func|fn|struct|interface|enum)\s+\w+|"
    r"(?:public|private|protected|static|export|const|let|var)\s+\w+|"
    r"(?:if|elif|for|while|switch|catch)\b[^.]*[:{]\s*$|"
    r"(?:else|try|finally|do)\s*[:{]|"
    r"(?:return|yield|raise|throw)\b.*[;)\]\w]\s*$|"
    r"#include\b|#!|//|/\*|\*/|```|@\w+|<\/?[a-z]\w*[^>]*>|[}\])]+[;,]?\s*$|"
    r"[\w.\[\]'\"]+\s*(?:[-+*/|&]?=(?!=)|:=)\s*\S|"
    r"[\w.]+\([^)]*\)\s*[;{:]?\s*$|.*[;{]\s*$|"
    r"(?:select|insert\s+into|update|delete\s+from|create\s+table)\s+\S"
    r")",
    re.IGNORECASE,
)
_EQUATION = re.compile(
    r"\$[^$\n]+\$|\\\[.+?\\\]|\\\(.+?\\\)|"
    r"\\(?:frac|sum|int|sqrt|alpha|beta|theta|partial|cdot|times|left|right|begin|end|lim|log)\b|"
    r"[\w)\]}^]+\s*[-+*/^×·÷]\s*[\w(\[{]+(?:\s*[-+*/^×·÷]\s*[\w(\[{]+)*\s*[=<>≤≥≈]\s*[-\w(\\.]+|"
    r"\b\w+(?:\([\w, ]*\))?\s*[=≤≥≈≠]\s*[-\w(\\.√∑∫]+|"
    r"\d+\s*[-+*/^×·÷]\s*\d+|[∑∫∂√∞≤≥≠≈∈∀∃∇]|\b\w\^\{?\w+",
)
_BIOMEDICAL = _listed("""
    cell cells gene genes protein proteins dna rna mrna patient patients disease diseases tumor
    tumors tumour tumours cancer blood tissue tissues clinical therapy therapies drug drugs dose
    doses receptor receptors enzyme enzymes antibody antibodies antigen immune infection infections
    virus viral bacteria bacterial mice rats vivo vitro plasma serum insulin glucose liver kidney
    lung brain neurons neuronal cardiac hepatic renal pulmonary symptoms diagnosis treatment
    inhibitor inhibitors mutation mutations genome genomic expression pathway pathways cohort
    placebo trial trials metabolism metabolic membrane hormone hormones syndrome chronic acute
    vaccine vaccines lesion lesions biopsy
""")
_BIOMEDICAL_END = re.compile(
    r"\w{3,}(?:itis|emia|aemia|ectomy|ostomy|opathy|carcinoma|sarcoma|kinases?|polymerases?|"
    r"cytes?|plasty|algia|mycin|cillin)$"
)


def spanish(text: str) -> float:
    """Share of words that are Spanish function words, and 5 times that of Spanish letters."""
    return _language(text, _SPANISH, _SPANISH_LETTERS)


def french(text: str) -> float:
    """Share of words that are French function words, and 5 times that of French letters."""
    return _language(text, _FRENCH, _FRENCH_LETTERS)


def code(text: str) -> float:
    """Share of lines with something on them that look like source code."""
    lines = [line for line in text.splitlines() if line.strip()]
    return _share(sum(_CODE.match(line[:1000]) is not None for line in lines), len(lines))


def uppercase(text: str) -> float:
    """Share of the letters that have two cases that are upper case."""
    cased = [c for c in text if c.lower() != c.upper()]
    return _share(sum(c != c.lower() for c in cased), len(cased))


def cyrillic(text: str) -> float:
    """Share of letters that are Cyrillic."""
    letters = [c for c in text if c.isalpha()]
    return _share(
        sum(unicodedata.name(c, "").startswith("CYRILLIC") for c in letters), len(letters)
    )


def equations(text: str) -> float:
    """Share of characters, spaces left out, inside formulas and mathematical signs."""
    inside = sum(
        len("".join(found[0].split()))
        for line in text.splitlines()
        for found in _EQUATION.finditer(line[:1000])
    )
    return min(_share(inside, len("".join(text.split()))), 1.0)


def biomedical(text: str) -> float:
    """Share of words from a short list of biomedicine's, or with an ending of its terms."""
    found = words(text)
    hits = sum(w in _BIOMEDICAL or _BIOMEDICAL_END.match(w) is not None for w in found)
    return _share(hits, len(found))


RULES: Mapping[str, Callable[[str], float]] = {
    rule.__name__: rule
    for rule in (spanish, french, code, uppercase, cyrillic, equations, biomedical)
}
"""By name: text -> score in [0, 1]."""


@dataclass(frozen=True)
class Rule:
    """A scorer that grades: values in [0, 1] in place of yes and no.

    Raises:
        ValueError: There is no rule of that name.
    """

    name: str

    def __post_init__(self) -> None:
        """Look the rule up."""
        if self.name not in RULES:
            raise ValueError(f'there is no rule "{self.name}"; choose {", ".join(RULES)}')

    def describe(self) -> dict[str, Any]:
        """What a result records of it."""
        return {"kind": "rule", "name": self.name}

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> Float64:
        """(N,) the rule's score of each answer."""
        return np.array([RULES[self.name](answer) for answer in answers], np.float64)


def _language(text: str, function_words: frozenset[str], letters: str) -> float:
    found = words(text)
    own = sum(c in letters for c in text.lower())
    n_letters = sum(c.isalpha() or c in letters for c in text)
    hits = _share(sum(w in function_words for w in found), len(found))
    return min(hits + _LETTER_WEIGHT * _share(own, n_letters), 1.0)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
