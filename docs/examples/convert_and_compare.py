"""Train a hash grid on the bundled scene, convert it to an MLP, and write an image of each next to the ground truth."""

import argparse
from pathlib import Path

# isort: split
import imageio.v3 as imageio
import torch

from fieldmorph.distill import convert
from fieldmorph.fields import Budget, fit_images, load_scene, make_field, psnr, render_image, save_field


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="apps/data/spot", help="folder of a scene")
    parser.add_argument("--downscale", type=int, default=1, help="shrink its images by this factor")
    parser.add_argument(
        "--steps", type=int, default=600, help="of the training; the conversion takes twice as many"
    )
    parser.add_argument("--output", type=Path, default=Path("example_output"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    scene = load_scene(args.data, downscale=args.downscale)
    teacher, _ = fit_images(
        make_field("hashgrid", aabb=scene.aabb), scene.splits["train"], Budget(steps=args.steps)
    )
    student, report = convert(teacher, make_field("mlp", aabb=scene.aabb), Budget(steps=2 * args.steps))
    print(f"stages: {', '.join(stage.name for stage in report.stages)}")

    test = scene.splits["test"]
    truth = test.view_over(0, torch.ones(3))
    images = [truth]
    for name, stored in (("teacher", teacher), ("student", student)):
        save_field(args.output / f"{name}.fm", stored)
        image = render_image(stored.field, test.cameras[0], stored.occupancy, stored.render_step_size)[
            "colors"
        ]
        print(
            f"{name}: {stored.field.n_parameters():,} parameters, {psnr(image, truth):.2f} dB on a test image"
        )
        images.append(image)
    imageio.imwrite(args.output / "comparison.png", (torch.cat(images, dim=1) * 255).round().byte().numpy())


if __name__ == "__main__":
    main()
