/** The studio: draw with a diffusion transformer, look inside it, compare settings, and train one, in a page. */
import { render } from "preact";
import { App } from "./app.tsx";
import { describeModel } from "./engine.ts";
import { loadHistory } from "./history.ts";

render(<App />, document.querySelector("#app")!);
void describeModel();
void loadHistory();
