"""``python -m pwm`` does what ``pwm`` does."""

import sys

from pwm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
