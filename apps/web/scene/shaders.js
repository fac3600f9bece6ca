// The ray marcher, and the pass that composites its image over a background.

import { BRICK, EDGE, FIRST_SLOT } from "./atlas.js";

/** @typedef {keyof typeof MODES} Mode */
/** @typedef {keyof typeof BACKGROUNDS} Background */

export const MODES = { color: 0, depth: 1, opacity: 2, measure: 3 };
export const BACKGROUNDS = { white: 0, black: 1, checker: 2 };

export const VERTEX = `#version 300 es
void main() { // one triangle that covers everything
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}`;

// Real spherical harmonics after the constant one, in the usual NeRF order (Sloan 2013).
const HARMONICS = [
  "-0.48860251190291987 * d.y",
  "0.48860251190291987 * d.z",
  "-0.48860251190291987 * d.x",
  "1.0925484305920792 * d.x * d.y",
  "-1.0925484305920792 * d.y * d.z",
  "0.94617469575756 * d.z * d.z - 0.31539156525252",
  "-1.0925484305920792 * d.x * d.z",
  "0.5462742152960396 * (d.x * d.x - d.y * d.y)",
];

/**
 * Return some GLSL for each harmonic after the constant one.
 *
 * @param {number} nHarmonics
 * @param {(i: number) => string} text
 */
const forHarmonics = (nHarmonics, text) =>
  HARMONICS.slice(0, nHarmonics - 1)
    .map((_, i) => text(i))
    .join("\n");

const RAMP = `
vec3 ramp(float t) { // near is light: viridis reversed, as a polynomial (Zucker 2019)
  t = 1.0 - clamp(t, 0.0, 1.0);
  const vec3 c0 = vec3(0.2777273, 0.0054073, 0.3340998), c1 = vec3(0.1050930, 1.4046135, 1.3845901);
  const vec3 c2 = vec3(-0.3308618, 0.2148476, 0.0950952), c3 = vec3(-4.6342305, -5.7991010, -19.3324410);
  const vec3 c4 = vec3(6.2282699, 14.1799334, 56.6905526), c5 = vec3(4.7763849, -13.7451454, -65.3530326);
  const vec3 c6 = vec3(-5.4354559, 4.6458526, 26.3124352);
  return c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * (c5 + t * c6)))));
}`;

// The color of a pixel from the sums along its ray.
const SHADE = `
vec4 shade(vec3 color, float depth, float transmittance) {
  float opacity = 1.0 - transmittance;
  float mean = depth / max(opacity, 1e-6);
  float fraction = (mean - depthRange.x) / (depthRange.y - depthRange.x);
  if (mode == ${MODES.depth}) color = opacity * ramp(fraction);
  if (mode == ${MODES.opacity}) color = vec3(opacity);
  if (mode == ${MODES.measure}) { // three digits to the base 256
    float digits = clamp(fraction, 0.0, 1.0) * 255.0;
    color = vec3(floor(digits), floor(fract(digits) * 256.0), floor(fract(digits * 256.0) * 256.0)) / 255.0;
  }
  return vec4(color, mode == ${MODES.opacity} ? 1.0 : opacity);
}`;

/**
 * Return what the ray marcher declares for so many harmonics.
 *
 * @param {number} nHarmonics
 */
function declarations(nHarmonics) {
  return `#version 300 es
precision highp float;
precision highp int;
precision highp sampler3D;
precision highp usampler3D;

uniform usampler3D bricks;
uniform sampler3D density, base;
${forHarmonics(nHarmonics, (i) => `uniform sampler3D harmonic${i};`)}

uniform vec3 eye, right, down, forward;
uniform vec4 intrinsics; // fl_x, fl_y, cx, cy in pixels of this image
uniform float height;    // of this image
uniform vec2 shift;      // of the pixels' centres
uniform vec3 low, high, cropLow, cropHigh;
uniform vec3 cells;      // of the bake, along each axis
uniform vec3 slots;      // bricks of the atlas along each axis
uniform vec2 logRange;   // of a render step's optical depth, as code 0 and code 1
uniform float stepSize, steps, jitter; // of the field, how many at once, where in one a sample is
uniform vec2 harmonicScale; // of a code in [0, 1], and what is taken off
uniform vec2 depthRange;
uniform vec3 minimum;    // of a sample's weight, of the transmittance, of a weight that uses harmonics
uniform int mode;
out vec4 pixel;

const float BRICK = ${BRICK}.0, EDGE = ${EDGE}.0;`;
}

/**
 * Return the fragment shader that marches rays through a bake with so many harmonics.
 *
 * @param {number} nHarmonics
 */
export function marchShader(nHarmonics) {
  return `${declarations(nHarmonics)}
${RAMP}
${SHADE}

void main() {
  vec2 place = vec2(gl_FragCoord.x, height - gl_FragCoord.y) + shift;
  vec2 slope = (place - intrinsics.zw) / intrinsics.xy;
  vec3 d = normalize(right * slope.x + down * slope.y + forward);
  d += vec3(equal(d, vec3(0.0))) * 1e-9; // nothing below divides by 0

  vec3 a = (low - eye) / d, b = (high - eye) / d;
  vec3 enter = min(a, b), leave = max(a, b);
  float near = max(max(enter.x, max(enter.y, enter.z)), 0.0);
  float far = min(leave.x, min(leave.y, leave.z));
  a = (cropLow - eye) / d, b = (cropHigh - eye) / d;
  enter = min(a, b), leave = max(a, b);
  float first = max(near, max(enter.x, max(enter.y, enter.z)));
  float last = min(far, min(leave.x, min(leave.y, leave.z)));

  vec3 perBrick = cells / BRICK;
  vec3 origin = (eye - low) / (high - low) * perBrick, along = d / (high - low) * perBrick;
  ivec3 lastBrick = ivec3(perBrick) - 1;
  vec3 atlas = slots * EDGE;
  ivec3 width = ivec3(slots);
  float empty = exp(logRange.x), span = logRange.y - logRange.x;
${forHarmonics(nHarmonics, (i) => `  float y${i} = ${HARMONICS[i]};`)}

  vec3 color = vec3(0.0);
  float transmittance = 1.0, depth = 0.0;
  float stride = steps * stepSize;
  float k = max(0.0, ceil((first - near) / stride - jitter));
  for (int i = 0; i < 8192; i++) {
    float t = near + (k + jitter) * stride;
    if (!(t < last)) break;
    vec3 p = origin + t * along;
    ivec3 brick = clamp(ivec3(p), ivec3(0), lastBrick);
    int found = int(texelFetch(bricks, brick, 0).r);
    if (found < ${FIRST_SLOT}) { // no brick within found - 1 of them: continue where that ends
      vec3 wall = vec3(brick) + mix(vec3(1 - found), vec3(found), greaterThan(along, vec3(0.0)));
      vec3 reach = (wall - p) / along;
      float ahead = t + min(reach.x, min(reach.y, reach.z));
      k = max(k + 1.0, floor((ahead - near) / stride - jitter - 1e-3) + 1.0);
      continue;
    }
    k += 1.0;
    found -= ${FIRST_SLOT};
    ivec3 slot = ivec3(found % width.x, found / width.x % width.y, found / (width.x * width.y));
    vec3 at = (vec3(slot) * EDGE + (p - vec3(brick)) * BRICK + 0.5) / atlas;
    float code = texture(density, at).r;
    if (code == 0.0) continue;
    float optical = steps * (exp(logRange.x + span * code) - empty);
    float alpha = 1.0 - exp(-optical);
    float weight = alpha * transmittance;
    if (weight < minimum.x) continue;
    depth += weight * t;
    if (mode == ${MODES.color}) {
      vec4 known = texture(base, at);
      vec3 rgb = known.rgb;
      if (weight >= minimum.z) {
${forHarmonics(nHarmonics, (i) => `        rgb += y${i} * (texture(harmonic${i}, at).rgb * harmonicScale.x - harmonicScale.y);`)}
      }
      color += weight * clamp(rgb / max(known.a, 1e-3), 0.0, 1.0);
    }
    transmittance *= 1.0 - alpha;
    if (transmittance <= minimum.y) break;
  }
  pixel = shade(color, depth, transmittance);
}`;
}

// Colors are premultiplied. `part` is the fraction of the texture that the image fills.
export const PRESENT = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D image;
uniform vec2 part, size;
uniform float square; // of the checker, in pixels
uniform int background;
out vec4 pixel;

void main() {
  vec2 uv = gl_FragCoord.xy / size * part;
  vec2 halfTexel = 0.5 / vec2(textureSize(image, 0));
  vec4 over = texture(image, min(uv, part - halfTexel));
  vec2 field = floor(vec2(gl_FragCoord.x, size.y - gl_FragCoord.y) / square);
  float checker = mod(field.x + field.y, 2.0) < 0.5 ? 0.8 : 0.94;
  float under = background == ${BACKGROUNDS.white} ? 1.0 : background == ${BACKGROUNDS.black} ? 0.0 : checker;
  pixel = vec4(over.rgb + (1.0 - over.a) * under, 1.0);
}`;
