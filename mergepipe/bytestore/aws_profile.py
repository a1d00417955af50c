"""Settings for S3 as the AWS tools find them: the environment, then a profile's two files.

The store's library knows the variables and the metadata services of AWS, but no profiles:
https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html
"""

import configparser
from collections.abc import Mapping
from pathlib import Path

from mergepipe.errors import AuthenticationError
from mergepipe.names import quoted

# Setting of the store: variables, in the order in which they are asked. AWS's own tools say the
# same of the endpoint: https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
_VARIABLES = {
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
}
_PROFILE = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
_KEYS = ("access_key_id", "secret_access_key", "session_token")
# Where the store's library finds keys besides, or is told to do without.
_ELSEWHERE = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
# Ways to get keys that take a program, a browser or another service to follow.
_INDIRECT = ("role_arn", "sso_session", "sso_start_url", "credential_process")


def s3_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings for the store: those of the profile (AWS_PROFILE, or `default`), variables on top.

    Keys come together from one place: from the environment if it has an access key and AWS_PROFILE
    is not set, else from the profile. Empty of keys, the metadata services are asked later.
    Raises AuthenticationError if AWS_PROFILE names none, or one that needs other tools.
    """
    named = environment.get("AWS_PROFILE", "")
    given = {
        name: value
        for name, variables in _VARIABLES.items()
        if (value := next((environment[each] for each in variables if environment.get(each)), ""))
    }
    profile = _profile(environment, named)
    if named and not profile:
        raise AuthenticationError(
            f"AWS_PROFILE names {quoted(named)}, which is in no file of profiles",
            "aws configure list-profiles shows what there is",
        )
    settings_of_profile = {
        _PROFILE[key]: value for key, value in profile.items() if key in _PROFILE and value
    }
    indirect = next((key for key in _INDIRECT if profile.get(key)), None)
    if "access_key_id" in given and not named:
        settings_of_profile = {
            key: value for key, value in settings_of_profile.items() if key not in _KEYS
        }
    elif "access_key_id" in settings_of_profile:
        given = {key: value for key, value in given.items() if key not in _KEYS}
    elif indirect is not None:
        raise AuthenticationError(
            f"the AWS profile {quoted(named or 'default')} gets its keys through {indirect}",
            'eval "$(aws configure export-credentials --format env)" and unset AWS_PROFILE',
        )
    settings = settings_of_profile | given
    off = environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    if off and "access_key_id" not in settings and not any(map(environment.get, _ELSEWHERE)):
        raise AuthenticationError(
            "there are no keys for s3, and AWS_EC2_METADATA_DISABLED says not to ask for any",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    return settings


def _profile(environment: Mapping[str, str], named: str) -> dict[str, str]:
    """What both files say of a profile; the file of credentials wins."""
    home = Path(environment.get("HOME", "/")) / ".aws"
    name = named or "default"
    config = _section(
        Path(environment.get("AWS_CONFIG_FILE") or home / "config"),
        name if name == "default" else f"profile {name}",
    )
    credentials = _section(
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"), name
    )
    return config | credentials


def _section(path: Path, name: str) -> dict[str, str]:
    # No interpolation: a key may hold a percent sign. Parsers' messages quote lines: not repeated.
    parser = configparser.ConfigParser(interpolation=None, default_section="", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (configparser.Error, UnicodeDecodeError):
        raise AuthenticationError(f"{path} cannot be read as a file of AWS profiles") from None
    return dict(parser[name]) if parser.has_section(name) else {}
