// Continue texts greedily: node generate.mjs DIRECTORY NEW_TOKENS DTYPE … < IDS.json prints {DTYPE: [[new ids]]}
import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { AutoModelForCausalLM, Tensor, env } from "@huggingface/transformers";

const [directory, newTokens, ...dtypes] = process.argv.slice(2);
const prompts = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(directory);
const tensor = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
const found = {};
for (const dtype of dtypes) {
  const model = await AutoModelForCausalLM.from_pretrained(basename(directory), { dtype });
  found[dtype] = [];
  for (const ids of prompts) {
    const inputs = { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)) };
    const made = await model.generate({ ...inputs, max_new_tokens: Number(newTokens), do_sample: false });
    found[dtype].push(made.tolist()[0].slice(ids.length).map(Number));
  }
}
console.log(JSON.stringify(found));
