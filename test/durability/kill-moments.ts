import type OpenAI from 'openai'

import { eventually } from '../local/scratch.ts'
import { lookUp } from '../support/cluster.ts'
import type { RawStream } from '../support/event-stream.ts'
import type { Gate, GatePlace } from '../support/gate.ts'
import { call, say, stallAfter, type ModelRequest, type Step } from '../support/model.ts'
import type { Installation, Victim } from '../support/victims.ts'

/** A moment in the life of a run at which somebody is killed, and what must come of it. */
export interface Moment {
  name: string
  tools?: OpenAI.Beta.AssistantTool[]
  body?: object
  /** What the model does with the n-th request. */
  model: (request: ModelRequest, n: number) => Step
  /** Where the run is held, so that it is the moment and not a while later; opened as soon as the victim is dead. */
  gate?: GatePlace
  /** Resolves at the moment. */
  reach(scene: Scene): Promise<unknown>
  /** What the client does once the victim is back. */
  goOn?: (scene: Scene) => Promise<unknown>
  status: 'completed' | 'cancelled' | 'expired'
  /**
   * How often the model is asked. Turns that are committed are never repeated; one more than that is allowed only where the
   * kill took a worker with an answer of the model that was not.
   */
  calls: (victim: Victim) => number
  /** What the model is told in the end that its last call came to. */
  told?: (victim: Victim) => RegExp
}

export interface Scene extends Pick<Installation, 'api' | 'cluster'> {
  victim: Victim
  threadId: string
  runId: string
  stream: RawStream
  gate: Gate | undefined
}

export const answer = ['It ', 'was ', 'a ', 'bright ', 'cold ', 'day ', 'in ', 'April.']
const seen = 3

const saysAll = (): Step => say(answer)
/** The first answer stands still in the middle; whoever asks again gets all of it. */
const stalls = (_: ModelRequest, n: number): Step =>
  n === 1 ? stallAfter(seen, answer) : saysAll()
const callsFirst =
  (name: string) =>
  ({ toolResults }: ModelRequest): Step =>
    toolResults.length === 0 ? call({ name, arguments: {} }) : saysAll()

/** The claim of the n-th turn, counted from 0: the first that a worker does for it. */
const claimOf = (turn: number): GatePlace => ({
  table: 'run_turns',
  at: 'insert',
  when: `NEW.turn = ${turn}`,
})
const endAs = (status: string, at: 'update' | 'commit' = 'update'): GatePlace => ({
  table: 'runs',
  at,
  when: `NEW.status = '${status}'`,
})

const slowly = 'import time\ntime.sleep(3)\nprint("slept")'

export const moments: Moment[] = [
  {
    name: 'queued',
    model: saysAll,
    gate: claimOf(0),
    // The start is on its way while the api or Temporal dies, and has arrived where the worker or Postgres does.
    async reach({ victim, stream, gate }) {
      await stream.saw('thread.run.queued')
      if (victim === 'worker' || victim === 'Postgres') await gate?.reached()
    },
    status: 'completed',
    calls: () => 1,
  },
  {
    name: 'mid-stream',
    model: stalls,
    reach: ({ stream }) => stream.saw('thread.message.delta'),
    status: 'completed',
    calls: (victim) => (victim === 'worker' ? 2 : 1),
  },
  {
    name: 'between turns',
    // No tool of this name exists: the model is told so, and asked again.
    model: callsFirst('look_about'),
    gate: claimOf(1),
    reach: ({ gate }) => must(gate).reached(),
    status: 'completed',
    calls: () => 2,
  },
  {
    name: 'during code',
    tools: [{ type: 'code_interpreter' }],
    model: ({ toolResults }) =>
      toolResults.length === 0
        ? call({ name: 'code_interpreter', arguments: { code: slowly } })
        : saysAll(),
    reach: ({ cluster, runId }) =>
      eventually(async () => {
        const begun = 'SELECT 1 FROM tool_calls WHERE run_id = $1 AND begun IS NOT NULL'
        return (await cluster.sql(begun, [runId])).length > 0
      }),
    status: 'completed',
    calls: () => 2,
    // Its sandbox goes with the worker, and with nobody else.
    told: (victim) => (victim === 'worker' ? /run again from its beginning[^]*slept/ : /^slept$/),
  },
  {
    name: 'requires_action',
    tools: [lookUp],
    model: callsFirst('look_up'),
    reach: ({ stream }) => stream.ended,
    goOn: submit,
    status: 'completed',
    calls: () => 2,
  },
  {
    name: 'just after submit',
    tools: [lookUp],
    model: callsFirst('look_up'),
    gate: claimOf(1),
    async reach(scene) {
      await scene.stream.ended
      await submit(scene)
    },
    status: 'completed',
    calls: () => 2,
  },
  {
    name: 'cancelling',
    model: stalls,
    gate: endAs('cancelled'),
    async reach({ api, threadId, runId, stream }) {
      await stream.saw('thread.message.delta')
      await api().client.beta.threads.runs.cancel(runId, { thread_id: threadId })
    },
    status: 'cancelled',
    calls: () => 1,
  },
  {
    name: 'expiring',
    body: { expires_after_seconds: 3 },
    model: stalls,
    gate: endAs('expired'),
    async reach({ stream, gate }) {
      await stream.saw('thread.message.delta')
      await must(gate).reached()
    },
    status: 'expired',
    calls: () => 1,
  },
  {
    name: 'finalizing',
    model: saysAll,
    gate: endAs('completed'),
    reach: ({ gate }) => must(gate).reached(),
    status: 'completed',
    calls: (victim) => (victim === 'worker' ? 2 : 1),
  },
  {
    name: 'committing',
    model: saysAll,
    // Postgres is at work on the commit: it goes through, and who is dead does not hear of it.
    gate: endAs('completed', 'commit'),
    reach: ({ gate }) => must(gate).reached(),
    status: 'completed',
    calls: () => 1,
  },
]

/** As the official clients do, which try again. */
async function submit({ api, threadId, runId }: Scene): Promise<void> {
  await eventually(async () => {
    try {
      const { runs } = api().client.beta.threads
      const { required_action: asked } = await runs.retrieve(runId, { thread_id: threadId })
      const calls = asked?.submit_tool_outputs.tool_calls ?? []
      return await runs.submitToolOutputs(runId, {
        thread_id: threadId,
        tool_outputs: calls.map(({ id }) => ({ tool_call_id: id, output: '42' })),
      })
    } catch {
      return undefined
    }
  })
}

function must(gate: Gate | undefined): Gate {
  if (!gate) throw new Error('This moment has no gate')
  return gate
}
