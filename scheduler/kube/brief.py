"""What settles an open question about one pod: which pod it is, which version of it, and its node."""

import msgspec

from scheduler.api import ApiStruct
from scheduler.kube.errors import OutcomeUnknown


class _Metadata(ApiStruct):
    uid: str = ""
    resource_version: str = ""


class _Spec(ApiStruct):
    node_name: str = ""


class PodBrief(ApiStruct):
    """The few fields of a pod that are read; decoding skips the rest."""

    metadata: _Metadata
    spec: _Spec


_decode = msgspec.json.Decoder(PodBrief).decode


def decode_brief(body: bytes) -> PodBrief:
    """Raises OutcomeUnknown for what is no pod (a proxy's page, say): nothing was learnt."""
    try:
        return _decode(body)
    except msgspec.DecodeError as error:
        raise OutcomeUnknown(f"the API server's pod can't be read: {error}") from error
