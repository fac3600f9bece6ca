"""Camera paths in the layout of nerfstudio's `camera_path.json`."""

import math
from dataclasses import replace

from torch import Tensor

from fieldmorph.apps.viewer.videos import FPS, VideoPlan, camera_path
from fieldmorph.fields.types import JsonObject

OPENGL_AXES = (1.0, -1.0, -1.0)  # of a camera whose own axes are OpenCV's: x right, y down, z forward


def path_json(plan: VideoPlan) -> JsonObject:
    """Return the path that a video follows: its keyframes, and the camera of each frame.

    Matrices are camera-to-world, 4 x 4 by rows, with OpenGL's axes; fields of view are vertical, in degrees.
    """
    tangent = 0.5 * plan.height / (plan.focal * min(plan.width, plan.height))
    view = {"fov": math.degrees(2 * math.atan(tangent)), "aspect": plan.width / plan.height}
    # A path with one keyframe is a turn that begins there.
    starts = [camera_path(replace(plan, keyframes=(keyframe,)))[0] for keyframe in plan.keyframes]
    keyframes = [_matrix(camera.camera_to_world[0]) for camera in starts]
    frames = [_matrix(pose) for pose in camera_path(plan).camera_to_world]
    return {
        "camera_type": "perspective",
        "render_height": plan.height,
        "render_width": plan.width,
        "fps": FPS,
        "seconds": plan.seconds,
        "is_cycle": len(plan.keyframes) == 1,
        "smoothness_value": 0.5,
        "crop": None,
        "default_fov": view["fov"],
        "keyframes": [{"matrix": matrix, **view} for matrix in keyframes],
        "camera_path": [{"camera_to_world": matrix, **view} for matrix in frames],
    }


def _matrix(pose: Tensor) -> list[float]:
    """Return 16 numbers by rows from a pose (3, 4) with OpenCV's axes."""
    rows = (pose * pose.new_tensor((*OPENGL_AXES, 1.0))).tolist()
    return [*(number for row in rows for number in row), 0.0, 0.0, 0.0, 1.0]
