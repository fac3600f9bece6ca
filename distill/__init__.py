"""Progressive volume distillation: any field into any other, without photographs."""

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)
