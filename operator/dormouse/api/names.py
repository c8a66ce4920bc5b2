"""Every name that Dormouse puts into the Kubernetes API, in one place."""

from __future__ import annotations

from typing import Final

GROUP: Final = "dormouse.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "SleepingModel"
SINGULAR: Final = "sleepingmodel"
PLURAL: Final = "sleepingmodels"
SHORT_NAME: Final = "sm"
CATEGORY: Final = "dormouse"
CRD_NAME: Final = f"{PLURAL}.{GROUP}"

FIELD_MANAGER: Final = "dormouse"
"""The one manager of all our server-side applies, so that we own what we mean and nothing else."""

LABEL_MODEL: Final = "dormouse.dev/model"
"""On pods: the `metadata.name` of the SleepingModel that the engine belongs to."""

ANNOTATION_FORCE: Final = "dormouse.dev/force"
"""On the user's object, read and never written: `awake` or `asleep` overrides the spec by hand."""

ANNOTATION_FORCE_UNTIL: Final = "dormouse.dev/force-until"
"""On the user's object, read and never written: the RFC 3339 time at which the override ends."""

NAME_LIMIT: Final = 63
"""Characters in a SleepingModel's name at most, because it becomes the value of a label."""
