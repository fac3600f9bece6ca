"""The table of covariance functions that a mode can have.

Fits, files, the command line, tables, plots, the viewer and the documentation read this table. A new kernel takes one
module, which makes its state space, and one line here. Nothing but the table is imported until a kernel is used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from fieldmorph.fields.errors import known
from fieldmorph.fields.lazy import load

if TYPE_CHECKING:
    from gpytorch.kernels import Kernel

    from fieldmorph.bayes.state_space import StateSpace

HERE = "fieldmorph.bayes.covariances"


@dataclass(frozen=True)
class Covariance:
    """One kernel of gpytorch's, or one that is derived from `gpytorch.kernels.Kernel`.

    Attributes:
        title: what tables and plots call it.
        kernel: its class, `module:class`. Files keep the name of the class.
        state_space: function that makes a `StateSpace` of it, `module:function`.
        settings: arguments of the class that distinguish this kernel from others of that class; files keep them.
        numbers: its hyperparameters by gpytorch's names; files keep them.
        parts: attribute that holds the kernels it is made of.
        joiner: what stands between the parts in words.
        smoothness: how its functions look, in words of `--kernel`'s help. With it, a fit's settings may name the
            kernel, whose class must have a lengthscale and take `lengthscale_prior` and `ard_num_dims`. Without it,
            the kernel comes as an object (`fit(kernels=...)`).
    """

    title: str
    kernel: str
    state_space: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    parts: str = ""
    joiner: str = ""
    smoothness: str = ""

    @property
    def class_name(self) -> str:
        """Name of the class, as files have it."""
        return self.kernel.partition(":")[2]

    def load(self) -> None:
        """Import its class and its state space.

        Raises:
            ImportError: gpytorch, or the module of the kernel, is missing.
        """
        _load(self.kernel), _load(self.state_space)

    def make(self, *parts: "Kernel", **settings: Any) -> "Kernel":
        """Return a new kernel in float64, with these arguments of its class in addition to its own."""
        kernel: Kernel = _load(self.kernel)(*parts, **self.settings, **settings)
        return kernel.double()

    def make_state_space(self, kernel: "Kernel") -> "StateSpace":
        """Return a kernel's state space (see `from_gpytorch`)."""
        space: StateSpace = _load(self.state_space)(kernel)
        return space

    def fits(self, kernel: "Kernel") -> bool:
        """Return whether a kernel is of this very class, with these settings."""
        return type(kernel) is _load(self.kernel) and all(
            getattr(kernel, name) == value for name, value in self.settings.items()
        )


COVARIANCES: dict[str, Covariance] = {
    "matern12": Covariance(
        "Matern-1/2",
        "gpytorch.kernels:MaternKernel",
        f"{HERE}.matern:matern",
        {"nu": 0.5},
        ("lengthscale",),
        smoothness="rough",
    ),
    "matern32": Covariance(
        "Matern-3/2",
        "gpytorch.kernels:MaternKernel",
        f"{HERE}.matern:matern",
        {"nu": 1.5},
        ("lengthscale",),
        smoothness="differentiable",
    ),
    "matern52": Covariance(
        "Matern-5/2",
        "gpytorch.kernels:MaternKernel",
        f"{HERE}.matern:matern",
        {"nu": 2.5},
        ("lengthscale",),
        smoothness="twice differentiable",
    ),
    "rbf": Covariance("RBF", "gpytorch.kernels:RBFKernel", f"{HERE}.rbf:rbf", numbers=("lengthscale",)),
    "periodic": Covariance(
        "Periodic",
        "gpytorch.kernels:PeriodicKernel",
        f"{HERE}.harmonics:periodic",
        numbers=("lengthscale", "period_length"),
    ),
    "cosine": Covariance(
        "Cosine", "gpytorch.kernels:CosineKernel", f"{HERE}.harmonics:cosine", numbers=("period_length",)
    ),
    "constant": Covariance(
        "Constant", "gpytorch.kernels:ConstantKernel", f"{HERE}.harmonics:constant", numbers=("constant",)
    ),
    "scaled": Covariance(
        "Scaled",
        "gpytorch.kernels:ScaleKernel",
        f"{HERE}.composite:scaled",
        numbers=("outputscale",),
        parts="base_kernel",
    ),
    "sum": Covariance(
        "Sum", "gpytorch.kernels:AdditiveKernel", f"{HERE}.composite:added", parts="kernels", joiner="; plus "
    ),
    "product": Covariance(
        "Product",
        "gpytorch.kernels:ProductKernel",
        f"{HERE}.composite:multiplied",
        parts="kernels",
        joiner="; times ",
    ),
}


def choices() -> dict[str, Covariance]:
    """Return the kernels that a fit's settings may name."""
    return {name: entry for name, entry in COVARIANCES.items() if entry.smoothness}


def choice(name: str) -> Covariance:
    """Return the kernel that a fit's settings name.

    Raises:
        SettingError: an unknown name.
    """
    if name not in choices():
        raise known("kernel", name, choices())
    return COVARIANCES[name]


def describe_choices() -> str:
    """Return the names of `choices` with their smoothness, for a help text."""
    return ", ".join(f"{name} ({entry.smoothness})" for name, entry in choices().items())


def of_kernel(kernel: "Kernel") -> Covariance | None:
    """Return a kernel's line of the table; None where there is none."""
    return next((entry for entry in COVARIANCES.values() if entry.fits(kernel)), None)


def of_description(described: Mapping[str, Any]) -> Covariance | None:
    """Return the line of a kernel that `describe_kernel` described; None where there is none."""
    for entry in COVARIANCES.values():
        same = all(described.get(name) == value for name, value in entry.settings.items())
        if entry.class_name == described["kernel"] and same:
            return entry
    return None


def class_names() -> list[str]:
    """Return the names of all classes in the table, each once."""
    return list(dict.fromkeys(entry.class_name for entry in COVARIANCES.values()))


@cache
def _load(path: str) -> Callable[..., Any]:
    loaded: Callable[..., Any] = load(path)
    return loaded
