// WebGL2: a bake's textures, and pictures of it.

class Renderer {
  // Raises BakeError where there is no WebGL2 or the bake is too large for it.
  constructor(canvas, bake) {
    const options = { alpha: false, antialias: false, depth: false, powerPreference: "high-performance" };
    const gl = canvas.getContext("webgl2", options);
    if (!gl) throw new BakeError(NO_WEBGL);
    this.gl = gl;
    this.bake = bake;
    const header = bake.header;
    this.low = header.aabb.slice(0, 3);
    this.high = header.aabb.slice(3);
    const layout = layOut(bake, gl.getParameter(gl.MAX_3D_TEXTURE_SIZE));
    this.slots = layout.slots;
    this.stretch = layout.stretch;
    this.cells = layout.grid.map((n) => (n - 1) * BRICK); // the last brick has faces only
    this.march = program(gl, VERTEX, marchShader(layout.atlases.length));
    this.present = program(gl, VERTEX, PRESENT);
    this.textures = [
      ["bricks", texture3d(gl, layout.grid, layout.index, gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT)],
      ["density", texture3d(gl, layout.size, layout.density, gl.R8, gl.RED, gl.UNSIGNED_BYTE)],
      ["base", texture3d(gl, layout.size, layout.atlases[0], gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE)],
      ...layout.atlases.slice(1).map((atlas, i) => [
        `harmonic${i}`,
        texture3d(gl, layout.size, atlas, gl.RGB8, gl.RGB, gl.UNSIGNED_BYTE),
      ]),
    ];
    this.textureBytes =
      layout.density.length + layout.atlases.reduce((sum, atlas) => sum + atlas.length, 4 * layout.index.length);
    // Half floats keep the average of many pictures exact; where there are none, 8 bits must do.
    this.fine = Boolean(gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float"));
    this.setFixed();
  }

  setFixed() {
    const { gl, bake, march } = this;
    const header = bake.header;
    gl.useProgram(march.program);
    this.textures.forEach(([name], unit) => gl.uniform1i(march.at(name), unit));
    gl.uniform3fv(march.at("low"), this.low);
    gl.uniform3fv(march.at("high"), this.high);
    gl.uniform3fv(march.at("cells"), this.cells);
    gl.uniform3fv(march.at("slots"), this.slots);
    gl.uniform2fv(march.at("logRange"), header.log_range);
    gl.uniform1f(march.at("stepSize"), header.render_step_size);
    const step = header.harmonic_step / this.stretch; // of a code in the atlas
    gl.uniform2f(march.at("harmonicScale"), 255 * step, header.zero * step);
  }

  // A texture to draw into and read from.
  target(width, height, fine = this.fine) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE15);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, 1, fine ? gl.RGBA16F : gl.RGBA8, width, height);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    for (const way of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, way, gl.LINEAR);
    const framebuffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    return { texture, framebuffer, width, height };
  }

  release({ texture, framebuffer }) {
    this.gl.deleteFramebuffer(framebuffer);
    this.gl.deleteTexture(texture);
  }

  // Marches the rays of `pose` into the lower left of a target. `rows` are those to draw, [first, end), from below;
  // `sample` is where in its pixel and step it looks; `share` below 1 averages with what is there; a `rough` picture
  // takes a third of the time: two steps at once, colours that are the same from all sides.
  draw(target, pose, { mode = "colour", crop = null, rows = null, sample = CENTRE, share = 1, rough = false } = {}) {
    const { gl, march } = this;
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
    for (const name of ["eye", "right", "down", "forward"]) gl.uniform3fv(march.at(name), pose[name]);
    gl.uniform4fv(march.at("intrinsics"), pose.intrinsics);
    gl.uniform1f(march.at("height"), pose.height);
    gl.uniform2f(march.at("shift"), sample.x, sample.y);
    gl.uniform1f(march.at("jitter"), sample.step);
    gl.uniform3fv(march.at("cropLow"), crop ? crop.slice(0, 3) : this.low);
    gl.uniform3fv(march.at("cropHigh"), crop ? crop.slice(3) : this.high);
    gl.uniform2fv(march.at("depthRange"), this.depthRange(pose));
    gl.uniform1i(march.at("mode"), MODES[mode]);
    gl.uniform1f(march.at("steps"), rough ? 2 : 1);
    gl.uniform3fv(march.at("least"), rough ? [4e-3, 2e-2, 2] : [1e-4, 1e-3, 0]);
    if (share < 1) {
      gl.enable(gl.BLEND);
      gl.blendColor(0, 0, 0, share);
      gl.blendFunc(gl.CONSTANT_ALPHA, gl.ONE_MINUS_CONSTANT_ALPHA);
    }
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.disable(gl.BLEND);
    gl.disable(gl.SCISSOR_TEST);
  }

  // Distances between which depth is shown: of the box's nearest point and of its furthest corner.
  depthRange({ eye }) {
    const { low, high } = this;
    const nearest = eye.map((x, axis) => x - clamp(x, low[axis], high[axis]));
    const furthest = eye.map((x, axis) => Math.max(Math.abs(x - low[axis]), Math.abs(x - high[axis])));
    return [norm(nearest), norm(furthest)];
  }

  // Lays the lower left width x height of a target over a background, on the canvas or into another target.
  show(target, width, height, background, onto = null, square = 12) {
    const { gl, present } = this;
    const [w, h] = onto ? [onto.width, onto.height] : [gl.drawingBufferWidth, gl.drawingBufferHeight];
    gl.bindFramebuffer(gl.FRAMEBUFFER, onto ? onto.framebuffer : null);
    gl.viewport(0, 0, w, h);
    gl.useProgram(present.program);
    gl.activeTexture(gl.TEXTURE15);
    gl.bindTexture(gl.TEXTURE_2D, target.texture);
    gl.uniform1i(present.at("picture"), 15);
    gl.uniform2f(present.at("part"), width / target.width, height / target.height);
    gl.uniform2f(present.at("size"), w, h);
    gl.uniform1f(present.at("square"), square);
    gl.uniform1i(present.at("background"), BACKGROUNDS[background]);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // RGBA bytes of one picture, the top row first; over no background they are premultiplied.
  picture(pose, { background = null, samples = 1, ...options } = {}) {
    const { width, height } = pose;
    const drawn = this.target(width, height, background !== null && this.fine);
    for (let n = 0; n < samples; n++) {
      this.draw(drawn, pose, { ...options, sample: sampleNumber(n), share: 1 / (n + 1) });
    }
    let read = drawn;
    if (background !== null) {
      read = this.target(width, height, false);
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

  // The point that is seen at a place of the image, or null where one looks through.
  pick(pose, x, y, crop = null) {
    const [fx, fy, cx, cy] = pose.intrinsics;
    const small = { ...pose, width: 1, height: 1, intrinsics: [fx, fy, cx - x + 0.5, cy - y + 0.5] };
    const [r, g, b, a] = this.picture(small, { mode: "measure", crop });
    if (a < 77) return null;
    const [near, far] = this.depthRange(pose);
    const share = (r + g / 256 + b / 65536) / 255;
    return add(pose.eye, times(rayThrough(pose, x, y), near + share * (far - near)));
  }
}

const NO_WEBGL =
  "This browser cannot show the scene: it needs WebGL2, which is missing or switched off. " +
  "Current versions of Chrome, Edge, Firefox and Safari have it; hardware acceleration may have to be turned on.";
const CENTRE = { x: 0, y: 0, step: 0.5 };

function program(gl, vertex, fragment) {
  const linked = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(linked, shader);
    linked.shaders = [...(linked.shaders ?? []), shader];
  }
  gl.linkProgram(linked);
  if (!gl.getProgramParameter(linked, gl.LINK_STATUS) && !gl.isContextLost()) {
    const told = [gl.getProgramInfoLog(linked), ...linked.shaders.map((s) => gl.getShaderInfoLog(s))];
    throw new BakeError(`The graphics of this device do not take the shader: ${told.filter(Boolean).join(" ")}`);
  }
  const places = new Map();
  const at = (name) => {
    if (!places.has(name)) places.set(name, gl.getUniformLocation(linked, name));
    return places.get(name);
  };
  return { program: linked, at };
}

function texture3d(gl, [width, height, depth], data, internal, format, type) {
  const texture = gl.createTexture();
  const filter = format === gl.RED_INTEGER ? gl.NEAREST : gl.LINEAR;
  gl.activeTexture(gl.TEXTURE0);
  gl.bindTexture(gl.TEXTURE_3D, texture);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texStorage3D(gl.TEXTURE_3D, 1, internal, width, height, depth);
  gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, width, height, depth, format, type, data);
  for (const way of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_3D, way, filter);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
    gl.texParameteri(gl.TEXTURE_3D, side, gl.CLAMP_TO_EDGE);
  }
  return texture;
}
