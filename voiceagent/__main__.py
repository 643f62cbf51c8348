"""`python -m voiceagent` is the command `voiceagent`."""

import sys

from voiceagent.cli import main

sys.exit(main())
