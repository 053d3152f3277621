"""The messages of gdn.v1, made from the descriptor set that the build compiled from proto/.

They serve control calls and errors; a step's own messages are written and read by `wire`.
"""

from importlib import resources

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf import duration_pb2, timestamp_pb2  # noqa: F401  (imports of the set)
from google.rpc import status_pb2  # noqa: F401  (likewise)

_POOL = descriptor_pool.Default()


def _make_classes() -> dict:
    """{name: class} of every message. All are kept: protobuf's C implementation is not safe against
    the collection of a class while other threads use its messages."""
    classes = {}
    data = resources.files(__package__).joinpath("gdn_v1.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        _POOL.AddSerializedFile(file.SerializeToString())
        for name, descriptor in _POOL.FindFileByName(file.name).message_types_by_name.items():
            classes[name] = message_factory.GetMessageClass(descriptor)
    return classes


_MESSAGES = _make_classes()
_REASONS = _POOL.FindEnumTypeByName("gdn.v1.ErrorReason").values_by_number


def message(name: str):
    """The class of a message of gdn.v1, e.g. message("Batch")."""
    return _MESSAGES[name]


def reason_name(number: int) -> str:
    """The name of an ErrorReason without its prefix; of one unknown to this client, its number."""
    known = _REASONS.get(number)
    return known.name.removeprefix("ERROR_REASON_") if known else str(number)
