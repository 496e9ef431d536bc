import { z } from 'zod'

/** What the host says to the supervisor. */
export type ToSupervisor =
  | { t: 'start'; limits: SupervisorLimits; watchMemory: boolean; confine: boolean }
  | { t: 'confined'; pid: number }
  /** `code` is base64. */
  | { t: 'exec'; id: number; code: string; timeoutMs: number; outputBytes: number }
  | { t: 'ping'; n: number }
  | { t: 'shutdown' }
  | {
      t: 'spawn'
      id: number
      argv: string[]
      workdir?: string
      env?: Record<string, string>
      timeoutMs?: number
    }
  | { t: 'credit'; id: number; s: 1 | 2; bytes: number }
  | { t: 'stdin'; id: number; d: string }
  | { t: 'eof'; id: number }
  | { t: 'kill'; id: number }

export type SupervisorLimits = { memoryBytes: number; diskBytes: number; processes: number }

const id = z.number().int()
const ending = { signal: z.number().int().nullable(), code: z.number().int().nullable() }
const killed = z.enum(['timeout', 'interrupted', 'memory', 'closed']).nullable()
const reason = z.enum(['timeout', 'interrupted']).nullable()

/** What the supervisor says. The key vouches that it is the supervisor who speaks; the shape is looked at all the same. */
export const FromSupervisor = z.discriminatedUnion('t', [
  z.object({ t: z.literal('ready') }),
  z.object({ t: z.literal('fatal'), error: z.string() }),
  z.object({ t: z.literal('pong'), n: z.number() }),
  z.object({ t: z.literal('badframe'), count: z.number() }),
  z.object({ t: z.literal('out'), id, d: z.string() }),
  z.object({
    t: z.literal('image'),
    id,
    f: z.enum(['png', 'jpeg']),
    d: z.string(),
    last: z.boolean(),
  }),
  z.object({
    t: z.literal('done'),
    id,
    status: z.enum(['ok', 'error', 'stopped']),
    reason,
    dropped: z.number(),
    ms: z.number(),
  }),
  z.object({ t: z.literal('lost'), ...ending, killed }),
  z.object({ t: z.literal('confine'), pid: z.number().int() }),
  z.object({ t: z.literal('pstarted'), id }),
  z.object({ t: z.literal('pfailed'), id, error: z.string() }),
  z.object({ t: z.literal('pdata'), id, s: z.union([z.literal(1), z.literal(2)]), d: z.string() }),
  z.object({ t: z.literal('pend'), id, s: z.union([z.literal(1), z.literal(2)]) }),
  z.object({ t: z.literal('pstdin'), id, error: z.string().optional() }),
  z.object({ t: z.literal('pexit'), id, ...ending, timedOut: z.boolean() }),
  z.object({
    t: z.literal('died'),
    id,
    ...ending,
    reason,
    killed,
    dropped: z.number(),
    ms: z.number(),
  }),
])

export type FromSupervisor = z.infer<typeof FromSupervisor>
export type Done = Extract<FromSupervisor, { t: 'done' | 'died' }>
export type ProcessMessage = Extract<
  FromSupervisor,
  { t: 'pstarted' | 'pfailed' | 'pdata' | 'pend' | 'pstdin' | 'pexit' }
>
