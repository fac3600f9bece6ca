"""The form of the conversion tab: its components, what they request, and which of their values cannot be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from fieldmorph.apps.jobs.request import ConversionRequest, parse_bytes
from fieldmorph.apps.viewer.conversion import check_size, check_time
from fieldmorph.apps.viewer.scenes import OpenScene
from fieldmorph.distill.levels import LEVELS
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.kinds import FIELDS, PRESETS
from fieldmorph.fields.renderable import RenderableField

WARM_STARTS = {"where it helps": None, "yes": True, "no": False}
ANY_SIZE = "the model size above"
SIZES = [ANY_SIZE, "500kB", "1MB", "2MB", "5MB", "20MB"]
MAX_SEED = (1 << 31) - 1
LEVEL_TEXTS = {
    "pose": "views with the largest error",
    "ray": "pixels with the largest error",
    "point": "points that the image depends on",
}


@dataclass(frozen=True)
class FormField:
    """Texts of a component that can hold a value that cannot be used.

    Attributes:
        label: its name.
        info: what stands next to it while the value can be used.
    """

    label: str
    info: str


CHECKED = {
    "preset": FormField("Model size", "of the student"),
    "budget": FormField("Training time", "with its unit: 90s, 2m, or 150cs for core-seconds"),
    "max_size": FormField("Maximum file size", "kB or MB; the largest model that fits is taken"),
    "seed": FormField("Random seed", "the same seed gives the same student"),
}


def add_form(scenes: Sequence[OpenScene]) -> dict[str, Any]:
    """Add the components; return them by the argument of `read_form`, and `teacher`."""
    names = [(scene.name, scene.id) for scene in scenes]
    other = "hashgrid" if scenes[0].stored.field.name == "mlp" else "mlp"
    targets = [(title, name) for name, title in FIELDS.titles.items()]
    sizes = [(text, name) for name, text in PRESETS.items()]
    levels = [(LEVEL_TEXTS[level], level) for level in LEVELS]
    form: dict[str, Any] = {
        "teacher": gr.Dropdown(
            names, value=scenes[0].id, label="Field to convert (teacher)", visible=len(scenes) > 1
        ),
        "to": gr.Radio(targets, value=other, label="Convert to"),
        "preset": gr.Radio(sizes, value=next(iter(PRESETS)), **_texts("preset")),
        "budget": gr.Textbox("2m", max_lines=1, **_texts("budget")),
    }
    with gr.Accordion("More settings", open=False):
        form |= {
            "max_size": gr.Dropdown(SIZES, value=ANY_SIZE, allow_custom_value=True, **_texts("max_size")),
            "active": gr.CheckboxGroup(levels, value=list(LEVELS), label="Train more often on"),
            "warm_start": gr.Radio(
                list(WARM_STARTS), value="where it helps", label="Start from a closed-form solution"
            ),
            "seed": gr.Number(0, precision=0, minimum=0, **_texts("seed")),
        }
    return form


def _texts(name: str) -> dict[str, Any]:
    return {"label": CHECKED[name].label, "info": CHECKED[name].info}


def read_form(
    to: str,
    preset: str,
    budget: str,
    max_size: str,
    active: Sequence[str],
    warm_start: str,
    seed: float | None,
) -> ConversionRequest:
    """Return the request that the form's values state.

    Raises:
        SettingError: a value cannot be used.
    """
    return ConversionRequest(
        Budget.parse(str(budget)),
        to=to,
        preset=preset,
        active=tuple(active),
        start=WARM_STARTS.get(warm_start),
        max_bytes=_max_bytes(max_size),
        seed=_seed(seed),
    )


def form_mistakes(values: Mapping[str, Any], teacher: RenderableField) -> dict[str, str]:
    """Return what is wrong with the form's values, by the argument of `read_form`; empty where nothing is.

    Args:
        values: arguments of `read_form`.
    """

    def model_fits() -> None:
        limit = _max_bytes(values["max_size"])
        check_size(values["to"], values["preset"], {}, limit, teacher)

    checks = {
        "budget": lambda: check_time(Budget.parse(str(values["budget"]))),
        "max_size": lambda: _max_bytes(values["max_size"]),
        "seed": lambda: _seed(values["seed"]),
    }
    found = {name: mistake for name, check in checks.items() if (mistake := _mistake(check))}
    if "max_size" not in found and (mistake := _mistake(model_fits)):
        found["preset" if values["max_size"] in (ANY_SIZE, "", None) else "max_size"] = mistake
    return found


def marked(mistakes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return updates of the components in `CHECKED`, in its order, that say what is wrong with their values."""
    return [
        gr.update(
            info=sentence(mistakes[name]) if name in mistakes else field.info,
            elem_classes=["invalid"] if name in mistakes else [],
        )
        for name, field in CHECKED.items()
    ]


def sentence(text: str) -> str:
    """Return a message with a capital letter."""
    return text[:1].upper() + text[1:]


def _mistake(check: Any) -> str | None:
    try:
        check()
    except SettingError as error:
        return str(error)
    return None


def _max_bytes(max_size: str | None) -> int | None:
    return None if max_size in (ANY_SIZE, "", None) else parse_bytes(str(max_size))


def _seed(seed: float | None) -> int:
    if seed is None or not 0 <= seed <= MAX_SEED:
        raise SettingError(f"a seed is a whole number from 0 to {MAX_SEED}; got {seed}")
    return int(seed)
