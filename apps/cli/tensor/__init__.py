"""`fieldmorph tensor`: functional Tucker models, with one module per command."""

from typing import Any

from fieldmorph.apps.cli.tensor import demo, evaluate, fit, grid, plot, predict, scene, update

COMMANDS = (fit, update, predict, evaluate, grid, plot, scene, demo)


def add_parser(jobs: Any) -> None:
    """Add `tensor` and its commands."""
    tensor = jobs.add_parser(
        "tensor",
        help="functional Tucker models of scattered measurements: fit, predict, grid, plot",
        description="Functional Bayesian Tucker models of measurements at scattered places and times.",
    )
    own = tensor.add_subparsers(metavar="JOB", required=True)
    for module in COMMANDS:
        module.add_parser(own)
