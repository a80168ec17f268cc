/** Ours without approximations, beside ours with them. */
import type { Contender } from "../contender.ts";
import ours from "../ours-emoji.ts";
import { exactly } from "../settings.ts";

const contender: Contender = { setup: (workDir) => ours.setup(workDir, exactly) };

export default contender;
