// The panel of how the scene is shown: image mode, field of view, crop.

/** @import { Mode } from "../scene/shaders.js" */
/** @import { Viewport } from "./viewport.js" */
import { CropPanel } from "../scene/crop.js";
import { query, setChanged } from "../scene/dom.js";
import { RadioGroup } from "../scene/radio_group.js";

export class ViewPanel {
  /**
   * @param {Viewport} viewport
   * @param {readonly number[]} aabb of the scene
   * @param {Mode} mode
   */
  constructor(viewport, aabb, mode) {
    this.viewport = viewport;
    this.panel = query(viewport.root, "[data-panel=view]", HTMLElement);
    this.fov = query(this.panel, "[name=fov]", HTMLInputElement);
    this.fovText = query(this.panel, "output", HTMLElement);
    const { camera } = viewport;
    this.fov.addEventListener("input", () =>
      viewport.moveCamera(() => (camera.fov = this.fov.valueAsNumber)),
    );
    /** @type {RadioGroup<Mode>} */
    this.images = new RadioGroup(query(this.panel, ".modes", HTMLElement), "mode", mode, (chosen) => {
      this.changed();
      viewport.announce(chosen);
    });
    this.crop = new CropPanel(viewport.root, this.panel, aabb, () => this.changed());
    const { actions, shortcuts } = viewport;
    actions.view = () => viewport.togglePanel("view");
    actions.uncrop = () => this.crop.reset();
    actions.nextimage = () => this.chooseNext();
    Object.assign(shortcuts, { v: "view", c: "view", i: "nextimage" });
  }

  get mode() {
    return this.images.value;
  }

  /** Choose the next image mode. */
  chooseNext() {
    const { values } = this.images;
    this.images.choose(values[(values.indexOf(this.mode) + 1) % values.length]);
  }

  /** Every image of another mode or crop is an image of another view. */
  changed() {
    this.viewport.cameraMoved();
  }

  /** Show the camera's field of view, and the edges of the crop box while the panel is open. */
  show() {
    const { camera, surface } = this.viewport;
    const degrees = Math.round(camera.fov);
    setChanged(this.fov, { value: String(degrees) });
    setChanged(this.fovText, { textContent: `${degrees}°` });
    this.crop.drawOutline(camera.pose(surface.clientWidth, surface.clientHeight));
  }
}
