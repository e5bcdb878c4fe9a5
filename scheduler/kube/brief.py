"""What settles an open question about one pod: which pod it is, which version of it, and its node."""

import msgspec

from scheduler.api import ApiStruct


class _Metadata(ApiStruct):
    uid: str = ""
    resource_version: str = ""


class _Spec(ApiStruct):
    node_name: str = ""


class PodBrief(ApiStruct):
    """The few fields of a pod that are read; decoding skips the rest."""

    metadata: _Metadata
    spec: _Spec


decode_brief = msgspec.json.Decoder(PodBrief).decode
"""Raises msgspec.DecodeError for what is no pod."""
