import { webBackend } from "patchwise/engine/web";
import { ditPresets, traceNetwork } from "patchwise/models";
import { initialize } from "patchwise/nn";
import { createPipeline, readModel } from "patchwise/pipelines";
import { finished } from "patchwise/pipelines";
import { randomKey } from "patchwise/engine";
import { trainModel } from "patchwise/training";
import { modelBytes } from "patchwise/training";
