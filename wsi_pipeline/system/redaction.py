"""Secrets that must not reach a log or a status file: access tokens in messages, tracebacks, URLs, variables."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import lru_cache

REDACTED = "[redacted]"

_NAMES = r"(?:[A-Za-z0-9_]*_)?(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIALS?)"
_SECRET_VARIABLE = re.compile(rf"^{_NAMES}$", re.IGNORECASE)
_SHORTEST = 8
"""Shorter values of secret variables are words such as `none`, which may occur anywhere."""

_PATTERNS = (
    # Tokens known by their prefix: Hugging Face, GitHub, OpenAI-like, AWS key ids.
    (re.compile(r"\b(?:hf_|api_org_|gh[pousr]_|github_pat_|sk-)[A-Za-z0-9_-]{8,}"), REDACTED),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), REDACTED),
    # JSON web tokens.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), REDACTED),
    # Authorization headers.
    (re.compile(r"(?i)\b(bearer|basic|token)\s+(?=[^\s'\",;]*[0-9_.~+/=-])[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {REDACTED}"),
    # name=value, name: value, "name": "value", --name value; but not the shape of a tensor (cls_token: 1 x 1 x 384)
    (re.compile(rf"(?i)(\b{_NAMES}[\"']?\s*[=:]\s*[\"']?)(?!\d+ x \d)[^\s\"',;&]+"), rf"\1{REDACTED}"),
    (re.compile(r"(?i)(--(?:[a-z-]*-)?(?:token|secret|password|api-key)[\s=]+)[^\s]+"), rf"\1{REDACTED}"),
    # What a signed address was signed with.
    (re.compile(r"(?i)(\b(?:https?|s3|gs|gcs):/{1,2}[^\s?\"'<>]*\?)[^\s\"'<>]+"), rf"\1{REDACTED}"),
    # https://user:password@host
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*:/{1,2})[^\s/@:]+:[^\s/@]+@"), rf"\1{REDACTED}@"),
)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` without anything that looks like a token, a password in a URL, or the value of a secret variable.

    environment   where secret variables (HF_TOKEN, ..._PASSWORD) are looked up; by default the process's own
    """
    values = os.environ if environment is None else environment
    secret = [name for name in values if _is_secret(name)]
    known = {values[name] for name in secret if len(values[name]) >= _SHORTEST}
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, REDACTED)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


@lru_cache(maxsize=4096)
def _is_secret(variable: str) -> bool:
    """By its name; every line of a log asks for all of them."""
    return _SECRET_VARIABLE.match(variable) is not None


class RedactingFormatter(logging.Formatter):
    """Passes the output of another formatter, traceback included, through `redact`."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, without secrets."""
        return redact(self._inner.format(record))
