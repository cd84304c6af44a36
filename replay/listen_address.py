"""Make Reverb's server listen on one address, and on a port of its own.

Reverb 0.14's server takes a port only: it listens on ``[::]``, every interface of the machine, and lets a second server
share the port silently (gRPC sets SO_REUSEPORT). Anyone who reaches that port can read and write the replay. Its
compiled library calls the C function ``bind`` through a table of pointers; `listen_on` puts a function there that
exchanges the address, refuses to share, and then calls the real ``bind``. What came of it is checked by
`listening_addresses`, in the kernel's own list.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
from pathlib import Path
from types import ModuleType

_DT_STRTAB, _DT_SYMTAB, _DT_JMPREL, _DT_PLTRELSZ = 5, 6, 23, 2
_SO_REUSEPORT = 15
_PROT_READ, _PROT_WRITE = 1, 2
_kept: list[object] = []  # callbacks that C code points at must never be freed

_BIND_TYPE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, use_errno=True)


class _LinkMap(ctypes.Structure):
    """Head of glibc's ``struct link_map``, which a dlopen handle points to."""

    _fields_ = [("l_addr", ctypes.c_size_t), ("l_name", ctypes.c_char_p), ("l_ld", ctypes.c_void_p)]


def listen_on(library: ModuleType, host: str) -> None:
    """Redirect what ``library`` (a compiled module) binds on all interfaces to ``host``, an IPv4 address.

    Raises:
        OSError: where the library does not call ``bind`` in the way this relies on.
    """
    address = ipaddress.IPv4Address(host)
    slot = _pointer_to(library, b"bind")
    libc = ctypes.CDLL(None, use_errno=True)
    real = libc.bind
    real.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32]

    def bind(fd: int, where: int, length: int) -> int:
        data = bytearray(ctypes.string_at(where, length))
        family = struct.unpack_from("H", data)[0]
        if family == socket.AF_INET6 and bytes(data[8:24]) == bytes(16):
            data[8:24] = bytes(10) + b"\xff\xff" + address.packed  # IPv4-mapped: gRPC's socket is dual-stack
        elif family == socket.AF_INET and bytes(data[4:8]) == bytes(4):
            data[4:8] = address.packed
        else:  # not a listening address: gRPC probing what the machine has
            return real(fd, where, length)
        off = ctypes.c_int(0)
        libc.setsockopt(fd, socket.SOL_SOCKET, _SO_REUSEPORT, ctypes.byref(off), ctypes.sizeof(off))
        copy = (ctypes.c_char * length).from_buffer(data)
        return real(fd, ctypes.addressof(copy), length)

    callback = _BIND_TYPE(bind)
    _kept.append(callback)
    _write_pointer(slot, ctypes.cast(callback, ctypes.c_void_p).value or 0)


def listening_addresses(port: int) -> set[str]:
    """Addresses on which some socket of this machine listens at ``port``, such as ``127.0.0.1`` or ``::``."""
    found = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            words, hexadecimal_port = local.split(":")
            if state != "0A" or int(hexadecimal_port, 16) != port:  # 0A: LISTEN
                continue
            # The kernel prints each 32-bit word in the machine's byte order.
            packed = b"".join(struct.pack("=I", int(words[i : i + 8], 16)) for i in range(0, len(words), 8))
            address = ipaddress.ip_address(packed)
            mapped = getattr(address, "ipv4_mapped", None)
            found.add(str(mapped or address))
    return found


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now; ValueError where ``host`` is an address of another machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ValueError(f"replay.host={host} is not an address of this machine") from None
            return False
        return True


def _pointer_to(library: ModuleType, symbol: bytes) -> int:
    """Address of the pointer through which a loaded library calls ``symbol`` (its ELF jump slot)."""
    handle = ctypes.CDLL(str(library.__file__), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    link_map = _LinkMap.from_address(handle._handle)
    entries: dict[int, int] = {}
    position = link_map.l_ld
    while True:
        tag, value = struct.unpack("QQ", ctypes.string_at(position, 16))
        if tag == 0:
            break
        entries[tag] = value
        position += 16
    for offset in range(0, entries[_DT_PLTRELSZ], 24):  # Elf64_Rela: place, symbol and kind, addend
        place, info, _ = struct.unpack("QQq", ctypes.string_at(entries[_DT_JMPREL] + offset, 24))
        name_at = struct.unpack("I", ctypes.string_at(entries[_DT_SYMTAB] + (info >> 32) * 24, 4))[0]
        if ctypes.string_at(entries[_DT_STRTAB] + name_at) == symbol:
            return link_map.l_addr + place
    raise OSError(f"{library.__file__} does not call {symbol.decode()} through a jump slot")


def _write_pointer(place: int, value: int) -> None:
    """Write one pointer into memory that the loader may have made read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = os.sysconf("SC_PAGESIZE")
    start = place - place % page
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(page), _PROT_READ | _PROT_WRITE):
        raise OSError(ctypes.get_errno(), "mprotect failed")
    ctypes.c_void_p.from_address(place).value = value
