import type { Config } from '../config.ts'
import type { Parts } from './parts.ts'
import type { Serving } from './serve.ts'

/** The last lines of a start: what is where, and what to do next. */
export function readyLines({
  config,
  parts,
  serving,
  tookS,
}: {
  config: Config
  parts: Pick<Parts, 'outside' | 'chromaUrl' | 'modelName'>
  serving: Pick<Serving, 'url' | 'isOpen'>
  tookS: number
}): string[] {
  const hint = modelHint(config)
  const lines = [
    '',
    `Longrun is ready (${tookS.toFixed(1)} s).`,
    '',
    `  Temporal UI  ${parts.outside.temporalUiUrl ?? 'not configured (TEMPORAL_UI_URL)'}`,
    `  Model        ${parts.modelName}`,
    `  Run deadline ${config.runs.expiresAfterS} s (RUN_EXPIRES_S; runs that wait for people need more)`,
    `  Data         ${config.dataDir}`,
  ]
  if (serving.url === undefined) return [...lines, '', 'This process is a worker: it has no API.']
  lines.splice(3, 0, `  Base URL     ${serving.url}`, `  API key      ${keyLine(serving)}`)
  return [
    ...lines,
    ...(hint ? ['', hint] : []),
    '',
    'from openai import OpenAI',
    `client = OpenAI(base_url="${serving.url}", api_key="local")`,
    'print(client.beta.assistants.create(model="gpt-4o", instructions="Be brief.").id)',
    '',
  ]
}

function keyLine({ isOpen }: Pick<Serving, 'isOpen'>): string {
  return isOpen
    ? 'any text: there are no keys, so everybody on this machine is let in (npm run admin -- key create)'
    : 'one of yours (npm run admin -- key list)'
}

/** What might be meant as the model, and is not used in silence: clients set the OPENAI_* names to reach us. */
function modelHint(config: Config): string | undefined {
  if (config.models.upstream || config.models.file) return undefined
  return config.hasOpenAiKey
    ? 'OPENAI_API_KEY is set. To use it: UPSTREAM_BASE_URL=https://api.openai.com/v1 UPSTREAM_API_KEY=$OPENAI_API_KEY npm start'
    : 'For real answers: UPSTREAM_BASE_URL=<any OpenAI-compatible endpoint> UPSTREAM_API_KEY=... npm start'
}
