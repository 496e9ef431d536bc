import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { afterEach, describe, expect, inject, test } from 'vitest'

import { createModels, UnknownModelError, type ModelsConfig } from '../models.ts'
import { startScriptedModel, type ScriptedModel } from './support/model.ts'
import { startServer } from './support/server.ts'

const started: ScriptedModel[] = []
afterEach(async () => {
  for (const model of started.splice(0)) await model.close()
})

async function upstream(...models: string[]): Promise<ScriptedModel> {
  const model = await startScriptedModel({ models })
  started.push(model)
  return model
}

function config(given: Partial<ModelsConfig>): ModelsConfig {
  return { file: undefined, upstream: undefined, defaultModel: undefined, env: {}, ...given }
}

async function fromFile(content: unknown, given: Partial<ModelsConfig> = {}) {
  return createModels(config({ file: await fileOf(JSON.stringify(content)), ...given }))
}

async function fileOf(text: string): Promise<string> {
  const file = join(await mkdtemp(join(inject('testDir'), 'models-')), 'models.json')
  await writeFile(file, text)
  return file
}

const noQuirks = {
  no_parallel_tool_calls: false,
  no_stream_options: false,
  max_tokens_name: 'max_completion_tokens',
  system_role: 'system',
  no_tool_choice: false,
  no_strict: false,
  no_response_format: false,
  no_images: false,
}

describe('an upstream alone', () => {
  test('answers to every name', async () => {
    const { url: baseUrl } = await upstream('a')
    const models = createModels(config({ upstream: { baseUrl, apiKey: 'sk-a' } }))
    expect(await models.find('whatever')).toEqual(await models.resolve('whatever'))
    expect(await models.resolve('whatever')).toEqual({
      baseUrl,
      apiKey: 'sk-a',
      upstreamName: 'whatever',
      contextSize: 128_000,
      price: null,
      quirks: noQuirks,
    })
  })

  test('with a default is asked for that where it does not know the name', async () => {
    const { url: baseUrl } = await upstream('a', 'b')
    const models = createModels(
      config({ upstream: { baseUrl, apiKey: undefined }, defaultModel: 'b' }),
    )
    expect((await models.resolve('a')).upstreamName).toBe('a')
    expect((await models.resolve('gpt-4o')).upstreamName).toBe('b')
  })

  test('that cannot list its models is taken to know every name', async () => {
    const { url: baseUrl, close } = await upstream('a')
    await close()
    const models = createModels(
      config({ upstream: { baseUrl, apiKey: undefined }, defaultModel: 'b' }),
    )
    expect((await models.resolve('gpt-4o')).upstreamName).toBe('gpt-4o')
    expect(await models.list()).toEqual([])
  })

  test('answers to requests that name no model', async () => {
    const { url: baseUrl } = await upstream('a')
    const models = createModels(config({ upstream: { baseUrl, apiKey: 'sk-a' } }))
    expect(models.unnamed()).toEqual({ baseUrl, apiKey: 'sk-a', quirks: noQuirks })
  })

  test('lists what it lists', async () => {
    const { url: baseUrl } = await upstream('a', 'org/b:free')
    const models = createModels(config({ upstream: { baseUrl, apiKey: undefined } }))
    expect((await models.list()).map(({ id }) => id)).toEqual(['a', 'org/b:free'])
  })
})

describe('a file', () => {
  const local = { name: 'llama3', base_url: 'http://127.0.0.1:11434/v1/' }

  test('says where each name is answered, and how', async () => {
    const models = await fromFile({
      models: [
        local,
        {
          name: 'gpt-4o',
          base_url: 'https://models.example/v1',
          api_key: 'sk-file',
          upstream_name: 'deployment-7',
          context_size: 8000,
          quirks: { max_tokens_name: 'max_tokens', no_stream_options: true },
        },
      ],
    })
    expect(await models.resolve('llama3')).toEqual({
      baseUrl: 'http://127.0.0.1:11434/v1',
      apiKey: 'none',
      upstreamName: 'llama3',
      contextSize: 128_000,
      price: null,
      quirks: noQuirks,
    })
    expect(await models.resolve('gpt-4o')).toEqual({
      baseUrl: 'https://models.example/v1',
      apiKey: 'sk-file',
      upstreamName: 'deployment-7',
      contextSize: 8000,
      price: null,
      quirks: { ...noQuirks, max_tokens_name: 'max_tokens', no_stream_options: true },
    })
  })

  test('may name the variable that holds the key', async () => {
    const models = await fromFile(
      { models: [{ ...local, api_key_env: 'LOCAL_KEY' }] },
      { env: { LOCAL_KEY: 'sk-env' } },
    )
    expect((await models.resolve('llama3')).apiKey).toBe('sk-env')
  })

  test('may hold patterns, which pass the name on; the first that fits is taken', async () => {
    const models = await fromFile({
      models: [
        { name: 'gpt-4o-mini', base_url: 'https://one.example/v1' },
        { name: 'gpt-*', base_url: 'https://two.example/v1' },
        { name: '*.q4', base_url: 'https://three.example/v1', upstream_name: 'quantized' },
      ],
    })
    const at = async (name: string) => {
      const { baseUrl, upstreamName } = await models.resolve(name)
      return [new URL(baseUrl).hostname, upstreamName]
    }
    expect(await at('gpt-4o-mini')).toEqual(['one.example', 'gpt-4o-mini'])
    expect(await at('gpt-4.1')).toEqual(['two.example', 'gpt-4.1'])
    expect(await at('llama.q4')).toEqual(['three.example', 'quantized'])
    await expect(at('llamaXq4')).rejects.toThrow(UnknownModelError)
  })

  test('refuses a name that it does not know, and says which it knows', async () => {
    const models = await fromFile({ models: [local, { ...local, name: 'phi' }] })
    await expect(models.resolve('gpt-4o')).rejects.toThrow(
      "The model 'gpt-4o' is not in the models file, which names: llama3, phi.",
    )
    expect(await models.find('gpt-4o')).toBeUndefined()
    expect(await models.find('phi')).toEqual(await models.resolve('phi'))
  })

  test('may have a default for such names, or get one from outside', async () => {
    const content = { models: [local, { ...local, name: 'phi', upstream_name: 'phi-4' }] }
    const own = await fromFile({ ...content, default: 'phi' })
    expect((await own.resolve('gpt-4o')).upstreamName).toBe('phi-4')
    const given = await fromFile(content, { defaultModel: 'llama3' })
    expect((await given.resolve('gpt-4o')).upstreamName).toBe('llama3')
  })

  test('is refused at boot where its default is none of its models', async () => {
    await expect(
      fromFile({ default: 'phi', models: [{ ...local, name: 'llama3' }] }),
    ).rejects.toThrow("the default 'phi' is the name of no model in it")
  })

  test('is refused at boot where the variable of a key is not set', async () => {
    const content = { models: [{ ...local, name: 'a', api_key_env: 'NO_SUCH_KEY' }] }
    await expect(fromFile(content)).rejects.toThrow(
      "'a' takes its key from NO_SUCH_KEY, which is not set",
    )
  })

  test('may have a default that one of its patterns answers: that is then the name', async () => {
    const models = await fromFile({ default: 'llama3', models: [{ ...local, name: 'llama*' }] })
    expect((await models.resolve('gpt-4o')).upstreamName).toBe('llama3')
    expect((await models.resolve('llama2')).upstreamName).toBe('llama2')
  })

  test('has an endpoint for requests that name no model: the default one, or else the first', async () => {
    const remote = { name: 'gpt-*', base_url: 'https://models.example/v1', api_key: 'sk-file' }
    const first = { baseUrl: 'http://127.0.0.1:11434/v1', apiKey: 'none', quirks: noQuirks }
    const second = { baseUrl: 'https://models.example/v1', apiKey: 'sk-file', quirks: noQuirks }
    expect((await fromFile({ models: [local, remote] })).unnamed()).toEqual(first)
    expect((await fromFile({ models: [local, remote], default: 'gpt-4o' })).unnamed()).toEqual(
      second,
    )
    expect((await fromFile({ models: [] })).unnamed()).toBeUndefined()
  })

  test('lists its names, without the patterns', async () => {
    const models = await fromFile({ models: [local, { ...local, name: 'gpt-*' }] })
    expect((await models.list()).map(({ id }) => id)).toEqual(['llama3'])
  })

  test.each([
    ['{', /could not be read/],
    ['{"models": [{"name": "a"}]}', /is not usable.*base_url/s],
    ['{"models": [{"name": "a", "base_url": "here"}]}', /is not usable.*base_url/s],
    ['{"models": [], "extra": 1}', /is not usable.*extra/s],
    [
      '{"models": [{"name": "a", "base_url": "http://a.example", "quirks": {"x": 1}}]}',
      /is not usable.*x/s,
    ],
  ])('of %j is refused at the start, and the message says where', async (text, message) => {
    const file = await fileOf(text)
    expect(() => createModels(config({ file }))).toThrow(message)
    expect(() => createModels(config({ file }))).toThrow(file)
  })

  test('that is not there is refused with its path', () => {
    expect(() => createModels(config({ file: '/nowhere/models.json' }))).toThrow(
      '/nowhere/models.json could not be read',
    )
  })
})

test('without a file and without an upstream there is nothing to answer', () => {
  expect(() => createModels(config({}))).toThrow('set UPSTREAM_BASE_URL or MODELS_FILE')
})

test('a model that a pattern or the default answers to is there, though on no list', async () => {
  await using endpoint = await startScriptedModel()
  await using server = await startServer({
    UPSTREAM_BASE_URL: endpoint.url,
    DEFAULT_MODEL: 'scripted-model',
  })
  const { id, object } = await server.client.models.retrieve('gpt-4-1106-preview')
  expect([id, object]).toEqual(['gpt-4-1106-preview', 'model'])
})
