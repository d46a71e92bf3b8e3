// What llama.cpp makes of GGUF files, on one thread: `node ask.mjs < {"files": {FILE: [TEXT, …]}, "tokens": N}` prints, for
// each text of each file, its `tokens`, the `logits` after each of them, and a greedy `answer` of at most N, without its end.
import {readFileSync} from "node:fs";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const {files, tokens: most} = JSON.parse(readFileSync(0, "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1});

async function ask(model, context, text) {
    const sequence = context.getSequence();
    const after = async (tokens) => {
        const wanted = tokens.map((token) => [token, {generateNext: {logits: true}}]);
        return (await sequence.controlledEvaluate(wanted)).map(({next}) => next.logits);
    };
    const tokens = model.tokenize(text, true);
    const logits = await after(tokens);
    const answer = [];
    for (let last = logits.at(-1); answer.length < most; [last] = await after(answer.slice(-1))) {
        const next = last.keys().next().value; // the likeliest comes first
        if (model.isEogToken(next)) {
            break;
        }
        answer.push(next);
    }
    await sequence.dispose();
    return {tokens, answer, logits: logits.map((each) => [...each].sort(([a], [b]) => a - b).map(([, value]) => value))};
}

const told = {};
for (const [file, texts] of Object.entries(files)) {
    const model = await llama.loadModel({modelPath: file, checkTensors: true});
    const context = await model.createContext({contextSize: model.trainContextSize, threads: 1});
    told[file] = [];
    for (const text of texts) {
        told[file].push(await ask(model, context, text));
    }
    await model.dispose();
}
process.stdout.write(JSON.stringify(told));
await llama.dispose();
