"""``python -m mivla_bringup`` is the ``mivla`` command."""

import sys

from mivla_bringup.cli import main

if __name__ == '__main__':
    sys.exit(main())
