"""``pwm gather`` from a checkout, without installing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pwm.cli.main import main

sys.exit(main(["gather", *sys.argv[1:]]))
