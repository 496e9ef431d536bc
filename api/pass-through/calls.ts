import type { PassedKind } from '../../store/passed-objects.ts'

/** A call that is passed on; the path is the one below `/v1/`, here and at the endpoint. */
export interface Call {
  path: string
  /** Whether the client must name a model; where it need not, the default endpoint has one of its own. */
  needsModel: boolean
  /** Whether a stream tells its usage only when it is asked to. */
  asksForUsage?: true
  /** What it may leave at the endpoint, to be asked for later. */
  leaves?: PassedKind
  /** It only counts, and so uses nothing. */
  isFree?: true
}

export const calls: Call[] = [
  {
    path: 'chat/completions',
    needsModel: true,
    asksForUsage: true,
    leaves: 'chat.completion',
  },
  { path: 'completions', needsModel: true, asksForUsage: true },
  { path: 'embeddings', needsModel: true },
  { path: 'images/generations', needsModel: false },
  { path: 'images/edits', needsModel: false },
  { path: 'images/variations', needsModel: false },
  { path: 'audio/speech', needsModel: true },
  { path: 'audio/transcriptions', needsModel: true },
  { path: 'audio/translations', needsModel: true },
  { path: 'moderations', needsModel: false },
  { path: 'responses', needsModel: true, leaves: 'response' },
  { path: 'responses/compact', needsModel: true },
  { path: 'responses/input_tokens', needsModel: false, isFree: true },
]

/** Those may continue a response that an endpoint keeps, or follow a prompt that it keeps. */
export function isAboutResponses({ path }: Call): boolean {
  return path.startsWith('responses')
}
