// Images of a bake by WebGL2.

/** @import { Bake } from "./bake.js" */
/** @import { Pose } from "./camera.js" */
/** @import { Background, Mode } from "./shaders.js" */
/** @import { Vec3 } from "./vector.js" */
/** @import { Target } from "./webgl.js" */
import { BRICK, makeAtlas } from "./atlas.js";
import { BakeError } from "./bake.js";
import { rayThrough } from "./camera.js";
import { CENTER, sampleAt } from "./sampling.js";
import { BACKGROUNDS, MODES, PRESENT, VERTEX, marchShader } from "./shaders.js";
import { add, clamp, norm, scale, vec3 } from "./vector.js";
import { NO_WEBGL, linkProgram, makeTarget, makeTexture3d } from "./webgl.js";

/**
 * @typedef {object} DrawOptions
 * @property {Mode} [mode]
 * @property {number[] | null} [crop] minimum and maximum corner of what is shown, in world units
 * @property {number[]} [depthBox] whose depths the color scale spans; the bake's own by default
 * @property {boolean} [rough] two steps at once and colors that are the same from all sides: a third of the time
 */

/**
 * @typedef {object} SampleOptions
 * @property {[number, number] | null} [rows] to draw, first and end, counted from below; all where null
 * @property {{ x: number, y: number, step: number }} [sample] place in its pixel and in its step
 * @property {number} [fraction] of the new image where it is averaged with what is there
 */

const CHECKER_PIXELS = 12;

export class Renderer {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Bake} bake
   * @throws {BakeError} without WebGL2, or if the bake is too large for this device
   */
  constructor(canvas, bake) {
    const gl = canvas.getContext("webgl2", {
      alpha: false,
      antialias: false,
      depth: false,
      powerPreference: "high-performance",
    });
    if (!gl) throw new BakeError(NO_WEBGL);
    this.gl = gl;
    this.low = vec3(bake.header.aabb);
    this.high = vec3(bake.header.aabb, 3);
    const atlas = makeAtlas(bake, gl.getParameter(gl.MAX_3D_TEXTURE_SIZE));
    const { density, harmonics, index } = atlas;
    this.march = linkProgram(gl, VERTEX, marchShader(harmonics.length));
    this.present = linkProgram(gl, VERTEX, PRESENT);
    const bytes = gl.UNSIGNED_BYTE;
    /** @type {[string, WebGLTexture][]} */
    this.textures = [
      ["bricks", makeTexture3d(gl, atlas.grid, index, gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT)],
      ["density", makeTexture3d(gl, atlas.size, density, gl.R8, gl.RED, bytes)],
      ["base", makeTexture3d(gl, atlas.size, harmonics[0], gl.RGBA8, gl.RGBA, bytes)],
    ];
    harmonics.slice(1).forEach((texels, i) => {
      this.textures.push([`harmonic${i}`, makeTexture3d(gl, atlas.size, texels, gl.RGB8, gl.RGB, bytes)]);
    });
    this.textureBytes =
      density.length + harmonics.reduce((sum, { length }) => sum + length, 4 * index.length);
    // Half floats keep the average of many images exact; where they are missing, 8 bits must do.
    this.hasHalfFloats = Boolean(
      gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float"),
    );
    this.setConstants(bake, atlas.slots, atlas.stretch);
  }

  /**
   * @param {Bake} bake
   * @param {Vec3} slots
   * @param {number} stretch
   */
  setConstants({ header }, slots, stretch) {
    const { gl, march } = this;
    gl.useProgram(march.program);
    this.textures.forEach(([name], unit) => gl.uniform1i(march.at(name), unit));
    gl.uniform3fv(march.at("low"), this.low);
    gl.uniform3fv(march.at("high"), this.high);
    const cells = header.bricks.map((n) => (n - 1) * BRICK); // the last brick has faces only
    gl.uniform3fv(march.at("cells"), cells);
    gl.uniform3fv(march.at("slots"), slots);
    gl.uniform2fv(march.at("logRange"), header.log_range);
    gl.uniform1f(march.at("stepSize"), header.render_step_size);
    const step = header.harmonic_step / stretch; // of a code in the atlas
    gl.uniform2f(march.at("harmonicScale"), 255 * step, header.zero * step);
  }

  /** Free programs and textures. */
  dispose() {
    for (const [, texture] of this.textures) this.gl.deleteTexture(texture);
    for (const { program } of [this.march, this.present]) this.gl.deleteProgram(program);
  }

  /**
   * Return a texture to draw into and to read from.
   *
   * @param {number} width
   * @param {number} height
   * @param {boolean} halfFloats
   */
  makeTarget(width, height, halfFloats = this.hasHalfFloats) {
    return makeTarget(this.gl, width, height, halfFloats);
  }

  /** @param {Target} target */
  release({ texture, framebuffer }) {
    this.gl.deleteFramebuffer(framebuffer);
    this.gl.deleteTexture(texture);
  }

  /**
   * March the rays of `pose` into the lower left of a target.
   *
   * @param {Target} target
   * @param {Pose} pose
   * @param {DrawOptions & SampleOptions} options
   */
  draw(target, pose, options = {}) {
    const { gl, march } = this;
    const { mode = "color", crop, rows, sample = CENTER, fraction = 1, rough = false, depthBox } = options;
    const [first, end] = rows ?? [0, pose.height];
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    gl.viewport(0, 0, pose.width, pose.height);
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(0, first, pose.width, end - first);
    gl.useProgram(march.program);
    this.textures.forEach(([, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_3D, texture);
    });
    this.setCamera(pose);
    gl.uniform2fv(march.at("depthRange"), this.depthRange(pose, depthBox));
    gl.uniform2f(march.at("shift"), sample.x, sample.y);
    gl.uniform1f(march.at("jitter"), sample.step);
    gl.uniform3fv(march.at("cropLow"), crop ? vec3(crop) : this.low);
    gl.uniform3fv(march.at("cropHigh"), crop ? vec3(crop, 3) : this.high);
    gl.uniform1i(march.at("mode"), MODES[mode]);
    gl.uniform1f(march.at("steps"), rough ? 2 : 1);
    gl.uniform3fv(march.at("minimum"), rough ? [4e-3, 2e-2, 2] : [1e-4, 1e-3, 0]);
    if (fraction < 1) {
      gl.enable(gl.BLEND);
      gl.blendColor(0, 0, 0, fraction);
      gl.blendFunc(gl.CONSTANT_ALPHA, gl.ONE_MINUS_CONSTANT_ALPHA);
    }
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.disable(gl.BLEND);
    gl.disable(gl.SCISSOR_TEST);
  }

  /** @param {Pose} pose */
  setCamera(pose) {
    const { gl, march } = this;
    gl.uniform3fv(march.at("eye"), pose.eye);
    gl.uniform3fv(march.at("right"), pose.right);
    gl.uniform3fv(march.at("down"), pose.down);
    gl.uniform3fv(march.at("forward"), pose.forward);
    gl.uniform4fv(march.at("intrinsics"), pose.intrinsics);
    gl.uniform1f(march.at("height"), pose.height);
  }

  /**
   * Return the distances to the nearest point of a box, the bake's own by default, and to its furthest corner.
   *
   * @param {{ eye: Vec3 }} pose
   * @param {number[]} [box]
   * @returns {[number, number]}
   */
  depthRange({ eye }, box) {
    const [low, high] = box ? [vec3(box), vec3(box, 3)] : [this.low, this.high];
    const nearest = eye.map((x, axis) => x - clamp(x, low[axis], high[axis]));
    const furthest = eye.map((x, axis) => Math.max(Math.abs(x - low[axis]), Math.abs(x - high[axis])));
    return [norm(vec3(nearest)), norm(vec3(furthest))];
  }

  /**
   * Composite the lower left width x height of a target over a background, on the canvas or into another target.
   *
   * @param {Target} target
   * @param {number} width
   * @param {number} height
   * @param {Background} background
   * @param {Target | null} destination null for the canvas
   * @param {number} square of the checkerboard, in pixels
   */
  show(target, width, height, background, destination = null, square = CHECKER_PIXELS) {
    const { gl, present } = this;
    const [w, h] = destination
      ? [destination.width, destination.height]
      : [gl.drawingBufferWidth, gl.drawingBufferHeight];
    gl.bindFramebuffer(gl.FRAMEBUFFER, destination ? destination.framebuffer : null);
    gl.viewport(0, 0, w, h);
    gl.useProgram(present.program);
    gl.activeTexture(gl.TEXTURE15);
    gl.bindTexture(gl.TEXTURE_2D, target.texture);
    gl.uniform1i(present.at("image"), 15);
    gl.uniform2f(present.at("part"), width / target.width, height / target.height);
    gl.uniform2f(present.at("size"), w, h);
    gl.uniform1f(present.at("square"), square);
    gl.uniform1i(present.at("background"), BACKGROUNDS[background]);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /**
   * Return the RGBA bytes of an image, the top row first; without a background they are premultiplied.
   *
   * @param {Pose} pose
   * @param {DrawOptions & { background?: Background | null, samples?: number }} options
   */
  image(pose, { background = null, samples = 1, ...options } = {}) {
    const { width, height } = pose;
    const drawn = this.makeTarget(width, height, background !== null && this.hasHalfFloats);
    for (let n = 0; n < samples; n++) {
      this.draw(drawn, pose, { ...options, sample: sampleAt(n), fraction: 1 / (n + 1) });
    }
    let read = drawn;
    if (background !== null) {
      read = this.makeTarget(width, height, false);
      this.show(drawn, width, height, background, read);
    }
    const { gl } = this;
    const pixels = new Uint8Array(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, read.framebuffer);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    for (const target of new Set([drawn, read])) this.release(target);
    const flipped = new Uint8ClampedArray(pixels.length);
    for (let y = 0; y < height; y++) {
      flipped.set(pixels.subarray(4 * width * (height - 1 - y), 4 * width * (height - y)), 4 * width * y);
    }
    return flipped;
  }

  /**
   * Return the point of the surface at a pixel, or null where there is none.
   *
   * @param {Pose} pose
   * @param {number} x
   * @param {number} y
   * @param {number[] | null} crop
   * @returns {Vec3 | null}
   */
  pick(pose, x, y, crop = null) {
    const [fx, fy, cx, cy] = pose.intrinsics;
    /** @type {Pose} */
    const onePixel = { ...pose, width: 1, height: 1, intrinsics: [fx, fy, cx - x + 0.5, cy - y + 0.5] };
    const [r, g, b, a] = this.image(onePixel, { mode: "measure", crop });
    if (a < 77) return null;
    const [near, far] = this.depthRange(pose);
    const fraction = (r + g / 256 + b / 65536) / 255;
    return add(pose.eye, scale(rayThrough(pose, x, y), near + fraction * (far - near)));
  }
}
