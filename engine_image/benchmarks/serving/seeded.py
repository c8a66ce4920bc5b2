"""A load format for vLLM: random weights by seed, made on the device.

vLLM's own dummy weights are so small, and so alike from tensor to tensor, that a lost or mixed-up one hardly shows in
the output, and two models answer the same. These are normal with a deviation that is given, another sequence for every
tensor, so that any wrong byte ends in other tokens, and models of two seeds never agree.

    --load-format seeded --model-loader-extra-config '{"seed": 1, "deviation": 0.02}'

It comes into vLLM as a general plugin, like Dormouse's own (`plugins`).
"""

from __future__ import annotations

import importlib
import zlib
from typing import Any

FORMAT = "seeded"


def register() -> None:
    """Tell vLLM of the load format; runs in each of its processes, some of them twice."""
    loaders: Any = importlib.import_module("vllm.model_executor.model_loader")

    class SeededLoader(loaders.BaseModelLoader):  # type: ignore[misc]  # vLLM is not here to be checked against
        """Fills what the model made for itself."""

        def download_model(self, model_config: Any) -> None:
            """Do nothing: there is no file."""

        def load_weights(self, model: Any, model_config: Any) -> None:
            """Fill every parameter in place."""
            del model_config
            extra = self.load_config.model_loader_extra_config
            fill(model, int(extra["seed"]), float(extra["deviation"]))

    loaders.register_model_loader(FORMAT)(SeededLoader)


def fill(model: Any, seed: int, deviation: float) -> None:
    """Give every matrix of a torch module its own sequence; vectors, which are norms here, become ones."""
    torch: Any = importlib.import_module("torch")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(1)
                continue
            chance = torch.Generator(device=parameter.device)
            chance.manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
            parameter.normal_(0.0, deviation, generator=chance)
