// The official JavaScript client against a server: node check_client.mjs URL KEY MODEL MAX_MODEL_LEN
// OPENAI_PATH is the folder whose node_modules has the client.
import assert from 'node:assert/strict';
import {createRequire} from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(process.env.OPENAI_PATH, 'package.json'));
const OpenAI = require('openai');
const [url, key, model, maxModelLen] = process.argv.slice(2);
const connect = (apiKey = key) => new OpenAI.OpenAI({baseURL: url, apiKey, maxRetries: 0});
const user = (text) => [{role: 'user', content: text}];

// Never byte 1, which the toy model answers with a NaN.
const endless = {
  model, messages: user('go on'), max_tokens: Math.min(50000, maxModelLen - 100), ignore_eos: true,
  logit_bias: {1: -100}};

async function expectError(kind, status, code, call) {
  const error = await call().then(() => null, (e) => e);
  assert(error, `${kind.name} did not come`);
  assert(error instanceof kind, `${error.constructor.name} instead of ${kind.name}: ${error}`);
  assert.equal(error.status, status);
  assert.equal(error.code, code);
  return error;
}

const checks = {
  async models() {
    const ids = [];
    for await (const entry of connect().models.list()) ids.push(entry.id);
    assert(ids.includes(model));
  },

  async chat() {
    const answer = await connect().chat.completions.create(
        {model, messages: user('hello'), max_tokens: 8, seed: 1, ignore_eos: true});
    assert.equal(answer.choices[0].finish_reason, 'length');
    assert.equal(answer.usage.completion_tokens, 8);
  },

  async streamEqualsWhole() {
    const body = {model, messages: user('the same'), max_tokens: 40, seed: 7, logprobs: true};
    const whole = await connect().chat.completions.create(body);
    let text = '';
    let usage = null;
    const stream = await connect().chat.completions.create(
        {...body, stream: true, stream_options: {include_usage: true}});
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  },

  // The helper checks the order of chunks itself and adds them up.
  async streamHelper() {
    const runner = connect().chat.completions.stream(
        {model, messages: user('again'), max_tokens: 20, seed: 2});
    const final = await runner.finalChatCompletion();
    assert.equal(final.choices[0].message.role, 'assistant');
  },

  async completions() {
    const answer = await connect().completions.create(
        {model, prompt: [104, 105], max_tokens: 3, logprobs: 2, ignore_eos: true});
    assert.equal(answer.choices[0].logprobs.tokens.length, 3);
  },

  async errors() {
    const chat = (body) => () => connect().chat.completions.create({model, messages: user('x'), ...body});
    await expectError(OpenAI.BadRequestError, 400, 'invalid_value', chat({n: 99}));
    const tools = [{type: 'function', function: {name: 'f', parameters: {}}}];
    const refused = await expectError(OpenAI.BadRequestError, 400, 'not_implemented', chat({tools}));
    assert.equal(refused.param, 'tools');
    await expectError(OpenAI.NotFoundError, 404, 'model_not_found', chat({model: 'gpt-4'}));
    await expectError(OpenAI.AuthenticationError, 401, 'invalid_api_key',
                      () => connect('sk-wrong').chat.completions.create({model, messages: user('x')}));
  },

  async abort() {
    const controller = new AbortController();
    const stream = await connect().chat.completions.create(
        {...endless, stream: true},
        {signal: controller.signal});
    let numChunks = 0;
    for await (const _ of stream) {
      if (++numChunks === 5) controller.abort();
    }
    assert(numChunks >= 5);
  },

  async abortBeforeTheAnswer() {
    const controller = new AbortController();
    const answer = connect().chat.completions.create(
        endless,
        {signal: controller.signal});
    setTimeout(() => controller.abort(), 50);
    const error = await answer.then(() => null, (e) => e);
    assert(error instanceof OpenAI.APIUserAbortError, `${error}`);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`ok   javascript ${name}`);
}
