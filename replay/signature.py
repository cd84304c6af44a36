"""A table's signature as Reverb wants it, TensorFlow's ``StructuredValue`` message, written without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping

# tensorflow/core/framework/types.proto
_DTYPES = {"float32": 1, "int32": 3, "uint8": 4, "int64": 9, "bool": 10}


def encode_signature(signature: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> bytes:
    """A dictionary of tensor specs (tensorflow/core/protobuf/struct.proto), serialised.

    Args:
        signature: dtype name and shape by column; None is a dimension of any size.
    """
    fields = b""
    for name in sorted(signature):
        dtype, shape = signature[name]
        dims = b"".join(_bytes(2, _integer(1, -1 if size is None else size)) for size in shape)
        spec = _bytes(1, name.encode()) + _bytes(2, dims) + _integer(3, _DTYPES[dtype])
        value = _bytes(33, spec)  # StructuredValue.tensor_spec_value
        fields += _bytes(1, _bytes(1, name.encode()) + _bytes(2, value))  # an entry of DictValue.fields
    return _bytes(53, fields)  # StructuredValue.dict_value


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers take ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value
