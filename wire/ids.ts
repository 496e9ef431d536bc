/**
 * Object ids look like the original's: a prefix and 24 base-62 characters (file ids have a hyphen; vector stores 32 hexadecimal digits).
 * They carry no order; lists are ordered by a sequence column.
 */
export const prefixes = {
  assistant: 'asst_',
  thread: 'thread_',
  message: 'msg_',
  run: 'run_',
  step: 'step_',
  call: 'call_',
  project: 'proj_',
  key: 'key_',
  file: 'file-',
  vector_store: 'vs_',
  upload: 'upload_',
  part: 'part_',
} as const

export type IdKind = keyof typeof prefixes
export type Id<Kind extends IdKind> = `${(typeof prefixes)[Kind]}${string}`

const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const length = 24
const idSpace = 62n ** BigInt(length)
const uuidSpace = 1n << 128n
/** Odd, so that adding multiples of it visits every uuid: the n-th id of one uuid does not meet another n's. */
const stride = 0x9e3779b97f4a7c15f39cc0605cedc835n
/** Shares no factor with 62, so that multiplying by it is one to one, and fills all digits. */
const spread = 0xd1342543de82ef959e3779b97f4a7c15f39dn

/**
 * The id number `n` of a kind that belongs to a uuid. Deterministic: whoever holds the uuid (a workflow's `uuid4()`, or
 * `crypto.randomUUID()` in the api) derives the same ids again in a retry.
 */
export function idFrom<Kind extends IdKind>(kind: Kind, uuid: string, n = 0): Id<Kind> {
  const own = (BigInt(`0x${uuid.replaceAll('-', '')}`) + BigInt(n) * stride) % uuidSpace
  if (kind === 'vector_store') return `${prefixes[kind]}${own.toString(16).padStart(32, '0')}`
  let value = ((own + 1n) * spread) % idSpace
  let text = ''
  for (let i = 0; i < length; i += 1) {
    text = digits.charAt(Number(value % 62n)) + text
    value /= 62n
  }
  return `${prefixes[kind]}${text}`
}
