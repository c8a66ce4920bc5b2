"""Dormouse inside vLLM: what vLLM loads from its entry point group `vllm.general_plugins`."""
