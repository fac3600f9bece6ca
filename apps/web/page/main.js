// Opens the scene that this page holds, or that lies in files next to it.

import { embeddedSource, folderSource } from "../scene/bake.js";
import { Cover } from "../scene/cover.js";
import { query } from "../scene/dom.js";
import { openPage, showFailure } from "./page.js";

const root = query(document, ".viewer", HTMLElement);
const cover = new Cover(root);
const source = document.getElementById("bake-header") ? embeddedSource() : folderSource();
const hasAddress = location.href !== "about:srcdoc"; // a frame in a notebook has none

Object.assign(window, { fieldmorph: { root } });
openPage(root, source, cover, hasAddress).then(
  (page) => {
    Object.assign(window, { fieldmorph: page });
    cover.ready();
  },
  (error) => showFailure(cover, error),
);
