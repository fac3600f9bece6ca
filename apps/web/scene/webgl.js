// WebGL2 programs and textures.

/** @import { Vec3 } from "./vector.js" */
import { BakeError } from "./bake.js";

export const NO_WEBGL =
  "This browser cannot show the scene: it needs WebGL2, which is missing or switched off. " +
  "Current versions of Chrome, Edge, Firefox and Safari have it; hardware acceleration may have to be turned on.";

/** @typedef {{ program: WebGLProgram, at: (name: string) => WebGLUniformLocation | null }} Program */
/** @typedef {{ texture: WebGLTexture, framebuffer: WebGLFramebuffer, width: number, height: number }} Target */

/**
 * Throw where this browser has no WebGL2.
 *
 * @throws {BakeError}
 */
export function requireWebgl() {
  if (!document.createElement("canvas").getContext("webgl2")) throw new BakeError(NO_WEBGL);
}

/**
 * Compile and link two shaders; `at` returns the location of a uniform.
 *
 * @param {WebGL2RenderingContext} gl
 * @param {string} vertex
 * @param {string} fragment
 * @returns {Program}
 * @throws {BakeError} with the compiler's message
 */
export function linkProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  const shaders = [compile(gl, gl.VERTEX_SHADER, vertex), compile(gl, gl.FRAGMENT_SHADER, fragment)];
  for (const shader of shaders) gl.attachShader(program, shader);
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = [gl.getProgramInfoLog(program), ...shaders.map((shader) => gl.getShaderInfoLog(shader))];
    throw new BakeError(`The graphics driver rejected the shader: ${logs.filter(Boolean).join(" ")}`);
  }
  /** @type {Map<string, WebGLUniformLocation | null>} */
  const locations = new Map();
  const at = (/** @type {string} */ name) => {
    if (!locations.has(name)) locations.set(name, gl.getUniformLocation(program, name));
    return locations.get(name) ?? null;
  };
  return { program, at };
}

/**
 * @param {WebGL2RenderingContext} gl
 * @param {number} type
 * @param {string} text
 * @returns {WebGLShader}
 */
function compile(gl, type, text) {
  const shader = gl.createShader(type);
  if (!shader) throw new BakeError(NO_WEBGL); // the context was lost
  gl.shaderSource(shader, text);
  gl.compileShader(shader);
  return shader;
}

/**
 * Upload a 3-D texture, filtered unless it holds integers.
 *
 * @param {WebGL2RenderingContext} gl
 * @param {Vec3} size texels along each axis
 * @param {Uint8Array | Uint32Array} data
 * @param {number} internal format
 * @param {number} format
 * @param {number} type
 * @returns {WebGLTexture}
 */
export function makeTexture3d(gl, [width, height, depth], data, internal, format, type) {
  const texture = gl.createTexture();
  const filter = format === gl.RED_INTEGER ? gl.NEAREST : gl.LINEAR;
  gl.activeTexture(gl.TEXTURE0);
  gl.bindTexture(gl.TEXTURE_3D, texture);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texStorage3D(gl.TEXTURE_3D, 1, internal, width, height, depth);
  gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, width, height, depth, format, type, data);
  setParameters(gl, gl.TEXTURE_3D, [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER], filter);
  setParameters(
    gl,
    gl.TEXTURE_3D,
    [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R],
    gl.CLAMP_TO_EDGE,
  );
  return texture;
}

/**
 * Make a texture to draw into and to read from, of half floats or of bytes.
 *
 * @param {WebGL2RenderingContext} gl
 * @param {number} width
 * @param {number} height
 * @param {boolean} halfFloats
 * @returns {Target}
 */
export function makeTarget(gl, width, height, halfFloats) {
  const texture = gl.createTexture();
  gl.activeTexture(gl.TEXTURE15);
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texStorage2D(gl.TEXTURE_2D, 1, halfFloats ? gl.RGBA16F : gl.RGBA8, width, height);
  setParameters(gl, gl.TEXTURE_2D, [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T], gl.CLAMP_TO_EDGE);
  setParameters(gl, gl.TEXTURE_2D, [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER], gl.LINEAR);
  const framebuffer = gl.createFramebuffer();
  gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  return { texture, framebuffer, width, height };
}

/**
 * @param {WebGL2RenderingContext} gl
 * @param {number} kind
 * @param {number[]} names
 * @param {number} value
 */
function setParameters(gl, kind, names, value) {
  for (const name of names) gl.texParameteri(kind, name, value);
}
