"""Wire codecs: bytes to SI units and back, without any bus."""
