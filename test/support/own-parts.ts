import { randomUUID } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import { Client, Connection, type WorkflowHandle } from '@temporalio/client'
import { inject } from 'vitest'

import { createChildren, type Children } from '../../local/children.ts'
import { startPostgres } from '../../local/postgres.ts'
import { startTemporal } from '../../local/temporal.ts'
import { createLogger } from '../../log.ts'
import { eventually, isAlive } from '../local/scratch.ts'

/** A part of one's own, which may be stopped and killed. It keeps its address and its data. */
export interface OwnPart extends AsyncDisposable {
  /** Ends it in an orderly way; it stays away until `start`. */
  stop(): Promise<void>
  start(): Promise<void>
  /** Sends the signal to the program itself and waits for its end; the supervisor starts it again at once. */
  kill(signal: 'SIGKILL' | 'SIGINT'): Promise<void>
}

export async function ownPostgres(): Promise<OwnPart & { url: string }> {
  const dataDir = newDir('postgres')
  const at = { url: '', port: 0 }
  const part = supervised(dataDir, async (children) => {
    const settings = { fsync: 'off' }
    const options = { children, dataDir, port: at.port, database: 'longrun', settings }
    Object.assign(at, await startPostgres(options))
  })
  await part.start()
  return {
    ...part,
    url: at.url,
    kill: (signal) => killAndWait(postmasterOf(dataDir), signal),
  }
}

export async function ownTemporal(): Promise<
  OwnPart & {
    address: string
    /** Between `stop` and `start`: all that it knew is lost. */
    wipe(): void
  }
> {
  const cliPath = process.env['LONGRUN_TEMPORAL_CLI']
  if (!cliPath) throw new Error('Run the tests with `npm test`: it gets Temporal')
  const dataDir = newDir('temporal')
  let address = ''
  const part = supervised(dataDir, async (children) => {
    const port = Number(address.split(':')[1] ?? 0)
    const options = { children, dataDir, cliPath, port, uiPort: undefined, namespace: 'longrun' }
    ;({ address } = await startTemporal(options))
  })
  await part.start()
  return {
    ...part,
    address,
    kill: (signal) => killAndWait(supervisedPid(dataDir, 'temporal'), signal),
    wipe() {
      for (const name of readdirSync(dataDir).filter((file) => file.includes('.db'))) {
        if (name.startsWith('temporal-')) rmSync(join(dataDir, name))
      }
    },
  }
}

/** Ends the workflow of a run behind everybody's back, as an operator may. */
export async function terminateWorkflow(runId: string, address: string): Promise<void> {
  await withWorkflow(runId, address, (workflow) => workflow.terminate('by a test'))
}

/** `RUNNING`, `COMPLETED`, `FAILED` ... */
export async function statusOfWorkflow(runId: string, address: string): Promise<string> {
  const { status } = await withWorkflow(runId, address, (workflow) => workflow.describe())
  return status.name
}

async function withWorkflow<T>(
  runId: string,
  address: string,
  act: (workflow: WorkflowHandle) => Promise<T>,
): Promise<T> {
  const connection = await Connection.connect({ address })
  try {
    const client = new Client({ connection, namespace: 'longrun' })
    return await act(client.workflow.getHandle(runId))
  } finally {
    await connection.close()
  }
}

function supervised(dataDir: string, begin: (children: Children) => Promise<void>) {
  let children: Children | undefined
  const stop = async (): Promise<void> => {
    await children?.[Symbol.asyncDispose]()
    children = undefined
  }
  return {
    stop,
    async start() {
      children = await createChildren({ dataDir, log: createLogger('silent') })
      await begin(children)
    },
    [Symbol.asyncDispose]: stop,
  }
}

async function killAndWait(pid: number, signal: 'SIGKILL' | 'SIGINT'): Promise<void> {
  process.kill(pid, signal)
  await eventually(() => !isAlive(pid))
}

function newDir(name: string): string {
  const path = join(inject('testDir'), `${name}-${randomUUID()}`)
  mkdirSync(path, { recursive: true })
  return path
}

function postmasterOf(dataDir: string): number {
  const file = readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8')
  return Number(file.split('\n')[0])
}

function supervisedPid(dataDir: string, name: string): number {
  const file = readFileSync(join(dataDir, 'pids', `${name}.pid`), 'utf8')
  return (JSON.parse(file) as { pid: number }).pid
}
