import numpy as np
import pytest

from voiceagent.audio import g711

EVERY_BYTE = bytes(range(256))


def test_mulaw_anchors() -> None:
    # ITU-T G.711 table 2a/2b: silence is 0xFF, the extremes are +-8031 on the 14-bit scale.
    assert g711.mulaw_decode(b"\xff\x7f\x80\x00").tolist() == [0, 0, 32124, -32124]
    assert g711.mulaw_encode(np.array([0, 32767, -32768], np.int16)) == b"\xff\x80\x00"


def test_alaw_anchors() -> None:
    assert g711.alaw_decode(b"\xd5\x55\xaa\x2a").tolist() == [8, -8, 32256, -32256]
    assert g711.alaw_encode(np.array([0, -1, 32767, -32768], np.int16)) == b"\xd5\x55\xaa\x2a"


@pytest.mark.parametrize(
    ("decode", "encode"), [(g711.mulaw_decode, g711.mulaw_encode), (g711.alaw_decode, g711.alaw_encode)]
)
def test_every_level_is_a_fixed_point_and_neighbours_keep_their_order(decode, encode) -> None:  # type: ignore[no-untyped-def]
    levels = decode(EVERY_BYTE)
    assert np.array_equal(decode(encode(levels)), levels)
    ramp = np.arange(-32768, 32768).astype(np.int16)
    decoded = decode(encode(ramp)).astype(int)
    assert (np.diff(decoded) >= 0).all()
    error = np.abs(decoded - ramp)
    assert (
        error <= np.maximum(np.abs(ramp.astype(int)) / 16, 16) + (np.abs(ramp.astype(int)) > 32000) * 700
    ).all()
