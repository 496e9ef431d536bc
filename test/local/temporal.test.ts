import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Client, Connection } from '@temporalio/client'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { prepareNamespace, startTemporal } from '../../local/temporal.ts'
import type { Children } from '../../local/children.ts'
import { eventually, isAlive, quietChildren, scratchDir } from './scratch.ts'

const cliPath = process.env.LONGRUN_TEMPORAL_CLI ?? ''

const start = (children: Children, dataDir: string) =>
  startTemporal({ children, dataDir, cliPath, port: 0, uiPort: undefined, namespace: 'longrun' })

async function open(address: string) {
  const connection = await Connection.connect({ address })
  return {
    connection,
    client: new Client({ connection, namespace: 'longrun' }),
    [Symbol.asyncDispose]: () => connection.close(),
  }
}

describe.skipIf(!cliPath)('a Temporal server of our own', { timeout: 60_000 }, () => {
  test('keeps closed workflows for 30 days and knows our search attributes', async () => {
    using dir = scratchDir()
    await using children = await quietChildren(dir.path)
    const { address } = await start(children, dir.path)
    await using temporal = await open(address)
    const { workflowService, operatorService } = temporal.connection
    const { config } = await workflowService.describeNamespace({ namespace: 'longrun' })
    expect(Number(config?.workflowExecutionRetentionTtl?.seconds)).toBe(30 * 86_400)
    const { customAttributes } = await operatorService.listSearchAttributes({
      namespace: 'longrun',
    })
    expect(Object.keys(customAttributes)).toEqual(
      expect.arrayContaining(['AssistantId', 'ThreadId', 'RunStatus', 'Model', 'ProjectId']),
    )
  })

  test('still has its workflows after it was killed', async () => {
    using dir = scratchDir()
    await using children = await quietChildren(dir.path)
    const { address } = await start(children, dir.path)
    await using temporal = await open(address)
    await temporal.client.workflow.start('anything', { workflowId: 'run_1', taskQueue: 'none' })

    const file = readFileSync(join(dir.path, 'pids', 'temporal.pid'), 'utf8')
    const { pid } = z.object({ pid: z.number() }).parse(JSON.parse(file))
    process.kill(pid, 'SIGKILL')
    await eventually(() => !isAlive(pid))
    const handle = temporal.client.workflow.getHandle('run_1')
    const found = await eventually(() => handle.describe().catch(() => undefined), 30_000)
    expect(found.status.name).toBe('RUNNING')
  })

  test('a namespace that does not exist yet can be prepared by two at once', async () => {
    using dir = scratchDir()
    await using children = await quietChildren(dir.path)
    const { address } = await start(children, dir.path)
    await using temporal = await open(address)
    await Promise.all([1, 2].map(() => prepareNamespace(temporal.connection, 'other', 7)))
    const { config } = await temporal.connection.workflowService.describeNamespace({
      namespace: 'other',
    })
    expect(Number(config?.workflowExecutionRetentionTtl?.seconds)).toBe(7 * 86_400)
  })
})

test('a program that is not the Temporal CLI is said', async () => {
  using dir = scratchDir()
  await using children = await quietChildren(dir.path)
  const wrong = startTemporal({
    children,
    dataDir: dir.path,
    cliPath: '/bin/sh',
    port: 0,
    uiPort: undefined,
    namespace: 'longrun',
  })
  await expect(wrong).rejects.toThrow(/\/bin\/sh (does not run as|is not)/)
})
