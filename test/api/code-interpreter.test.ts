import type OpenAI from 'openai'
import { toFile } from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { newThread } from '../support/cluster.ts'
import { call, say, type Step } from '../support/model.ts'
import { codeEnv, noCode, written } from '../support/sandboxes.ts'
import { startServer, type TestServer } from '../support/server.ts'

const interpreter: OpenAI.Beta.AssistantTool = { type: 'code_interpreter' }
const runs = (code: string): Step => call({ name: 'code_interpreter', arguments: { code } })

describe.skipIf(noCode)(`the code interpreter${noCode ? `: ${noCode}` : ''}`, () => {
  let server: TestServer
  let client: OpenAI
  beforeAll(async () => {
    server = await startServer(codeEnv())
    ;({ client } = server)
  })
  afterAll(() => server[Symbol.asyncDispose]())

  /** A thread whose assistant runs code. */
  async function newCodeThread(files: { assistant?: string[]; thread?: string[] } = {}) {
    const resources = (file_ids: string[] = []) => ({ code_interpreter: { file_ids } })
    const assistant = await client.beta.assistants.create({
      model: 'gpt-4o',
      tools: [interpreter],
      tool_resources: resources(files.assistant),
    })
    const thread = await client.beta.threads.create({
      messages: [{ role: 'user', content: 'Please compute.' }],
      tool_resources: resources(files.thread),
    })
    return { threadId: thread.id, assistantId: assistant.id }
  }

  /** Runs these cells, one a turn, and then says the last words. */
  async function runCells(
    { threadId, assistantId }: { threadId: string; assistantId: string },
    codes: string[],
    words = 'Done.',
  ) {
    server.model.script(...codes.map(runs), say(words))
    const run = await client.beta.threads.runs.createAndPoll(threadId, {
      assistant_id: assistantId,
    })
    expect(run.last_error).toBeNull()
    expect(run.status).toBe('completed')
    const steps = await client.beta.threads.runs.steps.list(run.id, {
      thread_id: threadId,
      order: 'asc',
    })
    const messages = await client.beta.threads.messages.list(threadId, { run_id: run.id })
    return { run, calls: steps.data.flatMap(codeCalls), message: messages.data[0] }
  }

  /** What the model was told that its last call came to. */
  const lastOutput = (): string => server.model.requests.at(-1)?.toolResults.at(-1) ?? ''

  async function upload(name: string, content: string): Promise<string> {
    const file = await toFile(Buffer.from(content), name)
    return (await client.files.create({ file, purpose: 'assistants' })).id
  }

  async function download(id: string): Promise<Buffer> {
    return Buffer.from(await (await client.files.content(id)).arrayBuffer())
  }

  test('runs code, shows what it printed and its last value, and tells the model', async () => {
    const { calls } = await runCells(await newCodeThread(), ['print("six times seven")\n6 * 7'])
    const logs = calls.map(({ outputs }) => outputs.map((one) => ('logs' in one ? one.logs : '')))
    expect(logs.flat().join('')).toBe('six times seven\n42')
    expect(calls[0]?.input).toBe('print("six times seven")\n6 * 7')
    expect(lastOutput()).toContain('42')
  })

  test('keeps variables from call to call and from run to run', async () => {
    const thread = await newCodeThread()
    await runCells(thread, ['x = 20', 'x += 1'])
    await runCells(thread, ['print(x * 2)'])
    expect(lastOutput()).toBe('42')
  })

  test('keeps threads apart', async () => {
    await runCells(await newCodeThread(), [
      'secret = 1\nopen("/mnt/data/own.txt", "w").write("own")',
    ])
    await runCells(await newCodeThread(), [
      'import os\nprint("secret" in globals(), os.listdir("/mnt/data"))',
    ])
    expect(lastOutput()).toBe('False []')
  })

  test('shows a traceback as logs, and the run goes on', async () => {
    const { calls } = await runCells(await newCodeThread(), ['1 / 0'])
    expect(JSON.stringify(calls[0]?.outputs)).toContain('ZeroDivisionError')
    expect(lastOutput()).toContain('ZeroDivisionError')
  })

  test('runs the calls of one answer in their order', async () => {
    const thread = await newCodeThread()
    const cell = (code: string) => ({ name: 'code_interpreter', arguments: { code } })
    server.model.script(
      call([cell('order = ["a"]'), cell('order.append("b")'), cell('print(order)')]),
      say('Done.'),
    )
    const run = await client.beta.threads.runs.createAndPoll(thread.threadId, {
      assistant_id: thread.assistantId,
    })
    expect(run.status).toBe('completed')
    expect(lastOutput()).toBe("['a', 'b']")
  })

  test('has the files of assistant, thread and message, under their ids and their names', async () => {
    const ids = {
      assistant: await upload('a.csv', 'assistant'),
      thread: await upload('t.csv', 'thread'),
      message: await upload('my notes.txt', 'message'),
    }
    const thread = await newCodeThread({ assistant: [ids.assistant], thread: [ids.thread] })
    await client.beta.threads.messages.create(thread.threadId, {
      role: 'user',
      content: 'See the notes.',
      attachments: [{ file_id: ids.message, tools: [{ type: 'code_interpreter' }] }],
    })
    const names = ['a.csv', 't.csv', 'my notes.txt', ...Object.values(ids)]
    await runCells(thread, [
      `print([open("/mnt/data/" + name).read() for name in ${JSON.stringify(names)}])`,
    ])
    expect(lastOutput()).toBe(
      "['assistant', 'thread', 'message', 'assistant', 'thread', 'message']",
    )
    expect(JSON.stringify(server.model.requests.at(-1)?.body.tools)).toContain('my notes.txt')
  })

  test('a file that is attached while the session lives is there in the next run', async () => {
    const thread = await newCodeThread()
    await runCells(thread, ['x = 1'])
    const id = await upload('late.txt', 'late')
    await client.beta.threads.messages.create(thread.threadId, {
      role: 'user',
      content: 'One more.',
      attachments: [{ file_id: id, tools: [{ type: 'code_interpreter' }] }],
    })
    await runCells(thread, ['print(open("/mnt/data/late.txt").read(), x)'])
    expect(lastOutput()).toBe('late 1')
  })

  test('files of one name do not hide each other, and what code writes over stays as it was under its id', async () => {
    const [one, two] = [await upload('same.txt', 'one'), await upload('same.txt', 'two')]
    const thread = await newCodeThread({ thread: [one, two] })
    const read = (name: string) => `open("/mnt/data/${name}").read()`
    await runCells(thread, [
      `print(${read('same.txt')}, ${read(`same-${two.slice(-6)}.txt`)})`,
      'open("/mnt/data/same.txt", "w").write("new")',
      `print(${read('same.txt')}, ${read(one)}, ${read(two)})`,
    ])
    expect(server.model.requests.at(-1)?.toolResults.map((told) => told.split('\n')[0])).toEqual([
      'one two',
      '3',
      'new one two',
    ])
  })

  test('a file that takes the place of another of its name is the one that code reads, and a deleted one is gone', async () => {
    const old = await upload('data.csv', 'old')
    const thread = await newCodeThread({ thread: [old] })
    await runCells(thread, ['print(open("/mnt/data/data.csv").read())'])
    expect(lastOutput()).toBe('old')
    await client.files.delete(old)
    const corrected = await upload('data.csv', 'corrected')
    await client.beta.threads.messages.create(thread.threadId, {
      role: 'user',
      content: 'Here is the right one.',
      attachments: [{ file_id: corrected, tools: [{ type: 'code_interpreter' }] }],
    })
    await runCells(thread, [
      `import os\nprint(open("/mnt/data/data.csv").read(), os.path.exists("/mnt/data/${old}"))`,
    ])
    expect(lastOutput()).toBe('corrected False')
  })

  test('CSV in, chart and workbook out: shown, linked, attached and downloaded', async () => {
    const csv = await upload('sales.csv', 'month,sales\nJan,3\nFeb,5\n')
    const thread = await newCodeThread({ thread: [csv] })
    const code = [
      'import pandas as pd, matplotlib.pyplot as plt',
      'sales = pd.read_csv("/mnt/data/sales.csv")',
      'sales.plot.bar(x="month", y="sales")',
      'plt.show()',
      'sales.to_excel("/mnt/data/sales.xlsx", index=False)',
      'open("/mnt/data/forgotten.txt", "w").write("kept")',
    ].join('\n')
    const words = 'Here: [sales](sandbox:/mnt/data/sales.xlsx) 📈.'
    const { calls, message } = await runCells(thread, [code], words)

    const image = calls[0]?.outputs.find(({ type }) => type === 'image')
    const imageId = image && 'image' in image ? (image.image?.file_id ?? '') : ''
    const [first, second] = message?.content ?? []
    expect(first).toMatchObject({ type: 'image_file', image_file: { file_id: imageId } })
    expect((await download(imageId)).subarray(1, 4).toString()).toBe('PNG')

    if (second?.type !== 'text') throw new Error('The message has no text')
    expect(second.text.value).toBe(words)
    const [annotation] = second.text.annotations
    if (annotation?.type !== 'file_path') throw new Error('The link has no annotation')
    const { start_index, end_index } = annotation
    expect(Array.from(words).slice(start_index, end_index).join('')).toBe(
      'sandbox:/mnt/data/sales.xlsx',
    )
    const workbook = await client.files.retrieve(annotation.file_path.file_id)
    expect(workbook).toMatchObject({ filename: 'sales.xlsx', purpose: 'assistants_output' })
    expect((await download(workbook.id)).subarray(0, 2).toString()).toBe('PK')

    const attached = await Promise.all(
      (message?.attachments ?? []).map(async ({ file_id = '' }) => {
        const { filename } = await client.files.retrieve(file_id)
        return [filename, (await download(file_id)).length > 0]
      }),
    )
    expect(Object.fromEntries(attached)).toEqual({ 'forgotten.txt': true, 'sales.xlsx': true })
  })

  test('streams the code, what came of it, and the figure before the words', async () => {
    const thread = await newCodeThread()
    const code = 'import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint("drawn")'
    server.model.script(runs(code), say(['A ', 'line.']))
    const stream = client.beta.threads.runs.stream(thread.threadId, {
      assistant_id: thread.assistantId,
    })
    const order: string[] = []
    let streamed = ''
    stream.on('toolCallDelta', (delta) => {
      if (delta.type === 'code_interpreter') streamed += delta.code_interpreter?.input ?? ''
    })
    stream.on('messageDelta', ({ content = [] }) => order.push(...content.map(({ type }) => type)))
    const [message] = await stream.finalMessages()
    expect(streamed).toBe(code)
    expect([...new Set(order)]).toEqual(['image_file', 'text'])
    expect(message?.content.map(({ type }) => type)).toEqual(['image_file', 'text'])
    const [step] = await stream.finalRunSteps()
    const stored = await client.beta.threads.runs.steps.retrieve(step?.id ?? '', {
      thread_id: thread.threadId,
      run_id: step?.run_id ?? '',
    })
    expect(step && codeCalls(step)[0]?.outputs).toMatchObject(
      (codeCalls(stored)[0]?.outputs ?? []).map((one) => ({ ...one })),
    )
  })

  test('a cancel stops the code, what it printed is kept, and the session goes on', async () => {
    const thread = await newCodeThread()
    await runCells(thread, ['x = 42'])
    server.model.script(
      runs('print("begun", flush=True)\nopen("/mnt/data/begun", "w").close()\nwhile True: pass'),
    )
    const run = await client.beta.threads.runs.create(thread.threadId, {
      assistant_id: thread.assistantId,
    })
    await written(server.config.dataDir, 'begun')
    await client.beta.threads.runs.cancel(run.id, { thread_id: thread.threadId })
    const ended = await client.beta.threads.runs.poll(run.id, { thread_id: thread.threadId })
    expect(ended.status).toBe('cancelled')
    await runCells(thread, ['print(x)'])
    expect(lastOutput()).toContain('42')
  })

  test('a link to a file of an earlier run is an annotation too', async () => {
    const thread = await newCodeThread()
    await runCells(thread, ['open("/mnt/data/a.txt", "w").write("one")'])
    server.model.script(say('Again: sandbox:/mnt/data/a.txt'))
    const run = await client.beta.threads.runs.createAndPoll(thread.threadId, {
      assistant_id: thread.assistantId,
    })
    const { data } = await client.beta.threads.messages.list(thread.threadId, { run_id: run.id })
    const [part] = data[0]?.content ?? []
    const annotation = part?.type === 'text' ? part.text.annotations[0] : undefined
    if (annotation?.type !== 'file_path') throw new Error('The link has no annotation')
    expect((await download(annotation.file_path.file_id)).toString()).toBe('one')
  })
})

test('a server without sandboxes says so to the model, and the run goes on', async () => {
  await using server = await startServer({ SANDBOX_PROVIDER: 'none' })
  const { client } = server
  const { threadId, assistantId } = await newThread(client, 'Compute.', [interpreter])
  server.model.script(runs('1'), say('I cannot.'))
  const run = await client.beta.threads.runs.createAndPoll(threadId, { assistant_id: assistantId })
  expect(run.status).toBe('completed')
  expect(server.model.requests.at(-1)?.toolResults.at(-1)).toMatch(
    /code_interpreter cannot be used.*SANDBOX_PROVIDER/,
  )
})

type CodeCall = OpenAI.Beta.Threads.Runs.CodeInterpreterToolCall['code_interpreter']

function codeCalls({ step_details }: OpenAI.Beta.Threads.Runs.RunStep): CodeCall[] {
  if (step_details.type !== 'tool_calls') return []
  return step_details.tool_calls.flatMap((one) =>
    one.type === 'code_interpreter' ? [one.code_interpreter] : [],
  )
}
