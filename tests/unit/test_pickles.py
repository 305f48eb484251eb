"""Pickles that are small and would cost much."""

from __future__ import annotations

import io
import pickle

import pytest

from boundaryflow.formats.pickles import RefusedPickleError, read_pickle


def refused(program: bytes) -> str:
    with pytest.raises(RefusedPickleError) as caught:
        read_pickle(io.BytesIO(program), lambda *_: None)
    return str(caught.value)


def test_dict_that_is_copied_again_and_again_is_refused() -> None:
    pairs = b"(" + b"".join(pickle.BININT + n.to_bytes(4, "little") + b"N\x86" for n in range(5000)) + b"l"
    again = b"ccollections\nOrderedDict\nh\x00R0"
    assert "copies more than" in refused(pairs + b"\x85q\x000" + again * 1000 + b"N.")


def test_keys_of_one_hash_are_refused() -> None:
    assert "beyond 60 bits" in refused(pickle.dumps({k * (2**61 - 1): None for k in range(3)}, 2))
    assert "a float as a key" in refused(pickle.dumps({0.5: None}, 2))


def test_remembered_shape_of_many_numbers_is_refused() -> None:
    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nK\x01tQ"
    shape = b"(" + b"K\x01" * 100 + b"t"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    assert "16 dimensions" in refused(call + storage + b"K\x00" + shape + b"))t" + b"R.")
