"""Who writes labels: a model behind an OpenAI-compatible endpoint, or one on this machine."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exemplars.errors import SourceError
from exemplars.labels.prompts import escaped

if TYPE_CHECKING:
    from exemplars.models import Model

Messages = Sequence[Mapping[str, str]]
"""Of a chat: each has a "role" and its "content"."""
KEY_VARIABLES = ("EXEMPLARS_LABEL_KEY", "OPENAI_API_KEY")
"""Environment variables that an endpoint's key is looked for in, in this order."""

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})  # what may pass: HTTP statuses
_OLDER_LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"
_LONGEST_WAIT_S = 60.0
_MAX_ANSWER = 1 << 22  # bytes
_REASON = 200  # characters


class Labeller(Protocol):
    """A model that answers chats."""

    @property
    def name(self) -> str:
        """The model's."""
        ...

    @property
    def host(self) -> str:
        """Where it answers: the endpoint's host, or "local"."""
        ...

    def complete(self, messages: Messages, max_tokens: int) -> str:
        """Its answer, the likeliest one where it can be asked for that.

        Raises:
            SourceError: There is none.
        """
        ...


class Endpoint:
    """A model behind an OpenAI-compatible endpoint for chat completions.

    The key is read from the environment when this is made, is sent in the header Authorization to
    the endpoint's own address and nowhere else, and is in no message.

    Args:
        base_url: What stands before `/chat/completions`: "https://api.example.org/v1".
        model: What the endpoint calls the model.
        key_from_env: The variable that holds the key; by default the first of `KEY_VARIABLES`
            that is set. Without one no key is sent.
        timeout_s: Seconds without a byte after which a request has failed.
        attempts: Requests for one answer; those after the first wait `backoff_s`, then twice
            that, and so on, or as long as the endpoint asks for, at most a minute.
        backoff_s: Seconds.

    Raises:
        ValueError: The address is not one, or a variable that was named is not set.
    """

    host: str
    """Name and port, without credentials."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_from_env: str | None = None,
        timeout_s: float = 60.0,
        attempts: int = 5,
        backoff_s: float = 1.0,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"attempts is {attempts}, expected at least 1")
        if not model:
            raise ValueError("the endpoint's model has no name; give what the endpoint calls it")
        self.name = model
        self._url, self.host = _address(base_url)
        self._key = _key(key_from_env)
        self._timeout_s, self._attempts, self._backoff_s = timeout_s, attempts, backoff_s
        self._limit_name = _OLDER_LIMIT
        self._open = urllib.request.build_opener(_NoRedirect).open

    def __repr__(self) -> str:
        return f"Endpoint({self.host}, {self.name!r})"

    def complete(self, messages: Messages, max_tokens: int) -> str:
        """The model's answer.

        Raises:
            SourceError: The endpoint refuses, cannot be reached, or answers with something else;
                the message says what it said.
        """
        reason = ""
        for attempt in range(self._attempts):
            try:
                return self._answer(messages, max_tokens, self._limit_name)
            except _Passing as passing:
                reason = str(passing)
                if attempt + 1 < self._attempts:
                    asked = passing.wait_s
                    time.sleep(
                        min(self._backoff_s * 2**attempt, _LONGEST_WAIT_S)
                        if asked is None
                        else min(asked, _LONGEST_WAIT_S)
                    )
        tries = "once" if self._attempts == 1 else f"{self._attempts} times"
        raise SourceError(f"{self.host} was asked {tries}: {reason}")

    def _answer(self, messages: Messages, max_tokens: int, limit_name: str) -> str:
        """One request; a refusal of the limit's older name is one more."""
        try:
            return self._text_in(self._post(messages, max_tokens, limit_name))
        except urllib.error.HTTPError as error:
            with error:
                said = self._said(error)
                if error.code == 400 and limit_name == _OLDER_LIMIT and _NEWER_LIMIT in said:
                    self._limit_name = _NEWER_LIMIT
                    return self._answer(messages, max_tokens, _NEWER_LIMIT)
                if error.code in _AGAIN:
                    raise _Passing(
                        f"status {error.code}, {said}", _seconds(error.headers)
                    ) from None
                if error.code in (301, 302, 303, 307, 308):
                    said = "it sends elsewhere, and the key goes nowhere else; give that address"
                raise SourceError(f"{self.host} answered status {error.code}: {said}") from None
        except TimeoutError:
            raise _Passing(f"no answer in {self._timeout_s:g} s") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            timed_out = isinstance(reason, TimeoutError)
            said = f"no answer in {self._timeout_s:g} s" if timed_out else self._clean(str(reason))
            raise _Passing(said or type(error).__name__) from None

    def _post(self, messages: Messages, max_tokens: int, limit_name: str) -> bytes:
        body: dict[str, Any] = {"model": self.name, "messages": list(messages)}
        body[limit_name] = max_tokens
        if limit_name == _OLDER_LIMIT:
            body["temperature"] = 0  # models that have the newer limit have no temperature
        headers = {"Content-Type": "application/json", "User-Agent": "exemplars"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        with self._open(request, timeout=self._timeout_s) as response:
            return response.read(_MAX_ANSWER)

    def _text_in(self, body: bytes) -> str:
        try:
            text = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str):
            start = self._clean(body[:_REASON].decode("utf-8", "replace"))
            raise SourceError(f"{self.host} answered something that is no chat completion: {start}")
        return self._without_key(text)

    def _said(self, error: urllib.error.HTTPError) -> str:
        """What an endpoint says of an error: its message, or how its answer begins."""
        try:
            body = error.read(_MAX_ANSWER)
        except (OSError, HTTPException):
            body = b""
        text = body.decode("utf-8", "replace")
        try:
            found = json.loads(text)["error"]
            text = str(found["message"] if isinstance(found, dict) else found)
        except (ValueError, LookupError, TypeError, RecursionError):
            text = text or str(error.reason)
        return self._clean(text)

    def _clean(self, text: str) -> str:
        return escaped(self._without_key(text))[:_REASON]

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


class LocalModel:
    """A causal language model on this machine, asked through its chat template, greedily.

    Args:
        model: A name that `exemplars.load_model` takes, or a `Model`.
        device: Where a named model runs.
        dtype: Its type; the checkpoint's own by default.

    Raises:
        SourceError: The model cannot be found or read.
        ValueError: Its tokenizer has no chat template.
    """

    host = "local"

    def __init__(
        self, model: str | Model, *, device: str | None = None, dtype: str | None = None
    ) -> None:
        from exemplars.models import load_model

        if isinstance(model, str):
            model = load_model(model, device=device, dtype=dtype)
        self.model = model
        name = str(model.name)
        self.name = Path(name).name if Path(name).exists() else name  # no folders of this machine
        if not getattr(self.model.tokenizer, "chat_template", None):
            raise ValueError(
                f"{self.name} has no chat template, so it cannot be asked for a label; give a "
                "model that was trained to follow instructions"
            )
        added = getattr(self.model.tokenizer, "added_tokens_decoder", {}).values()
        words = {str(token) for token in added if token.special and len(str(token)) > 1}
        self._special = re.compile(
            "|".join(map(re.escape, sorted(words, key=len)[::-1])) or r"\Z\A"
        )
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"LocalModel({self.name!r})"

    def complete(self, messages: Messages, max_tokens: int) -> str:
        """The model's answer; special tokens that are spelled out in a message are pulled apart."""
        import torch

        tokenizer = self.model.tokenizer
        plain = [
            {**m, "content": self._special.sub(lambda t: f"{t[0][0]} {t[0][1:]}", m["content"])}
            for m in messages
        ]
        text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        ids = encoded["input_ids"].to(self.model.device)
        limit = self.model.max_positions
        if limit is not None and ids.shape[1] + max_tokens > limit:
            raise SourceError(
                f"a request of {ids.shape[1]:,} tokens does not fit the {limit:,} positions of "
                f"{self.name}; ask fewer questions at once, or use another model"
            )
        ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        if ends["pad_token_id"] is None:
            ends["pad_token_id"] = tokenizer.eos_token_id
        with self._lock, torch.no_grad():
            answer = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens,
                do_sample=False, temperature=None, top_p=None, top_k=None, **ends,
            )  # fmt: skip
        return tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)


class _Passing(Exception):
    """A failure that may pass, and how long the endpoint asks to wait."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it would carry the key to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _address(base_url: str) -> tuple[str, str]:
    """The address of chat completions, and its host and port."""
    try:
        parts = urllib.parse.urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https") or escaped(base_url) != base_url:
        raise ValueError(
            "the endpoint is not an address; give one such as http://localhost:8000/v1, what "
            "stands before /chat/completions"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"the address of {host} holds a name or a password; put the key into the environment "
            f"variable {KEY_VARIABLES[0]} instead"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    url = urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
    return url, host if port is None else f"{host}:{port}"


def _key(variable: str | None) -> str:
    names = KEY_VARIABLES if variable is None else (variable,)
    key = next((os.environ[name].strip() for name in names if os.environ.get(name)), "")
    if variable is not None and not key:
        raise ValueError(f"the environment variable {variable} is not set; put the key there")
    if not key.isascii() or not key.isprintable():
        raise ValueError("the key has characters that no header can hold; set it again")
    return key


def _seconds(headers: Any) -> float | None:
    """Seconds that a Retry-After asks for; None if it does not say, or says a date."""
    text = (headers.get("Retry-After") or "").strip()
    return float(text) if re.fullmatch(r"\d{1,6}(\.\d+)?", text) else None
