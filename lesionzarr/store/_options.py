"""Storage options: one vocabulary for every object store, on the API, the command line and in the environment."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import MissingExtraError, SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "LESIONZARR_STORAGE_OPTIONS"
"""Environment variable with options as a JSON object; those that are given in a call go before it."""

RETRIES = 8
TIMEOUT_S = 20.0
"""Seconds in which nothing comes, after which a request is tried again; also what sending an object may take."""

WHOLE_S = 300.0
"""Seconds of one try, however steadily its bytes come."""

CONNECT_TIMEOUT_S = 5.0
PATIENCE_S = 60.0
"""Seconds after which a request is not tried again, and its error is told: servers are restarted in less."""

FIRST_PATIENCE_S = 5.0
"""The same for a service that has not answered yet: a wrong URL must not take a minute to be told."""

CLIENT = {"timeout_s", "connect_timeout_s", "retries", "patience_s"}
FLAGS = {"anonymous", "path_style"}
NESTED = {"client_options", "retry_config"}
"""Options that obstore takes as dictionaries."""
TYPED = CLIENT | FLAGS | NESTED
"""Options that are no text."""
PLAIN = {"http", "https", "file", "memory"}
"""Schemes of stores that know no account."""


def merge_options(scheme: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Add the options of the environment to those of a call.

    Raises
    ------
    SettingError
        The environment variable is not a JSON object.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        common = json.loads(text or "{}")
    except ValueError as error:
        raise SettingError(f"{VARIABLE}: not JSON ({error})") from error
    if not isinstance(common, dict):
        raise SettingError(f'{VARIABLE}: not a JSON object such as {{"region": "eu-central-1"}}')
    given, common = options or {}, of_client(common) if scheme in PLAIN else common
    both = [name for name in NESTED if name in given and name in common]
    return {**common, **given, **{name: {**common[name], **given[name]} for name in both}}


def of_client(options: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the options of the line to a service, which are no account's."""
    return {name: value for name, value in options.items() if name in CLIENT | NESTED}


def obstore_arguments(scheme: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Translate storage options into keyword arguments of ``obstore.store.from_url``.

    Parameters
    ----------
    scheme
        Of the URL.
    options
        ``anonymous`` (no signature), ``endpoint`` (URL of the service), ``path_style`` (bucket in the path of the URL
        instead of its host), ``region``, ``profile`` (of the AWS configuration files; needs boto3), ``retries``,
        ``patience_s`` (seconds over all tries), ``timeout_s`` (seconds in which nothing comes), ``connect_timeout_s``;
        every other name goes to obstore as it is, such as ``access_key_id`` or ``account_key``.

    Raises
    ------
    MissingExtraError
        ``profile`` without boto3.
    SettingError
        A number of retries or seconds that is none, or another word than true or false.
    """
    rest = {name: _plain(name, value) for name, value in options.items() if name not in CLIENT}
    client = {
        # plain HTTP is what the user wrote into the URL or the endpoint
        "allow_http": True,
        "timeout": timedelta(seconds=WHOLE_S),
        "read_timeout": timedelta(seconds=_number(options, "timeout_s", TIMEOUT_S)),
        "connect_timeout": timedelta(seconds=_number(options, "connect_timeout_s", CONNECT_TIMEOUT_S)),
        **rest.pop("client_options", {}),
    }
    retry = {
        "max_retries": int(_number(options, "retries", RETRIES)),
        "retry_timeout": timedelta(seconds=_number(options, "patience_s", PATIENCE_S)),
        # two seconds for eight retries; whether more are worth it, `Bucket` decides
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
        **rest.pop("retry_config", {}),
    }
    arguments = {} if scheme in {"file", "memory"} else {"client_options": client, "retry_config": retry}
    if "anonymous" in rest:
        rest["skip_signature"] = rest.pop("anonymous")
    if "path_style" in rest:
        rest["virtual_hosted_style_request"] = not rest.pop("path_style")
    if "profile" in rest:
        arguments["credential_provider"] = _aws_profile(rest.pop("profile"), rest)
    return {**arguments, **rest}


def patience_s(options: Mapping[str, Any], *, reached: bool) -> float:
    """Give the seconds after which a request is given up, of a service that has answered before or has not."""
    return _number(options, "patience_s", PATIENCE_S if reached else FIRST_PATIENCE_S)


def parse_option(text: str) -> tuple[str, Any]:
    """Read ``NAME=VALUE``; a value is JSON where a number, ``true`` or an object is needed, and else text as it stands.

    A secret may be made of digits alone, and a key of a service be JSON that obstore takes as text.

    Raises
    ------
    ValueError
        No name, or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(text)
    if name not in TYPED:
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _plain(name: str, value: Any) -> Any:
    """Check a flag; give a number as the text that obstore takes."""
    if name in FLAGS and not isinstance(value, bool):
        raise SettingError(f"storage option {name}={value!r}: true or false is needed")
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _number(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise SettingError(f"storage option {name}={value!r}: a number of at least 0 is needed")
    return value


def _aws_profile(name: str, options: dict[str, Any]) -> Any:
    try:
        import boto3
        import botocore.exceptions
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise MissingExtraError(f"storage option profile={name}: needs boto3: pip install boto3") from error
    try:
        session = boto3.Session(profile_name=name)
        provider = Boto3CredentialProvider(session)
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise SettingError(f"storage option profile={name}: {error}") from error
    if session.region_name:
        options.setdefault("region", session.region_name)
    return provider
