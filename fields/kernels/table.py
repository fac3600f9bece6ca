"""The table of CPU kernels: what is compiled ahead, checked by `fieldmorph doctor` and timed by `fieldmorph bench`.

A line's path is a module with a function `example(generator, ...)`, which returns a `KernelExample`, small by default,
and `BENCH_SIZES`, the keyword arguments of the examples that are timed.
"""

from types import ModuleType

from fieldmorph.fields.lazy import LazyTable, Line

KERNELS: LazyTable[ModuleType] = LazyTable(
    [
        Line("hash", "Hash encoding", "fieldmorph.fields.kernels.hash"),
        Line("march", "Marching an occupancy grid", "fieldmorph.fields.kernels.march"),
        Line("composite", "Compositing", "fieldmorph.fields.kernels.composite"),
        Line("harmonics", "Spherical harmonics", "fieldmorph.fields.encodings"),
        Line("layers", "Layers of a perceptron", "fieldmorph.fields.kernels.layers"),
        Line("positional", "Positional encoding", "fieldmorph.fields.kernels.positional"),
        Line("vm", "Vector-matrix products", "fieldmorph.fields.kernels.vm"),
        Line("cp", "Products of three lines", "fieldmorph.fields.kernels.cp"),
        Line("voxels", "Sparse trilinear interpolation", "fieldmorph.fields.kernels.voxels"),
        Line("variation", "Total variation of voxels", "fieldmorph.fields.kernels.total_variation"),
        Line("normal", "Normal equations", "fieldmorph.fields.kernels.normal_equations"),
    ]
)

RENDERING = ("march", "composite", "harmonics")  # what every field needs to be trained and rendered
