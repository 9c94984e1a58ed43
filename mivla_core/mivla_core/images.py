"""
Pictures: one JPEG codec, and conversion to and from ``sensor_msgs/Image`` without copies.

The codec is OpenCV's libjpeg-turbo for live inference, recording and training alike, so that a
picture decoded from a bag equals, bit for bit, the one the policy saw. Colour pictures are RGB in
memory everywhere; JPEG carries them the usual way, so any viewer shows true colours.
"""

from __future__ import annotations

import array
import sys
from typing import Any

import cv2
import numpy as np

from mivla_core.errors import ImageError

__all__ = ['MAX_IMAGE_PIXELS', 'decode_jpeg', 'encode_jpeg', 'image_to_numpy', 'numpy_to_image']

MAX_IMAGE_PIXELS = 64_000_000
MAX_JPEG_BYTES = 32 << 20

# encoding -> (numpy type, channels); the names are those of sensor_msgs/image_encodings.
ENCODINGS: dict[str, tuple[np.dtype[Any], int]] = {
    'rgb8': (np.dtype(np.uint8), 3),
    'bgr8': (np.dtype(np.uint8), 3),
    'mono8': (np.dtype(np.uint8), 1),
    '16UC1': (np.dtype(np.uint16), 1),
}


def encode_jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    """
    Encode a picture as JPEG.

    :param image: uint8 (H, W, 3) RGB or (H, W) grey.
    :raises ImageError: wrong type or shape.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (
            image.ndim == 3 and image.shape[2] != 3):
        raise ImageError(f'cannot encode {image.dtype} {image.shape} as JPEG; '
                         'expected uint8 (H, W, 3) RGB or (H, W)')
    source = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode('.jpg', source, (cv2.IMWRITE_JPEG_QUALITY, int(quality)))
    if not ok:
        raise ImageError(f'JPEG encoder refused a picture of shape {image.shape}')
    return data.tobytes()


def decode_jpeg(
        data: bytes | bytearray | memoryview | array.array[int] | np.ndarray) -> np.ndarray:
    """
    Decode a JPEG.

    :returns: uint8 (H, W, 3), RGB; grey pictures are expanded.
    :raises ImageError: not a JPEG, truncated, or larger than the bounds.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    if not 4 <= buffer.size <= MAX_JPEG_BYTES:
        raise ImageError(f'JPEG of {buffer.size} bytes; expected 4 to {MAX_JPEG_BYTES}')
    if buffer[0] != 0xFF or buffer[1] != 0xD8:
        raise ImageError(f'not a JPEG: begins with {bytes(buffer[:4]).hex()}')
    # A truncated file would decode to a picture that is grey below the cut: look for the end
    # marker, which cameras may pad behind.
    if bytes(buffer[-512:]).rfind(b'\xff\xd9') < 0:
        raise ImageError(f'JPEG of {buffer.size} bytes is truncated: no end marker')
    try:
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as err:
        raise ImageError(f'JPEG of {buffer.size} bytes: {" ".join(str(err).split())}') from err
    if image is None:
        raise ImageError(f'JPEG of {buffer.size} bytes cannot be decoded')
    return image


def image_to_numpy(msg: Any) -> np.ndarray:
    """
    View a ``sensor_msgs/Image`` as an array, without a copy.

    :returns: (H, W, C) or (H, W) for one channel; shares memory with ``msg.data``; rows may be
        padded (``step``), so it need not be contiguous.
    :raises ImageError: unknown encoding, or sizes that contradict the data.
    """
    if msg.encoding not in ENCODINGS:
        raise ImageError(f'encoding {msg.encoding!r}; known: {sorted(ENCODINGS)}')
    dtype, channels = ENCODINGS[msg.encoding]
    if bool(msg.is_bigendian) != (sys.byteorder == 'big') and dtype.itemsize > 1:
        dtype = dtype.newbyteorder()
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    row = width * channels * dtype.itemsize
    if not 0 < height * width <= MAX_IMAGE_PIXELS or step < row:
        raise ImageError(f'{msg.encoding} {width}x{height} with step {step}; '
                         f'a row needs {row} bytes')
    buffer = memoryview(msg.data)
    if buffer.nbytes < step * (height - 1) + row:
        raise ImageError(f'{msg.encoding} {width}x{height}: {buffer.nbytes} bytes of data, '
                         f'expected {step * height}')
    shape: tuple[int, ...] = (height, width, channels)
    strides: tuple[int, ...] = (step, channels * dtype.itemsize, dtype.itemsize)
    if channels == 1:
        shape, strides = shape[:2], strides[:2]
    return np.ndarray(shape, dtype, buffer, 0, strides)


def numpy_to_image(image: np.ndarray, encoding: str, msg: Any) -> Any:
    """
    Fill a ``sensor_msgs/Image`` from an array and return it.

    ``data`` is set through the buffer protocol in one copy into the message's own array, which is
    what rclpy needs; assigning bytes or a list would be checked element by element.

    :param image: (H, W, 3) or (H, W) of the encoding's type; copied only if rows are not packed.
    :raises ImageError: the array does not fit the encoding.
    """
    if encoding not in ENCODINGS:
        raise ImageError(f'encoding {encoding!r}; known: {sorted(ENCODINGS)}')
    dtype, channels = ENCODINGS[encoding]
    expected = 2 if channels == 1 else 3
    if image.dtype != dtype or image.ndim != expected or (
            channels > 1 and image.shape[2] != channels):
        raise ImageError(f'array {image.dtype} {image.shape} is not {encoding}')
    packed = np.ascontiguousarray(image)
    msg.height, msg.width = packed.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = int(sys.byteorder == 'big')
    msg.step = packed.strides[0]
    data = array.array('B')
    data.frombytes(packed.data.cast('B'))
    msg.data = data
    return msg
