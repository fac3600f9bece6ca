"""A receipt with every figure, and views to show in it."""

from typing import Any

import torch

from fieldmorph.distill.fidelity import ExampleView


def figures(with_test_images: bool) -> dict[str, Any]:
    scores = {
        "psnr_to_teacher": [31.25, 33.75],
        "ssim_to_teacher": [0.9012, 0.9234],
        "opacity_error": [0.0123, 0.0045],
    }
    if with_test_images:
        scores |= {
            "teacher_psnr": [30.5, 32.25],
            "teacher_ssim": [0.9511, 0.9522],
            "student_psnr": [28.75, 31.5],
            "student_ssim": [0.8911, 0.8922],
            "psnr_drop": [1.75, 0.75],
        }
    bad = {"opacity_error": max, "psnr_drop": max}
    return {
        "source": "new poses",
        "image_size": [40, 30],
        "views": ["pose 1", "pose 2"],
        "mean": {name: sum(v) / 2 for name, v in scores.items()},
        "worst": {name: bad.get(name, min)(v) for name, v in scores.items()},
        "worst_view": 0,
        "typical_view": 1,
        "per_view": {**scores, "distance_to_training_camera": [0.414, 0.525]},
        "core_seconds_per_image": {"teacher": 0.071, "student": 0.203},
    }


def a_receipt(with_test_images: bool = True) -> dict[str, Any]:
    field = {"preset": "small", "provenance": {}}
    return {
        "format": 1,
        "fieldmorph": "0.1.0",
        "created": "2030-01-02T03:04:05+00:00",
        "teacher": {
            **field,
            "field": "hashgrid",
            "config": {"n_levels": 13},
            "params": 923248,
            "bytes": 3733776,
            "file": "teacher.fm",
            "sha256": "a" * 64,
        },
        "student": {
            **field,
            "field": "mlp",
            "config": {"width": 129},
            "params": 66128,
            "bytes": 306152,
            "file": "student.fm",
            "sha256": "b" * 64,
        },
        "ratio": {"params": 13.96, "bytes": 12.2},
        "quality": {
            "background": "white",
            "held_out": figures(with_test_images),
            "off_trajectory": figures(False),
        },
        "gate": {
            "max_psnr_drop": 1.5,
            "psnr_drop": 1.25,
            "met": True,
            "kept": "longer 1",
            "picked_by": "the test images below",
            "stopped": "longer 3: too short",
            "extensions": [
                {"stage": "longer 1", "seed": 4712, "lr_share": 0.23, "psnr_drop": 1.25, "kept": True},
                {"stage": "longer 2", "seed": 4713, "lr_share": 0.23, "psnr_drop": None, "kept": False},
            ],
        },
        "photographs": {"scene": "ball", "sha256": "d" * 64} if with_test_images else None,
        "settings": {
            "lr_decay": 0.02,
            "stages": [{"name": "volume", "share": 0.55, "losses": {"density": 1.25}}],
        },
        "seed": 4711,
        "budget": {
            "asked": {"core_seconds": 180.5},
            "used": {"steps": 6912, "seconds": 234.7, "core_seconds": 181.3},
        },
        "stages": [{"name": "volume", "steps": 3455, "seconds": 113.4, "core_seconds": 87.6}],
        "dropped": {"features": "no decoder in common"},
        "curve": [{"core_seconds": 9.5 * i, "psnr": 20.0 + i, "stage": "volume"} for i in range(1, 5)],
        "provenance": [
            {"job": "train", "field": "hashgrid", "sha256": "a" * 64, "scene": "ball"},
            {"job": "convert", "field": "mlp", "sha256": "b" * 64, "stages": ["volume"]},
        ],
        "environment": {"processor": "a slow one", "threads": 3},
    }


def examples(size: tuple[int, int] = (30, 40)) -> list[ExampleView]:
    teacher, student = torch.full((*size, 3), 0.5), torch.full((*size, 3), 0.55)
    return [
        ExampleView("held_out", "worst", "pose 1", 31.25, teacher, student, test_image=torch.zeros(*size, 3)),
        ExampleView("off_trajectory", "worst", "closer, turned up", 31.25, teacher, student),
    ]
