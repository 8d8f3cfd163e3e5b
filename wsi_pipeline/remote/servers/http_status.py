"""Answers of servers that will not change by trying again, in words."""

from __future__ import annotations

from wsi_pipeline.errors import MissingSlideError, SlideError

EXTRA = "Install what reads addresses: pip install 'wsi-pipeline[remote]'"
_KEYS = {
    "s3": "Give the key by ~/.aws/credentials, AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for a "
    "public bucket: export FSSPEC_S3_ANON=true",
    "gs": "Give the key by gcloud auth application-default login or GOOGLE_APPLICATION_CREDENTIALS; for a public "
    "bucket: export FSSPEC_GS_TOKEN=anon",
    "http": "Give user and password by ~/.netrc, or a signed address in the table; a signed address may have expired. "
    "Runs do not keep signatures; to continue one: export WSI_PIPELINE_SIGNED_URLS=slides.csv",
}
_AGAIN = (408, 425, 429)


def will_pass(status: int) -> bool:
    """Whether a request with this HTTP status may succeed when it is tried again."""
    return status in _AGAIN or status >= 500


def refused(address: str, status: int) -> SlideError:
    """The error for an HTTP status of 400 and above. `address` without secrets."""
    scheme = address.partition(":")[0].removesuffix("s") if address.startswith("http") else address.partition(":")[0]
    if status in (401, 403, 407):
        return SlideError(f"access denied (HTTP {status}): {address}", todo=_KEYS[scheme])
    if status in (404, 410):
        return MissingSlideError(
            f"not there (HTTP {status}): {address}", todo="Check the path of this slide in the CSV."
        )
    return SlideError(
        f"the server refuses the request (HTTP {status}): {address}",
        todo="Check the address in the CSV, or ask the server's owner.",
    )


def no_key(address: str, reason: str) -> SlideError:
    """The error if no credentials were found, or none that can be used."""
    return SlideError(f"no key for {address} ({reason})", todo=_KEYS[address.partition(":")[0]])


def empty(address: str) -> SlideError:
    """The error for a file without bytes."""
    return SlideError(f"empty file: {address}", todo="Copy the file again from its source.")
