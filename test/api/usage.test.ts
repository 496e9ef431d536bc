import { mkdtempSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'

import { lookUp, newThread, queryOnce, startCluster } from '../support/cluster.ts'
import { closeGate } from '../support/gate.ts'
import {
  call,
  cutAfter,
  say,
  stallAfter,
  startScriptedModel,
  type ScriptedModel,
} from '../support/model.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createCaller, type Body, type Caller } from './caller.ts'

let model: ScriptedModel
let server: TestServer
let api: Caller
const stack = new AsyncDisposableStack()
beforeAll(async () => {
  model = stack.use(await startScriptedModel())
  const file = join(mkdtempSync(join(inject('testDir'), 'models-')), 'models.json')
  const base_url = model.url
  const models = [
    { name: 'priced', base_url, price: { input: 2, cached_input: 0.5, output: 10 } },
    { name: 'mute', base_url, price: { input: 1, output: 1 }, quirks: { no_stream_options: true } },
    { name: '*', base_url },
  ]
  writeFileSync(file, JSON.stringify({ models }))
  server = stack.use(await startServer({ MODELS_FILE: file }))
  api = createCaller(server)
})
afterAll(() => stack.disposeAsync())

const wait = { timeout: 20_000 }
const usage = { promptTokens: 1000, completionTokens: 100 }

async function begin(body: object = {}, assistant: object = {}): Promise<Body> {
  const made = await api.make('/assistants', { model: 'priced', ...assistant })
  const thread = { messages: [{ role: 'user', content: 'How much is it?' }] }
  return api.make('/threads/runs', { assistant_id: made.id, thread, ...body })
}

async function ended(run: Body): Promise<Body> {
  return api.settled(run['thread_id'], run.id)
}

async function stepsOf(run: Body): Promise<Body[]> {
  const { data } = await api.read(
    `/threads/${String(run['thread_id'])}/runs/${run.id}/steps?order=asc`,
  )
  return data
}

async function submit(run: Body, output = '1'): Promise<Body> {
  const { required_action: action } = run as unknown as {
    required_action: { submit_tool_outputs: { tool_calls: { id: string }[] } }
  }
  const tool_outputs = action.submit_tool_outputs.tool_calls.map(({ id }) => ({
    tool_call_id: id,
    output,
  }))
  const path = `/threads/${String(run['thread_id'])}/runs/${run.id}/submit_tool_outputs`
  return api.make(path, { tool_outputs })
}

function rowsOf(run: Body) {
  return queryOnce<{
    turn: number
    generation: number
    estimated: boolean
    completion_tokens: number
  }>(
    server.databaseUrl,
    'SELECT turn, generation, estimated, completion_tokens FROM usage WHERE run_id = $1 ORDER BY 1, 2',
    [run.id],
  )
}

describe('usage', () => {
  test('has what the provider told, cached and reasoning tokens too, on the step and the run', async () => {
    model.script(
      say('It is free.', { usage: { ...usage, cachedTokens: 400, reasoningTokens: 60 } }),
    )
    const run = await ended(await begin())
    const told = {
      prompt_tokens: 1000,
      completion_tokens: 100,
      total_tokens: 1100,
      prompt_token_details: { cached_tokens: 400 },
      completion_tokens_details: { reasoning_tokens: 60 },
    }
    expect(run['usage']).toEqual(told)
    expect((await stepsOf(run)).map((step) => step['usage'])).toEqual([told])
    // 600 fresh at 2, 400 cached at 0.5, 100 written at 10 dollars a million.
    expect(run['longrun']).toMatchObject({
      usage_estimated: false,
      cost: { amount: 0.0024, currency: 'USD' },
    })
  })

  test('of several model calls is their sum, and null until the end', async () => {
    model.script(call({ name: 'look_up', arguments: {} }, { usage }), say('Two.', { usage }))
    const parked = await ended(await begin({}, { tools: [lookUp] }))
    expect(parked['status']).toBe('requires_action')
    expect(parked['usage']).toBeNull()
    expect(parked['longrun']).toMatchObject({ cost: null })
    expect((await stepsOf(parked)).map((step) => step['usage'])).toEqual([null])
    const run = await ended(await submit(parked))
    expect(run['usage']).toMatchObject({ prompt_tokens: 2000, completion_tokens: 200 })
    // Twice 1,000 at 2 and 100 at 10 dollars a million.
    expect(run['longrun']).toMatchObject({ cost: { amount: 0.006 } })
    const steps = await stepsOf(run)
    expect(steps.map((step) => step['usage'])).toMatchObject([
      { prompt_tokens: 1000, completion_tokens: 100 },
      { prompt_tokens: 1000, completion_tokens: 100 },
    ])
  })

  test('has no cost where the price of a model is not known', async () => {
    model.script(say('Who knows?', { usage }))
    const run = await ended(await begin({ model: 'unpriced' }))
    expect(run['usage']).toMatchObject({ prompt_tokens: 1000 })
    expect(run['longrun']).toMatchObject({ cost: null, usage_estimated: false })
  })

  test('is counted here where the provider does not tell', async () => {
    model.script(say('It is free of charge.', { usage: null }))
    const run = await ended(await begin({ model: 'mute' }))
    const counted = run['usage'] as { prompt_tokens: number; completion_tokens: number }
    // Six tokens in the encoding of newer models; the prompt is one short sentence.
    expect(counted.completion_tokens).toBe(6)
    expect(counted.prompt_tokens).toBeGreaterThan(4)
    expect(counted.prompt_tokens).toBeLessThan(40)
    expect(run['longrun']).toMatchObject({ usage_estimated: true })
    expect((run['longrun'] as { cost: unknown }).cost).not.toBeNull()
  })

  test('of a run that is cancelled in the middle is counted here', async () => {
    const before = model.calls
    model.script(stallAfter(3, ['Half', ' of', ' it', ' and', ' the', ' rest.']))
    const run = await begin()
    const request = await model.called(before + 1)
    await model.tokensOut(request, 3)
    await expect
      .poll(
        () =>
          queryOnce(
            server.databaseUrl,
            `SELECT FROM run_events WHERE run_id = $1 AND event = 'thread.message.delta' AND data LIKE '% it%'`,
            [run.id],
          ),
        wait,
      )
      .toHaveLength(1)
    await api.make(`/threads/${String(run['thread_id'])}/runs/${run.id}/cancel`)
    const over = await ended(run)
    expect(over['status']).toBe('cancelled')
    expect(over['usage']).toMatchObject({ completion_tokens: 3 })
    expect(over['longrun']).toMatchObject({ usage_estimated: true })
    expect((await stepsOf(run)).map((step) => step['usage'])).toEqual([over['usage']])
  })

  test('of a run that expires in the middle of a call for functions is counted here', async () => {
    const at = { name: 'look_up', arguments: '{"at":"A"}', fragments: ['{"at"', ':"A"', '}'] }
    model.script(stallAfter(2, { calls: [at] }))
    const body = { expires_after_seconds: 2 }
    const run = await ended(await begin(body, { tools: [lookUp] }))
    expect(run['status']).toBe('expired')
    const { completion_tokens } = run['usage'] as { completion_tokens: number }
    expect(completion_tokens).toBeGreaterThan(0)
    expect(run['longrun']).toMatchObject({ usage_estimated: true })
    expect((await stepsOf(run)).map(({ type, usage: shown }) => [type, shown])).toEqual([
      ['tool_calls', run['usage']],
    ])
  })

  test('of an answer that is filtered is what the provider told', async () => {
    model.script(say('It is', { usage, finishReason: 'content_filter' }))
    const run = await ended(await begin())
    expect(run['status']).toBe('failed')
    expect(run['usage']).toMatchObject({ prompt_tokens: 1000, completion_tokens: 100 })
    expect(run['longrun']).toMatchObject({ usage_estimated: false, cost: { amount: 0.003 } })
    expect((await stepsOf(run)).map((step) => step['usage'])).toEqual([run['usage']])
  })

  test('of a run that fails has every call that clients saw something of', async () => {
    // Three attempts are all that the server makes here.
    model.script(...Array.from({ length: 3 }, () => cutAfter(2, ['Never ', 'ending ', 'story.'])))
    const run = await ended(await begin())
    expect(run['status']).toBe('failed')
    const rows = await rowsOf(run)
    expect(rows.map(({ generation, estimated }) => ({ generation, estimated }))).toEqual(
      [0, 1, 2].map((generation) => ({ generation, estimated: true })),
    )
    const total = rows.reduce((sum, row) => sum + row.completion_tokens, 0)
    expect(run['usage']).toMatchObject({ completion_tokens: total })
    expect(total).toBeGreaterThan(0)
  })

  test('has the call that a killed worker left behind, as counted here', async () => {
    await using cluster = await startCluster()
    const { client } = await cluster.spawn('api')
    const worker = await cluster.spawn('worker', 'first')
    const { threadId, assistantId } = await newThread(client)
    cluster.model.script(
      stallAfter(3, ['Lost', ' in', ' the', ' middle.']),
      say('Whole.', { usage }),
    )
    const { id } = await client.beta.threads.runs.create(threadId, { assistant_id: assistantId })
    await expect
      .poll(
        () =>
          cluster.sql(
            `SELECT FROM run_events WHERE run_id = $1 AND event = 'thread.message.delta' AND data LIKE '% the%'`,
            [id],
          ),
        wait,
      )
      .toHaveLength(1)
    await worker.kill('SIGKILL')
    await cluster.spawn('worker', 'second')
    const run = await client.beta.threads.runs.poll(id, { thread_id: threadId })
    expect(run.status).toBe('completed')
    const rows = await cluster.sql<{ estimated: boolean; completion_tokens: number }>(
      'SELECT estimated, completion_tokens FROM usage WHERE run_id = $1 ORDER BY generation',
      [id],
    )
    expect(rows).toEqual([
      { estimated: true, completion_tokens: 3 },
      { estimated: false, completion_tokens: 100 },
    ])
    expect(run.usage).toMatchObject({ completion_tokens: 103 })
  })
})

describe('budgets', () => {
  test('of completion tokens hold for all model calls of a run together', async () => {
    const before = model.calls
    const round = call({ name: 'look_up', arguments: {} }, { usage })
    model.script(round, round, round)
    const tools = [lookUp]
    const first = await ended(await begin({ max_completion_tokens: 250 }, { tools }))
    const second = await ended(await submit(first))
    expect(second['status']).toBe('requires_action')
    const third = await ended(await submit(second))
    // 100 and 100 were within; with the third call there are 300, and nobody needs to be asked any more.
    expect(third).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_completion_tokens' },
      required_action: null,
      usage: { completion_tokens: 300 },
    })
    const limits = model.requests.slice(before).map(({ body }) => body['max_completion_tokens'])
    expect(limits).toEqual([250, 150, 50])
    const steps = await stepsOf(third)
    expect(steps.map((step) => step['status'])).toEqual(['completed', 'completed', 'completed'])
  })

  test('of prompt tokens end the run before a call that they leave no room for', async () => {
    const before = model.calls
    model.script(call({ name: 'look_up', arguments: {} }, { usage }))
    const body = { max_prompt_tokens: 1020 }
    const parked = await ended(await begin(body, { tools: [lookUp] }))
    expect(parked['status']).toBe('requires_action')
    const over = await ended(await submit(parked, 'so many words '.repeat(50)))
    expect(over).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_prompt_tokens' },
      usage: { prompt_tokens: 1000 },
    })
    expect(model.calls - before).toBe(1)
  })

  test('do not spoil an answer that is whole', async () => {
    model.script(say('Whole.', { usage }))
    const run = await ended(await begin({ max_completion_tokens: 50 }))
    expect(run['status']).toBe('completed')
  })
})

describe('GET /usage', () => {
  test('sums up by day and model what a project, an assistant and a thread used', async () => {
    model.script(say('One.', { usage }), say('Two.', { usage }), say('Three.', { usage }))
    const run = await begin()
    await ended(run)
    const path = `/threads/${String(run['thread_id'])}/runs`
    const again = await api.make(path, { assistant_id: run['assistant_id'] })
    await ended(again)
    const unpriced = await api.make(path, { assistant_id: run['assistant_id'], model: 'other' })
    await ended(unpriced)

    const day = new Date().toISOString().slice(0, 10)
    const one = { object: 'longrun.usage', day, cached_tokens: 0, estimated_calls: 0 }
    for (const kind of ['thread', 'assistant']) {
      const id = String(run[`${kind}_id`])
      const { data } = await api.read(`/usage?kind=${kind}&id=${id}`)
      expect(data).toEqual([
        {
          ...one,
          kind,
          id,
          model: 'other',
          model_calls: 1,
          prompt_tokens: 1000,
          completion_tokens: 100,
          reasoning_tokens: 0,
          cost: { amount: 0, currency: 'USD' },
          unpriced_calls: 1,
        },
        {
          ...one,
          kind,
          id,
          model: 'priced',
          model_calls: 2,
          prompt_tokens: 2000,
          completion_tokens: 200,
          reasoning_tokens: 0,
          cost: { amount: 0.006, currency: 'USD' },
          unpriced_calls: 0,
        },
      ])
    }
    const { data } = await api.read('/usage')
    const calls = data.reduce((sum, row) => sum + Number(row['model_calls']), 0)
    const [all] = await queryOnce<{ n: number }>(
      server.databaseUrl,
      'SELECT count(*)::integer AS n FROM usage',
    )
    expect(calls).toBe(all?.n)

    // What a thread used is not forgotten with it.
    await api.delete(`/threads/${String(run['thread_id'])}`)
    expect((await api.read(`/usage?kind=thread&id=${String(run['thread_id'])}`)).data).toHaveLength(
      2,
    )
    expect((await api.read('/usage?from=2020-01-01&to=2020-01-31')).data).toEqual([])
  })

  test('waits for nobody who makes the sums, and has what is in none yet', async () => {
    const { databaseUrl } = server
    await using _ = await closeGate(databaseUrl, { table: 'usage', at: 'update', when: 'true' })
    model.script(say('One.', { usage }))
    const run = await ended(await begin())
    const { data } = await api.read(`/usage?kind=thread&id=${String(run['thread_id'])}`)
    expect(data).toMatchObject([{ model_calls: 1, prompt_tokens: 1000, completion_tokens: 100 }])
  })

  test('is refused where it would be longer than a program reads at once', async () => {
    // Models by days, from the first of January on.
    const wide = (id: string, models: number, days: number) =>
      queryOnce(
        server.databaseUrl,
        `INSERT INTO usage_sums (project_id, day, kind, id, model, model_calls, prompt_tokens, completion_tokens,
           cached_tokens, reasoning_tokens, estimated_calls, unpriced_calls, cost)
         SELECT p.id, '2025-01-01'::date + d, 'assistant', $1, 'model-' || m, 1, 1, 1, 0, 0, 0, 0, 0
         FROM projects p, generate_series(1, $2) m, generate_series(0, $3 - 1) d WHERE p.name = 'default'`,
        [id, models, days],
      )
    await wide('asst_wide', 50, 365)
    const ofDays = (to: string) =>
      api.get(`/usage?kind=assistant&id=asst_wide&from=2025-01-01&to=${to}`)
    // 50 models in 200 days are 10,000 rows.
    const most = await ofDays('2025-07-19')
    expect(most.body['data']).toHaveLength(10_000)
    for (const to of ['2025-07-20', '2025-12-31']) {
      const { status, body } = await ofDays(to)
      expect(status).toBe(400)
      expect(body.error).toMatchObject({ param: 'from', code: 'usage_too_wide' })
      expect(body.error?.message).toContain('10000')
    }
  })

  test.each(['0001-01-01', '2024-02-29', '9999-12-31'])('knows the day %s', async (day) => {
    expect((await api.read(`/usage?from=${day}&to=${day}`)).data).toEqual([])
  })

  test.each(['yesterday', '0000-01-01', '2023-02-29', '2026-1-1', '10000-01-01', '-001-01-01'])(
    'knows no day %s',
    async (day) => {
      for (const param of ['from', 'to']) {
        const { status, body } = await api.get(`/usage?${param}=${day}`)
        expect(status).toBe(400)
        expect(body.error).toMatchObject({ param, code: 'invalid_value' })
      }
    },
  )

  test('says what it takes', async () => {
    const unnamed = await api.get('/usage?kind=thread')
    expect(unnamed.body.error).toMatchObject({ param: 'id', code: 'missing_required_parameter' })
  })
})
