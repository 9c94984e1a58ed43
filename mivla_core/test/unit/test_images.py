"""The JPEG codec and the conversion to and from Image messages."""

import array
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mivla_core.errors import ImageError
from mivla_core.images import decode_jpeg, encode_jpeg, image_to_numpy, numpy_to_image


def message(**fields):
    base = {'encoding': '', 'height': 0, 'width': 0, 'step': 0, 'is_bigendian': 0,
            'data': array.array('B')}
    return SimpleNamespace(**{**base, **fields})


def ramp(height=48, width=64):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    image[..., 2] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return image


def test_jpeg_keeps_colours_in_rgb_order():
    image = ramp()
    decoded = decode_jpeg(encode_jpeg(image, 95))
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).mean() < 4.0


def test_grey_jpeg_is_expanded():
    assert decode_jpeg(encode_jpeg(ramp()[..., 0])).shape == (48, 64, 3)


@pytest.mark.parametrize('cut', [3, 20, 200])
def test_truncated_jpeg_is_refused(cut):
    with pytest.raises(ImageError):
        decode_jpeg(encode_jpeg(ramp())[:-cut] if cut > 3 else b'\xff\xd8\xff')


def test_text_is_refused():
    with pytest.raises(ImageError, match='not a JPEG'):
        decode_jpeg(b'hello world, I am no picture')


@given(st.binary(max_size=300))
def test_bytes_never_crash_the_decoder(data):
    try:
        decode_jpeg(b'\xff\xd8' + data + b'\xff\xd9')
    except ImageError:
        return


def test_encoder_refuses_what_it_would_garble():
    with pytest.raises(ImageError, match='float32'):
        encode_jpeg(np.zeros((4, 4, 3), np.float32))


CASES = [('rgb8', np.uint8, (5, 7, 3)), ('bgr8', np.uint8, (5, 7, 3)), ('mono8', np.uint8, (5, 7)),
         ('16UC1', np.uint16, (5, 7))]


@pytest.mark.parametrize('encoding, dtype, shape', CASES)
def test_message_round_trip(encoding, dtype, shape):
    image = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    msg = numpy_to_image(image, encoding, message())
    assert (msg.height, msg.width, msg.step) == (5, 7, image.strides[0])
    np.testing.assert_array_equal(image_to_numpy(msg), image)


def test_reading_is_without_copy():
    msg = numpy_to_image(ramp(), 'rgb8', message())
    view = image_to_numpy(msg)
    msg.data[0] = 123
    assert view[0, 0, 0] == 123


def test_padded_rows_are_skipped():
    data = array.array('B', range(2 * 8))
    msg = message(encoding='mono8', height=2, width=5, step=8, data=data)
    np.testing.assert_array_equal(image_to_numpy(msg), [[0, 1, 2, 3, 4], [8, 9, 10, 11, 12]])


def test_big_endian_depth_is_read_right():
    msg = message(encoding='16UC1', height=1, width=1, step=2, is_bigendian=1,
                  data=array.array('B', [1, 2]))
    assert image_to_numpy(msg)[0, 0] == 258


@pytest.mark.parametrize('fields', [
    {'encoding': 'yuv422', 'height': 1, 'width': 1, 'step': 2},
    {'encoding': 'rgb8', 'height': 2, 'width': 2, 'step': 6, 'data': array.array('B', [0] * 6)},
    {'encoding': 'rgb8', 'height': 2, 'width': 2, 'step': 3, 'data': array.array('B', [0] * 12)},
    {'encoding': 'rgb8', 'height': 0, 'width': 2, 'step': 6},
    {'encoding': 'mono8', 'height': 2**31, 'width': 2**31, 'step': 2**31},
])
def test_contradicting_messages_are_refused(fields):
    with pytest.raises(ImageError):
        image_to_numpy(message(**fields))


def test_wrong_array_for_an_encoding_is_refused():
    with pytest.raises(ImageError, match='is not mono8'):
        numpy_to_image(ramp(), 'mono8', message())


def test_against_the_real_message_type():
    sensor_msgs = pytest.importorskip('sensor_msgs.msg')
    msg = numpy_to_image(ramp(), 'rgb8', sensor_msgs.Image())
    np.testing.assert_array_equal(image_to_numpy(msg), ramp())
