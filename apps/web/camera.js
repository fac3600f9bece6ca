// A camera on a turntable: what it looks at, from which side and how far. Axes of a pose are OpenCV's (y down).

const add = (a, b) => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const times = (a, s) => [a[0] * s, a[1] * s, a[2] * s];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const norm = (a) => Math.hypot(...a);
const unit = (a) => times(a, 1 / (norm(a) || 1));
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

const STEEPEST = (89.5 * Math.PI) / 180;

class Turntable {
  // `start` is the header's: `eye`, `target`, `up` and `focal`, the focal length over the image's shorter side.
  constructor(start, aabb) {
    this.up = unit(start.up);
    const side = Math.abs(this.up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
    this.ahead = unit(minus(side, times(this.up, dot(side, this.up))));
    this.aside = cross(this.up, this.ahead);
    this.focal = start.focal;
    this.extent = Math.max(aabb[3] - aabb[0], aabb[4] - aabb[1], aabb[5] - aabb[2]);
    this.start = start;
    this.reset();
  }

  reset() {
    this.lookFrom(this.start.eye, this.start.target);
  }

  lookFrom(eye, target) {
    const away = minus(eye, target);
    this.target = [...target];
    this.distance = this.bounded(norm(away));
    this.pitch = clamp(Math.asin(clamp(dot(unit(away), this.up), -1, 1)), -STEEPEST, STEEPEST);
    this.yaw = Math.atan2(dot(away, this.aside), dot(away, this.ahead));
  }

  bounded(distance) {
    return clamp(distance, 0.01 * this.extent, 20 * this.extent);
  }

  outward() {
    const level = add(times(this.ahead, Math.cos(this.yaw)), times(this.aside, Math.sin(this.yaw)));
    return add(times(level, Math.cos(this.pitch)), times(this.up, Math.sin(this.pitch)));
  }

  eye() {
    return add(this.target, times(this.outward(), this.distance));
  }

  // Right, down, forward and position, with intrinsics for an image of so many pixels.
  pose(width, height) {
    const outward = this.outward();
    const right = add(times(this.aside, Math.cos(this.yaw)), times(this.ahead, -Math.sin(this.yaw)));
    const forward = times(outward, -1);
    const focal = this.focal * Math.min(width, height);
    return {
      right,
      down: cross(forward, right),
      forward,
      eye: this.eye(),
      intrinsics: [focal, focal, width / 2, height / 2],
      width,
      height,
    };
  }

  orbit(dx, dy) {
    this.yaw -= dx;
    this.pitch = clamp(this.pitch + dy, -STEEPEST, STEEPEST);
  }

  zoom(factor) {
    this.distance = this.bounded(this.distance * factor);
  }

  // By shares of the image's shorter side, so that what is under the finger stays there.
  pan(dx, dy) {
    const { right, down } = this.pose(1, 1);
    const reach = this.distance / this.focal;
    this.target = minus(this.target, add(times(right, dx * reach), times(down, dy * reach)));
  }

  toFragment() {
    const degrees = [this.yaw, this.pitch].map((angle) => ((angle * 180) / Math.PI).toFixed(2));
    return `view=${[...this.target, this.distance].map((v) => v.toPrecision(5)).concat(degrees).join(",")}`;
  }

  // True where the fragment held a camera.
  fromFragment(fragment) {
    const match = /(?:^#?|&)view=([-+.e\d,]+)/.exec(fragment);
    const values = match ? match[1].split(",").map(Number) : [];
    if (values.length !== 6 || !values.every(Number.isFinite) || values[3] <= 0) return false;
    this.target = values.slice(0, 3);
    this.distance = this.bounded(values[3]);
    this.yaw = (values[4] * Math.PI) / 180;
    this.pitch = clamp((values[5] * Math.PI) / 180, -STEEPEST, STEEPEST);
    return true;
  }
}

// Image place of a point in pixels, or null behind the camera.
function project(pose, point) {
  const away = minus(point, pose.eye);
  const depth = dot(away, pose.forward);
  if (depth <= 1e-6) return null;
  const [fx, fy, cx, cy] = pose.intrinsics;
  return [(fx * dot(away, pose.right)) / depth + cx, (fy * dot(away, pose.down)) / depth + cy];
}

function rayThrough(pose, x, y) {
  const [fx, fy, cx, cy] = pose.intrinsics;
  const slopes = [(x - cx) / fx, (y - cy) / fy];
  return unit(add(add(times(pose.right, slopes[0]), times(pose.down, slopes[1])), pose.forward));
}
