"""Where the plugin logs: below vLLM's own name, because vLLM shows only what is logged there."""

import logging
from typing import Final

LOG: Final = logging.getLogger("vllm.dormouse")
