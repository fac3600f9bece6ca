"""Names of dictionaries whose values are of many types."""

from typing import Any

JsonObject = dict[str, Any]  # of a file's header, a receipt, a state's settings or `--json`
FieldSettings = dict[str, Any]  # keyword arguments of a field's constructor, as a file holds them
StateDict = dict[str, Any]  # plain values and tensors from which a run continues
ParameterGroup = dict[str, Any]  # of a torch optimizer
