"""`python -m chatbot`: the command where no script is on the path."""

import sys

from chatbot.cli import main

sys.exit(main())
