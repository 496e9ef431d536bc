import { Agent, request } from 'node:http'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

import { Client } from 'pg'

import { nowMs } from './clock.ts'
import { startModel, startProgram, temporaryDataDir } from './program.ts'
import { p50, p99, print, printTable } from './table.ts'

/**
 * Lists, reads and writes in a thread with a million messages and in a project with a million threads, beside the same
 * requests where there are twenty of each, and beside a request that does nothing. Rows are made by SQL, requests go over HTTP.
 */
export async function lists(args: string[], stop: AbortSignal): Promise<void> {
  const { rows, requests } = readOptions(args)
  await using stack = new AsyncDisposableStack()
  const dataDir = stack.use(temporaryDataDir()).path
  const model = stack.use(await startModel(stop))
  const program = stack.use(await startProgram({ dataDir, modelUrl: model.url }, stop))
  const database = new Client({ connectionString: program.databaseUrl })
  database.on('error', () => {})
  await database.connect()
  stack.defer(() => database.end().catch(() => {}))
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  stack.defer(() => agent.destroy())
  const bench: Bench = { baseUrl: program.baseUrl, agent, database, requests, stop, rows }

  const few = await measure(bench, 20)
  const before = residentMb(program.pid)
  print(`\nMaking ${rows.toLocaleString('en')} messages and as many threads ...`)
  await fill(bench)
  const many = await measure(bench, rows)
  const nothing = await timed(bench, () => call(bench, 'GET', '/../healthz'))
  printTable(
    `Round trips of at most ${requests} requests one after another, in ms (goal: p50 below 5 with ${rows.toLocaleString('en')} rows)`,
    ['', 'p50, 20 rows', `p50, ${rows} rows`, 'p99', 'ratio'],
    [
      ['GET /healthz: the limit', '', p50(nothing), p99(nothing), ''],
      ...Object.entries(many).map(([name, times]) => {
        const small = p50(few[name] ?? [])
        return [name, small, p50(times), p99(times), p50(times) / small]
      }),
    ],
  )
  const missed = Object.entries(many).filter(([, times]) => p50(times) >= goalMs)
  print(`\nOver ${goalMs} ms: ${missed.map(([name]) => name).join(', ') || 'none'}`)
  print(`Memory of the server: ${before} MB before, ${residentMb(program.pid)} MB after`)
}

const goalMs = 5

interface Bench {
  baseUrl: string
  agent: Agent
  database: Client
  requests: number
  rows: number
  stop: AbortSignal
}

function readOptions(args: string[]) {
  const { values } = parseArgs({
    args,
    options: {
      rows: { type: 'string', default: '1000000' },
      /** How often each request is sent. */
      requests: { type: 'string', default: '300' },
    },
  })
  return { rows: Number(values.rows), requests: Number(values.requests) }
}

type Times = Record<string, number[]>

/** Each kind of request, on the thread and the project as they are; makes what is missing up to twenty. */
async function measure(bench: Bench, rows: number): Promise<Times> {
  const thread = await theThread(bench, rows)
  const ids = await idsAt(bench, 'messages', `thread_id = '${thread}'`)
  const threads = await idsAt(bench, 'threads', 'true')
  const messages = `/threads/${thread}/messages`
  const said = { role: 'user', content: 'One more message.' }
  const since = Math.floor(Date.now() / 1000) - 3600
  const requests: Record<string, [string, string, object?]> = {
    'messages: first page': ['GET', messages],
    'messages: first page of 100': ['GET', `${messages}?limit=100`],
    'messages: after the middle': ['GET', `${messages}?after=${ids.middle}`],
    'messages: before the middle': ['GET', `${messages}?before=${ids.middle}`],
    'messages: oldest first': ['GET', `${messages}?order=asc`],
    'messages: get': ['GET', `${messages}/${ids.middle}`],
    'messages: create': ['POST', messages, said],
    'messages: modify': ['POST', `${messages}/${ids.middle}`, { metadata: { a: '1' } }],
    'threads: first page': ['GET', '/threads'],
    'threads: after the middle': ['GET', `/threads?after=${threads.middle}`],
    'threads: by metadata': ['GET', '/threads?metadata[user]=user_7'],
    'threads: by metadata, none': ['GET', '/threads?metadata[user]=nobody'],
    'threads: by time': ['GET', `/threads?created_after=${since}`],
    'threads: by text': ['GET', '/threads?q=message'],
    'threads: by text, rare': ['GET', '/threads?q=zebra'],
    'threads: with an active run': ['GET', '/threads?has_active_run=true'],
    'threads: get': ['GET', `/threads/${threads.middle}`],
    'threads: create': ['POST', '/threads', { metadata: { user: 'user_x' } }],
    'threads: create with a message': ['POST', '/threads', { messages: [said] }],
    'assistants: first page': ['GET', '/assistants'],
  }
  const times: Times = {}
  for (const [name, [method, path, body]] of Object.entries(requests)) {
    bench.stop.throwIfAborted()
    times[name] = await timed(bench, () => call(bench, method, path, body))
  }
  return times
}

async function theThread(bench: Bench, rows: number): Promise<string> {
  const { rows: found } = await bench.database.query<{ id: string }>(
    `SELECT id FROM threads WHERE metadata @> '{"bench": "1"}' LIMIT 1`,
  )
  if (found[0]) return found[0].id
  await call(bench, 'POST', '/assistants', { model: 'bench' })
  const messages = Array.from({ length: rows }, (_, n) => ({ role: 'user', content: `No ${n}` }))
  const made = await call(bench, 'POST', '/threads', { messages, metadata: { bench: '1' } })
  for (let n = 1; n < rows; n += 1) {
    await call(bench, 'POST', '/threads', { metadata: { user: `user_${n}` } })
  }
  return (JSON.parse(made) as { id: string }).id
}

/** A million of each. Texts repeat few words; one thread in ten thousand holds a rare one. */
async function fill({ database, rows }: Bench): Promise<void> {
  // Built at once afterwards, which is quicker than entry by entry.
  const { rows: indexes } = await database.query<{ indexdef: string }>(
    `SELECT indexdef FROM pg_indexes WHERE indexname = 'messages_by_term'`,
  )
  await database.query('DROP INDEX messages_by_term')
  await database.query(`SET maintenance_work_mem = '1GB'; SET synchronous_commit = off`)
  const { rows: found } = await database.query<{ id: string; project_id: string }>(
    `SELECT id, project_id FROM threads WHERE metadata @> '{"bench": "1"}'`,
  )
  const { id, project_id: project } = found[0] ?? { id: '', project_id: '' }
  const part = (text: string) =>
    `jsonb_build_array(jsonb_build_object('type', 'text', 'text', jsonb_build_object('value', ${text}, 'annotations', '[]'::jsonb)))`
  await database.query(
    `INSERT INTO messages (id, project_id, thread_id, role, status, content, attachments, metadata)
     SELECT 'msg_' || substr(md5('m' || n) || md5('n' || n), 1, 24), $1, $2, 'user', 'completed',
       ${part(`'This is message number ' || n`)}, '[]', '{}' FROM generate_series(1, $3::int) n`,
    [project, id, rows],
  )
  await database.query(
    `INSERT INTO threads (id, project_id, tool_resources, metadata)
     SELECT 'thread_' || substr(md5('t' || n) || md5('u' || n), 1, 24), $1, '{}', jsonb_build_object('user', 'user_' || n % 50000)
     FROM generate_series(1, $2::int) n`,
    [project, rows],
  )
  await database.query(
    `INSERT INTO messages (id, project_id, thread_id, role, status, content, attachments, metadata)
     SELECT 'msg_' || substr(md5('x' || n) || md5('y' || n), 1, 24), $1,
       'thread_' || substr(md5('t' || n) || md5('u' || n), 1, 24), 'user', 'completed',
       ${part(`CASE WHEN n % 1000 = 0 THEN 'A zebra' ELSE 'A message of ' || n END`)}, '[]', '{}'
     FROM generate_series(1, $2::int / 10) n`,
    [project, rows],
  )
  print('Building the index of words ...')
  for (const { indexdef } of indexes) await database.query(indexdef)
  await database.query('VACUUM ANALYZE messages')
  await database.query('VACUUM ANALYZE threads')
}

async function idsAt(
  { database }: Bench,
  table: string,
  where: string,
): Promise<{ middle: string }> {
  const { rows } = await database.query<{ id: string }>(
    `SELECT id FROM ${table} WHERE ${where}
       AND seq >= (SELECT (min(seq) + max(seq)) / 2 FROM ${table} WHERE ${where}) ORDER BY seq LIMIT 1`,
  )
  return { middle: rows[0]?.id ?? '' }
}

/** What is slow is asked less often: at most for as long as this. */
const longestMs = 8000

async function timed({ requests }: Bench, send: () => Promise<unknown>): Promise<number[]> {
  const until = nowMs() + longestMs
  for (let n = 0; n < 20 && nowMs() < until; n += 1) await send()
  const times: number[] = []
  for (let n = 0; n < requests && (n === 0 || nowMs() < until); n += 1) {
    const began = nowMs()
    await send()
    times.push(nowMs() - began)
  }
  return times
}

function call(
  { baseUrl, agent }: Bench,
  method: string,
  path: string,
  body?: object,
): Promise<string> {
  const headers = {
    authorization: 'Bearer bench',
    'openai-beta': 'assistants=v2',
    ...(body && { 'content-type': 'application/json' }),
  }
  return new Promise((resolve, reject) => {
    const sent = request(new URL(`${baseUrl}${path}`), { method, agent, headers }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (piece: string) => (text += piece))
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text)
        else reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`))
      })
    })
    sent.on('error', reject)
    sent.end(body && JSON.stringify(body))
  })
}

function residentMb(pid: number): number {
  const [, kb] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Math.round(Number(kb) / 1024)
}
