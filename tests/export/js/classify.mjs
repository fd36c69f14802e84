// Classify texts with transformers.js: node classify.mjs DIRECTORY DTYPE … < TEXTS.json prints {DTYPE: [{label, score}]}
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { env, pipeline } from "@huggingface/transformers";

const [directory, ...dtypes] = process.argv.slice(2);
const texts = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(directory);
const found = {};
for (const dtype of dtypes) {
  const classify = await pipeline("text-classification", basename(directory), { dtype });
  found[dtype] = [];
  for (const text of texts) found[dtype].push(...(await classify(text)));
}
console.log(JSON.stringify(found));
