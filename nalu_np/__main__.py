"""`python -m nalu_np` is `nalu-np`."""

import sys

from .cli import main

sys.exit(main())
