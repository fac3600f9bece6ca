// The script of the tensor tab: `element`, `props` and `server` are Gradio's.

import { query } from "../scene/dom.js";
import { startExplorer } from "./explorer.js";

startExplorer(query(element, ".explorer", HTMLElement), props.value, server);
